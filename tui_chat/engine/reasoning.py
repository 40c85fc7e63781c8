"""Parts what a model thinks from what it answers, at the think tags in its text."""

from typing import Literal, NamedTuple

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"

Kind = Literal["content", "reasoning"]


class Piece(NamedTuple):
    """Some text of a reply and what it belongs to."""

    kind: Kind
    text: str


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

    @property
    def is_done(self) -> bool:
        """Whether all that follows is content, as far as tags of text go."""
        return self._kind == "content" and not self._may_open and not self._at_start

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


def overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that is a start of `word`, but not all of it."""
    for length in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:length]):
            return length
    return 0
