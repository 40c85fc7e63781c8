"""Token ids to text as they are generated: whole characters, reasoning apart, stop strings."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

from tokenizers.decoders import DecodeStream

from tui_chat.engine.tokenizer import THINK_CLOSE, THINK_OPEN, ChatTokenizer

Kind = Literal["content", "reasoning"]


class Piece(NamedTuple):
    """Some text of a reply and what it belongs to."""

    kind: Kind
    text: str


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


class ReasoningSplitter:
    """Parts reasoning from content at the think tags, which are never handed on.

    Blank lines next to a tag belong to the tag. Where the tags are single tokens only these
    count; otherwise an opening tag counts only at the very beginning of the reply, so that a
    reply may speak about the tags.
    """

    def __init__(self, *, in_reasoning: bool, tags_are_text: bool) -> None:
        self._kind: Kind = "reasoning" if in_reasoning else "content"
        self._tags_are_text = tags_are_text
        self._at_start = in_reasoning
        """Whether nothing but blank lines stands behind the last tag."""
        self._may_open = tags_are_text and not in_reasoning
        self._held = ""

    def open(self) -> list[Piece]:
        """Note an opening tag."""
        pieces = self.finish()
        self._kind, self._at_start = "reasoning", True
        return pieces

    def close(self) -> list[Piece]:
        """Note a closing tag; without reasoning before it, it is dropped."""
        if self._kind == "content":
            return []
        self._held = self._held.rstrip("\n")
        pieces = self.finish()
        self._kind, self._at_start = "content", True
        return pieces

    def push(self, text: str) -> list[Piece]:
        """Hand on `text`, except for what may still turn out to stand before a tag."""
        self._held += text
        if self._may_open:
            return self._push_opening()
        pieces: list[Piece] = []
        if self._kind == "reasoning" and self._tags_are_text:
            before, tag, after = self._held.partition(THINK_CLOSE)
            if tag:
                self._held = before
                pieces = self.close()
                self._held = after
        return pieces + self._release()

    def finish(self) -> list[Piece]:
        """Hand on what was held back."""
        text, self._held = self._held, ""
        self._may_open = False
        if self._at_start:
            text = text.lstrip("\n")
        return [Piece(self._kind, text)] if text else []

    def _push_opening(self) -> list[Piece]:
        begun = self._held.lstrip()
        if THINK_OPEN.startswith(begun):
            if begun != THINK_OPEN:
                return []
        elif not begun.startswith(THINK_OPEN):
            self._may_open = False
            return self._release()
        self._may_open = False
        self._held = ""
        self.open()
        return self.push(begun.removeprefix(THINK_OPEN))

    def _release(self) -> list[Piece]:
        if self._at_start:
            self._held = self._held.lstrip("\n")
            self._at_start = not self._held
        keep = 0
        if self._kind == "reasoning":
            text = self._held
            if self._tags_are_text:
                text = text[: len(text) - overlap(text, THINK_CLOSE)]
            keep = len(self._held) - len(text.rstrip("\n"))
        end = len(self._held) - keep
        text, self._held = self._held[:end], self._held[end:]
        return [Piece(self._kind, text)] if text else []


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


def overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that is a start of `word`, but not all of it."""
    for length in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:length]):
            return length
    return 0
