"""Token ids to text as they are generated: whole characters, reasoning apart, stop strings."""

from collections.abc import Sequence
from typing import Any, Protocol

from tokenizers.decoders import DecodeStream

from tui_chat.engine.reasoning import Piece, ReasoningSplitter, overlap
from tui_chat.engine.tokenizer import ChatTokenizer


class IdDecoder(Protocol):
    """Turns ids into text one at a time, holding back characters that are not whole yet."""

    def push(self, token_id: int) -> str:
        """Text that `token_id` completed, perhaps none."""
        ...

    def finish(self) -> str:
        """What was held back; the decoder is then as new."""
        ...


class FastDecoder:
    """Decodes with the tokenizer's own backend in constant time per token."""

    def __init__(self, tokenizer: ChatTokenizer, before: Sequence[int] = ()) -> None:
        self._lock = tokenizer.lock
        self._backend: Any = tokenizer.hf._tokenizer
        self._start(before)

    def _start(self, before: Sequence[int] = ()) -> None:
        self._stream = DecodeStream(ids=list(before), skip_special_tokens=True)
        self._ids = list(before)
        self._length = 0
        if before:
            with self._lock:
                self._length = len(self._backend.decode(self._ids, skip_special_tokens=True))

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        try:
            with self._lock:
                text: str = self._stream.step(self._backend, token_id) or ""
        except Exception:
            return self._resume(token_id)
        self._length += len(text)
        return text

    def _resume(self, token_id: int) -> str:
        """Go on after bytes that are no text: they change how the bytes before them decode."""
        with self._lock:
            before: str = self._backend.decode(self._ids[-2:-1], skip_special_tokens=True)
            after: str = self._backend.decode(self._ids[-2:], skip_special_tokens=True)
            alone: str = self._backend.decode([token_id], skip_special_tokens=True)
        self._stream = DecodeStream(ids=[token_id], skip_special_tokens=True)
        self._ids, self._length = [token_id], len(alone)
        return after.removeprefix(before)

    def finish(self) -> str:
        if not self._ids:
            return ""
        with self._lock:
            whole: str = self._backend.decode(self._ids, skip_special_tokens=True)
        held = whole[self._length :]
        self._start()
        return held


class TailDecoder:
    """Decodes with any tokenizer by decoding the last few ids again for each token."""

    def __init__(self, tokenizer: ChatTokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._start(before)

    def _start(self, before: Sequence[int] = ()) -> None:
        self._ids = list(before)
        self._context = 0
        self._read = len(before)

    def _decode(self, ids: list[int]) -> str:
        with self._tokenizer.lock:
            text: str = self._tokenizer.hf.decode(ids, skip_special_tokens=True)
        return text

    def push(self, token_id: int) -> str:
        self._ids.append(token_id)
        before = self._decode(self._ids[self._context : self._read])
        after = self._decode(self._ids[self._context :])
        if after.endswith("\ufffd") or len(after) <= len(before):
            return ""
        self._context, self._read = self._read, len(self._ids)
        return after[len(before) :]

    def finish(self) -> str:
        before = self._decode(self._ids[self._context : self._read])
        after = self._decode(self._ids[self._context :])
        self._start()
        return after[len(before) :]


class StopStrings:
    """Cuts text at the first of some strings, holding back what may be the start of one."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = tuple(string for string in strings if string)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Text that is safe to show now; nothing more once a string was found."""
        if self.found or not self._strings:
            return "" if self.found else text
        text = self._held + text
        starts = [at for at in (text.find(string) for string in self._strings) if at >= 0]
        if starts:
            self.found, self._held = True, ""
            return text[: min(starts)]
        keep = max(overlap(text, string) for string in self._strings)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back and did not become a stop string."""
        text, self._held = self._held, ""
        return text


class TextStream:
    """The text of one reply, from its ids."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        *,
        in_reasoning: bool = False,
        stop_strings: tuple[str, ...] = (),
        before: Sequence[int] = (),
    ) -> None:
        """Begin a reply, or go on with one.

        Args:
            tokenizer: of the model.
            in_reasoning: whether the prompt already ends with an open `<think>`.
            stop_strings: texts that end the reply.
            before: the last ids of the text that goes on, so that a space is not taken for the
                one that some tokenizers put before a text.
        """
        is_fast = hasattr(tokenizer.hf, "_tokenizer")
        decoder = FastDecoder if is_fast else TailDecoder
        self._decoder: IdDecoder = decoder(tokenizer, before)
        tags = tokenizer.think_ids
        self._open_id, self._close_id = tags or (-1, -1)
        self._splitter = ReasoningSplitter(in_reasoning=in_reasoning, tags_are_text=tags is None)
        self._stops = StopStrings(stop_strings)

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found; the reply ends there."""
        return self._stops.found

    def push(self, token_id: int) -> list[Piece]:
        """Text that `token_id` completed. End-of-turn ids must not be pushed."""
        if token_id in (self._open_id, self._close_id):
            pieces = self._splitter.push(self._decoder.finish())
            opens = token_id == self._open_id
            pieces += self._splitter.open() if opens else self._splitter.close()
        else:
            pieces = self._splitter.push(self._decoder.push(token_id))
        return self._cut(pieces)

    def finish(self) -> list[Piece]:
        """Everything that was held back; nothing after a stop string."""
        pieces = self._splitter.push(self._decoder.finish()) + self._splitter.finish()
        pieces = self._cut(pieces)
        held = self._stops.finish()
        return [*pieces, Piece("content", held)] if held else pieces

    def _cut(self, pieces: list[Piece]) -> list[Piece]:
        cut = []
        for kind, text in pieces:
            shown = self._stops.push(text) if kind == "content" else text
            if shown:
                cut.append(Piece(kind, shown))
        return cut
