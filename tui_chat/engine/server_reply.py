"""The chunks of a streamed reply to text, counts and the reason for the end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tui_chat.engine.base import EngineError
from tui_chat.engine.reasoning import Piece, ReasoningSplitter
from tui_chat.engine.server_faults import complaint_of, ended
from tui_chat.types import FinishReason, PrefillProgress

_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "repetition": "repetition",
}
_FAILURES = {
    "content_filter": "The server's content filter ended the reply.",
    "abort": "The server gave the reply up; ask again.",
    "error": "The server failed in the middle of the reply; ask again.",
    "cancelled": "The server gave the reply up; ask again.",
}
_TOOLS = ("tool_calls", "function_call")
DONE = "[DONE]"


@dataclass(slots=True)
class Counts:
    """What the server has told of its counts so far; None where it has not."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    drafted_tokens: int | None = None


class ReplyReader:
    """Reads one reply, chunk by chunk.

    Reasoning comes in a field of its own, under one of two names, or between think tags at the
    begin of the content.
    """

    def __init__(self, *, continues: bool = False) -> None:
        """`continues` is whether the text goes on with a reply that has begun before."""
        self.counts = Counts()
        self.chunks = 0
        """Chunks with text: about as many as tokens, where the server does not count them."""
        self.ended = False
        """Whether the server marked the end of its answer."""
        self._reason = ""
        self._splitter: ReasoningSplitter | None = None
        if not continues:
            self._splitter = ReasoningSplitter(in_reasoning=False, tags_are_text=True)

    @property
    def is_complete(self) -> bool:
        """Whether no more text will come."""
        return self.ended or bool(self._reason)

    @property
    def tokens(self) -> tuple[int, bool]:
        """Tokens of the reply so far, and whether that is a guess."""
        counted = self.counts.completion_tokens
        return (counted, False) if counted else (self.chunks, self.chunks > 0)

    def push(self, data: str) -> list[Piece | PrefillProgress]:
        """What the data of one event holds.

        Raises:
            EngineError: it is an error of the server; one sentence.
        """
        if data.startswith(DONE):
            self.ended = True
            return []
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise EngineError("The server sent a part of the reply that is no JSON.") from None
        if not isinstance(chunk, dict):
            return []
        if "error" in chunk or chunk.get("object") == "error":
            said = complaint_of(chunk).text
            if chunk.get("error") or said:
                sentence = "The server reports an error in the reply"
                raise EngineError(
                    f"{sentence}: {ended(said)}" if said else f"{sentence}; ask again."
                )
        return self._read(chunk)

    def finish(self) -> list[Piece]:
        """The text that was held back."""
        return self._splitter.finish() if self._splitter else []

    def reason(self) -> FinishReason:
        """Why the reply ended.

        Raises:
            EngineError: it did not end well, or the server never said that it ended.
        """
        reason = self._reason
        if reason in _FAILURES:
            raise EngineError(_FAILURES[reason])
        if reason in _TOOLS and not self.chunks:
            raise EngineError("The model wanted to call a tool, and there is none; ask again.")
        if not reason and not self.ended:
            raise EngineError(
                "The server closed the connection before the reply was complete; what came is kept."
            )
        return _REASONS.get(reason, "stop")

    def _read(self, chunk: dict[str, Any]) -> list[Piece | PrefillProgress]:
        found: list[Piece | PrefillProgress] = []
        choices = chunk.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], dict):
            choice = choices[0]
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                found += self._text(delta)
            if reason := choice.get("finish_reason"):
                self._reason = str(reason)
        if usage := chunk.get("usage"):
            self._note_usage(usage)
        if timings := chunk.get("timings"):
            self._note_timings(timings)
        if progress := chunk.get("prompt_progress"):
            found += _progress(progress)
        return found

    def _text(self, delta: dict[str, Any]) -> list[Piece]:
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        content = delta.get("content") or delta.get("refusal")
        if not reasoning and not content:
            return []
        self.chunks += 1
        found: list[Piece] = []
        if isinstance(reasoning, str) and reasoning:
            if self._splitter:
                found += self._splitter.finish()
                self._splitter = None
            found.append(Piece("reasoning", reasoning))
        text = content if isinstance(content, str) else _joined(content)
        if not text:
            return found
        if self._splitter is None:
            found.append(Piece("content", text))
            return found
        found += self._splitter.push(text)
        if self._splitter.is_done:
            found += self._splitter.finish()
            self._splitter = None
        return found

    def _note_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        counts = self.counts
        counts.prompt_tokens = _count(usage, "prompt_tokens") or counts.prompt_tokens
        completion = _count(usage, "completion_tokens")
        counts.completion_tokens = counts.completion_tokens if completion is None else completion
        details = usage.get("prompt_tokens_details")
        cached = _count(details, "cached_tokens") if isinstance(details, dict) else None
        counts.cached_tokens = counts.cached_tokens if cached is None else cached

    def _note_timings(self, timings: Any) -> None:
        """What llama.cpp tells: the prompt in what was reused and what was read."""
        if not isinstance(timings, dict):
            return
        read, cached = _count(timings, "prompt_n"), _count(timings, "cache_n")
        counts = self.counts
        if cached is not None:
            counts.cached_tokens = cached
        if read is not None and cached is not None:
            counts.prompt_tokens = read + cached
        written, drafted = _count(timings, "predicted_n"), _count(timings, "draft_n_accepted")
        counts.completion_tokens = counts.completion_tokens if written is None else written
        counts.drafted_tokens = counts.drafted_tokens if drafted is None else drafted


def _count(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)


def _progress(progress: Any) -> list[PrefillProgress]:
    """How much of the prompt llama.cpp has read."""
    if not isinstance(progress, dict):
        return []
    done, total = _count(progress, "processed"), _count(progress, "total")
    return [PrefillProgress(done, total)] if done is not None and total else []


def _joined(content: Any) -> str:
    """The text of a content that comes in parts."""
    if not isinstance(content, list):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str))
