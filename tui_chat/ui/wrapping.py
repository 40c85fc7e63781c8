"""Styled text broken into rows of cells; knows neither Markdown nor the toolkit."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, split_graphemes

TAB = "    "
"""What a tab is shown as: on a terminal it takes as many cells as the column that it is in says."""


class Run(NamedTuple):
    """A piece of text in one style."""

    text: str
    style: str = ""
    """Words of the palette, separated by spaces."""
    link: str = ""
    """Where it leads to when it is clicked."""


class Line(NamedTuple):
    """One row."""

    runs: tuple[Run, ...] = ()
    joint: str = "\n"
    """What stands in the text between the row before and this one."""
    ground: str = ""
    """Style of the whole row, up to its right edge."""
    indent: int = 0
    """How many characters at its beginning are no text, for who copies it."""

    @property
    def text(self) -> str:
        """The row without styles."""
        return "".join(run.text for run in self.runs)


def wrap(runs: Sequence[Run], width: int, *, words: bool = True) -> list[Line]:
    """`runs` in rows of at most `width` cells, broken between words where that is possible.

    With `words` off they are broken at the edge, as code is. A character that is wider than
    `width` gets a row of its own. Tabs become spaces.
    """
    if any("\t" in run.text for run in runs):
        runs = [run._replace(text=run.text.replace("\t", TAB)) for run in runs]
    text = "".join(run.text for run in runs)
    lines = []
    cursor = _Cursor(runs)
    for start, end, joint in _spans(text, max(1, width), words):
        lines.append(Line(cursor.slice(start, end), joint))
    return lines


def _spans(text: str, width: int, words: bool) -> Iterator[tuple[int, int, str]]:
    """Start and end of each row, and what stood before it."""
    start = 0
    for paragraph in text.split("\n"):
        end = start + len(paragraph)
        break_up = _narrow if paragraph.isascii() else _any_width
        joint = "\n"
        row_end = start
        for first, last in break_up(text, start, end, width, words):
            if words:
                last = first + len(text[first:last].rstrip(" "))
            if first > start:
                joint = text[row_end:first]
            yield first, last, joint
            row_end = last
        start = end + 1


def _narrow(text: str, start: int, end: int, width: int, words: bool) -> Iterator[tuple[int, int]]:
    """Rows of a text whose characters are one cell wide each."""
    while end - start > width:
        cut = text.rfind(" ", start, start + width + 1) if words else -1
        if cut <= start or text[start:cut].isspace():
            yield start, start + width
            start += width
            continue
        yield start, cut
        start = cut + 1
        while start < end and text[start] == " ":
            start += 1
        if start == end:
            return
    yield start, end


def _any_width(
    text: str, start: int, end: int, width: int, words: bool
) -> Iterator[tuple[int, int]]:
    """Rows of any text; wide characters, as in Chinese, may part from each other anywhere."""
    spans, _ = split_graphemes(text[start:end])
    offset = start
    used = 0
    last_break = start
    used_at_break = 0
    was_wide = False
    for first, last, size in spans:
        position = offset + first
        is_space = text[position : offset + last] == " "
        if words and (was_wide or size > 1) and position > start and not is_space:
            last_break, used_at_break = position, used
        if used + size > width and position > start and not (words and is_space):
            if not words or last_break <= start or text[start:last_break].isspace():
                last_break, used_at_break = position, used
            yield start, last_break
            start, used = last_break, used - used_at_break
            last_break, used_at_break = start, 0
        used += size
        was_wide = size > 1
        if words and is_space:
            last_break, used_at_break = offset + last, used
    yield start, end


class _Cursor:
    """Cuts runs at growing offsets of their joined text."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs
        self._index = 0
        self._offset = 0

    def slice(self, start: int, end: int) -> tuple[Run, ...]:
        """The runs between two offsets; `start` is never before the `end` of the call before."""
        found = []
        while self._index < len(self._runs):
            run = self._runs[self._index]
            after = self._offset + len(run.text)
            if after <= start:
                self._offset = after
                self._index += 1
                continue
            first = max(0, start - self._offset)
            if first == 0 and after <= end:
                if run.text:
                    found.append(run)
            elif piece := run.text[first : end - self._offset]:
                found.append(Run(piece, run.style, run.link))
            if after > end:
                break
            self._offset = after
            self._index += 1
        return tuple(found)


def cells(runs: Sequence[Run]) -> int:
    """How many cells `runs` take side by side."""
    return sum(len(run.text) if run.text.isascii() else cell_len(run.text) for run in runs)
