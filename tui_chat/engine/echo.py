"""A scripted engine: the text of a file is the reply to every prompt. No torch."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tui_chat.engine.base import LoadError, PollSettings
from tui_chat.types import (
    EngineEvent,
    FinishReason,
    GenerationFinished,
    MemoryUse,
    Message,
    Precision,
    PrefillProgress,
    ReplyMetrics,
    Role,
    Rung,
    TextDelta,
)

_TOKEN = re.compile(r"\s*\S+\s?|\s+")
_MESSAGE_OVERHEAD = 4
_GENERATION_PROMPT = 3


def split_tokens(text: str) -> list[str]:
    """`text` in words with the space around them; joined they are `text` again."""
    return _TOKEN.findall(text)


def _system_prompt(messages: Sequence[Message]) -> str:
    return messages[0].content if messages and messages[0].role is Role.SYSTEM else ""


class EchoEngine:
    """Streams the text of `path` at `rate` tokens per second; 0 is as fast as possible.

    Raises:
        LoadError: the file is missing or not UTF-8 text.
    """

    revision = ""
    tokenizer_id = "echo"
    exact_counts = False
    counts_here = True
    precision = Precision.CPU
    device = "echo"
    dtype = ""
    context_window: int

    def __init__(self, path: Path, rate: float = 0.0, context_window: int | None = None) -> None:
        try:
            text = path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            raise LoadError(f"No such file: {path}; echo: needs the path of a text file.") from None
        except OSError as error:
            raise LoadError(f"{path} cannot be read ({error.strerror}).") from None
        except UnicodeDecodeError:
            raise LoadError(f"{path} is not UTF-8 text, so it cannot be echoed.") from None
        self.name = f"echo:{path.name}"
        self.context_window = context_window or 8192
        reason = f"The text of {path.name} is streamed; no model is loaded."
        self.rungs: tuple[Rung, ...] = (Rung(Precision.CPU, True, reason),)
        self.notes: tuple[str, ...] = ("A scripted engine: every prompt gets the same reply.",)
        self._text = text
        self._rate = rate
        self._lock = threading.Lock()
        self._cached_tokens = 0
        self._system_prompt = ""

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """Words of all messages and a fixed share for a template around each."""
        return sum(map(self.count_message, messages)) + _GENERATION_PROMPT

    def count_cached(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        """All that was read or written before, unless the system prompt is another one."""
        if _system_prompt(messages) != self._system_prompt:
            return 0
        return min(self._cached_tokens, self.count_tokens(messages) - 1)

    def can_take_back(self, tokens: int) -> bool:
        """No: the file is the reply to every prompt."""
        return False

    def count_message(self, message: Message) -> int:
        """Words of one message and a fixed share for a template around it."""
        return len(split_tokens(message.content)) + _MESSAGE_OVERHEAD

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        """The text of the file, token by token; see `Engine.stream`."""
        with self._lock:
            yield from self._stream(messages, settings, cancel)

    def _stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        started = time.perf_counter()
        limit = settings().max_new_tokens
        prompt_tokens = self.count_tokens(messages)
        cached = self.count_cached(messages)
        tokenized = time.perf_counter()
        yield PrefillProgress(prompt_tokens, prompt_tokens)
        finish: FinishReason = "stop"
        count, first, last = 0, tokenized, tokenized
        for token in split_tokens(self._text[self._start(messages[-1]) :]):
            if count == limit:
                finish = "length"
                break
            due = first + count / self._rate if self._rate > 0 and count else 0.0
            if cancel.wait(max(0.0, due - time.perf_counter())):
                finish = "cancelled"
                break
            settings()
            last = time.perf_counter()
            count += 1
            if count == 1:
                first = last
            yield TextDelta(token, completion_tokens=count, decode_seconds=last - first)
        self._cached_tokens, self._system_prompt = prompt_tokens + count, _system_prompt(messages)
        metrics = ReplyMetrics(
            prompt_tokens=prompt_tokens,
            cached_tokens=cached,
            completion_tokens=count,
            tokenize_seconds=tokenized - started,
            prefill_seconds=first - tokenized,
            decode_seconds=last - first,
            precision=self.precision,
        )
        yield GenerationFinished(finish, metrics)

    def _start(self, last: Message) -> int:
        """Where the text goes on behind a reply that is to be continued; 0 for a new one."""
        if last.role is not Role.ASSISTANT:
            return 0
        begin = self._text.find(last.content)
        return begin + len(last.content) if begin >= 0 else 0

    def memory(self) -> MemoryUse | None:
        """None: there is no model."""
        return None

    def close(self) -> None:
        """Forget the prompt; there are no weights to free."""
        self._cached_tokens = 0
