"""Long texts that stand in the box as one short label each: pastes, and what is recalled."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

FOLD_CHARACTERS = 1000
FOLD_LINES = 8
"""A paste of so many characters or lines is folded."""
BOX_CHARACTERS = 20_000
BOX_LINE = 5_000
BOX_LINES = 400
"""What the box still wraps and edits without a delay; a longer text is folded as a whole."""
KEPT = 50
KEPT_CHARACTERS = 32_000_000
"""Texts that are remembered beyond those in the box, to fold a recalled prompt as it was."""

_LABEL = re.compile(r"\[≡ [^\[\]\n]*\]")


def is_long(text: str) -> bool:
    """Whether a paste is folded."""
    return len(text) >= FOLD_CHARACTERS or text.count("\n") + 1 >= FOLD_LINES


def fits_box(text: str) -> bool:
    """Whether the box can show all of `text` and stay quick."""
    return (
        len(text) <= BOX_CHARACTERS
        and text.count("\n") < BOX_LINES
        and all(len(line) <= BOX_LINE for line in text.split("\n"))
    )


@dataclass(frozen=True, slots=True)
class _Folded:
    text: str
    words: str
    """What the label says before the tokens."""


class FoldedTexts:
    """The labels that were given out, each with the text it stands for."""

    def __init__(self) -> None:
        self._of: dict[str, _Folded] = {}

    @property
    def has_labels(self) -> bool:
        """Whether any label was given out and is remembered."""
        return bool(self._of)

    def fold(self, text: str, word: str = "pasted") -> str:
        """The label that stands for `text` from now on."""
        for label, folded in reversed(self._of.items()):
            if folded.text == text:
                return label
        lines = text.count("\n") + 1
        size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        return self._register(_Folded(text, f"{word} {size}"), "")

    def with_tokens(self, label: str, tokens: str) -> str:
        """The label of the same text that tells its tokens as well, such as "1,234 tok"."""
        return self._register(self._of[label], f" · {tokens}")

    def _register(self, folded: _Folded, behind: str) -> str:
        label, number = f"[≡ {folded.words}{behind}]", 1
        while self._of.get(label, folded).text != folded.text:
            number += 1
            label = f"[≡ {folded.words} #{number}{behind}]"
        self._of[label] = folded
        return label

    def spans(self, line: str) -> Iterator[tuple[int, int, str]]:
        """Start, end and label of every label in one line of the box."""
        for match in _LABEL.finditer(line):
            if match.group() in self._of:
                yield match.start(), match.end(), match.group()

    def text_of(self, label: str) -> str:
        """The text that a label stands for.

        Raises:
            KeyError: it is no label of ours.
        """
        return self._of[label].text

    def expand(self, shown: str) -> str:
        """What is shown in the box with the texts in place of their labels."""
        if not self._of:
            return shown
        texts = self._of
        return _LABEL.sub(
            lambda match: texts[label].text if (label := match.group()) in texts else label, shown
        )

    def refold(self, text: str) -> str:
        """What the box shows of a whole text: parts that were folded before as their labels.

        What the box could not show even so is folded as a whole.
        """
        pieces: list[tuple[str, bool]] = [(text, False)]
        seen: set[str] = set()
        for label, folded in reversed(self._of.items()):
            if folded.text not in seen:
                seen.add(folded.text)
                pieces = list(_with_label(pieces, folded.text, label))
        shown = "".join(piece for piece, _ in pieces)
        return shown if fits_box(shown) else self.fold(text, "text of")

    def forget(self, shown: str) -> None:
        """Let go of the oldest texts that are neither in `shown` nor likely to be recalled."""
        needed = {label for line in shown.split("\n") for _, _, label in self.spans(line)}
        characters = 0
        for number, (label, folded) in enumerate(list(reversed(self._of.items()))):
            characters += len(folded.text)
            if (number >= KEPT or characters > KEPT_CHARACTERS) and label not in needed:
                del self._of[label]


def _with_label(
    pieces: list[tuple[str, bool]], text: str, label: str
) -> Iterator[tuple[str, bool]]:
    """The pieces, with the label for each `text` in them; a piece may be a label already."""
    for piece, is_label in pieces:
        parts = [piece] if is_label else piece.split(text)
        for index, part in enumerate(parts):
            if index:
                yield label, True
            yield part, is_label
