"""What the terminal shows, kept row by row, so that only what differs is sent.

Textual sends whole rows again when text scrolls by one. Here rows that moved are moved by the
terminal itself, and of a row that changed only the changed cells are written. While the terminal
is slow, frames are skipped: what is wanted is updated, and the next frame catches up.
"""

import re
from collections import Counter
from collections.abc import Sequence

from rich.color import ColorSystem
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

Row = tuple[tuple[str, str], ...]
"""Text and the SGR codes it is written in, for one row; neighbours differ in their codes."""

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that the terminal might take for a command."""
_NARROW = re.compile(
    r"[ -~\u00a0-\u00ac\u00ae-\u02ff\u0370-\u0482\u2010-\u2027\u2190-\u21ff\u2500-\u25ff]*"
)
"""Text whose characters are one cell wide in every terminal."""
MIN_MOVED = 3
"""Rows that must be saved for a move to pay."""


class Frame:
    """The cells of the terminal: those that it shows and those that it shall show."""

    def __init__(self) -> None:
        self._size = (0, 0)
        self._wanted: list[Strip | None] = []
        self._rows: list[Row | None] = []
        """Of `_wanted`, as far as they were needed."""
        self._shown: list[Row | None] = []
        """None for rows that nothing is known of."""
        self._cursor = (-1, -1)

    def forget(self) -> None:
        """The terminal may show anything: send every row again."""
        self._shown = [None] * len(self._shown)
        self._cursor = (-1, -1)

    def apply(self, update: CompositorUpdate, size: tuple[int, int]) -> None:
        """Want what `update` draws, in a terminal of `size` columns and rows."""
        if size != self._size:
            self._size = size
            self._wanted = [None] * size[1]
            self._rows = [None] * size[1]
            self._shown = [None] * size[1]
            self._cursor = (-1, -1)
        if isinstance(update, LayoutUpdate):
            for y, strips in enumerate(update.strips, update.region.y):
                self._want(y, update.region.x, Strip.join(strips))
        elif isinstance(update, ChopsUpdate):
            self._apply_chops(update)

    def _apply_chops(self, update: ChopsUpdate) -> None:
        for y, x1, x2 in update.spans:
            # What lies outside of the span may be a ground without the text on it.
            ends = update.chop_ends[y]
            drawn: list[Strip] = []
            begin = next_x = -1
            for end, (x, strip) in zip(ends, update.chops[y].items(), strict=False):
                if strip is None or x >= x2 or end <= x1:
                    continue
                if x != next_x and drawn:
                    self._want(y, begin, Strip.join(drawn))
                    drawn = []
                begin, next_x = x if not drawn else begin, end
                drawn.append(strip.crop(0, x2 - x) if end > x2 else strip)
            if drawn:
                self._want(y, begin, Strip.join(drawn))

    def _want(self, y: int, x: int, strip: Strip) -> None:
        width, height = self._size
        if not 0 <= y < height:
            return
        known = self._wanted[y]
        if x > 0 or strip.cell_length < width:
            if known is None:
                known = Strip.blank(width)
            end = x + strip.cell_length
            strip = Strip.join([known.crop(0, x), strip, known.crop(end, width)])
        self._wanted[y] = strip
        self._rows[y] = None

    def flush(self, cursor: tuple[int, int], colours: ColorSystem) -> str:
        """The sequences that bring the terminal to what is wanted; empty if it is there."""
        rows = self._rows
        for y, strip in enumerate(self._wanted):
            if rows[y] is None and strip is not None:
                rows[y] = _row(strip, colours)
        parts: list[str] = []
        changed = [y for y, row in enumerate(rows) if row is not None and row != self._shown[y]]
        if len(changed) > MIN_MOVED and (move := _find_move(self._shown, rows, changed)):
            parts.append(self._move(*move))
            changed = [y for y, row in enumerate(rows) if row is not None and row != self._shown[y]]
        pen = _Pen()
        for y in changed:
            row = rows[y]
            assert row is not None
            parts += _write_row(pen, y, self._shown[y], row)
            self._shown[y] = row
        if parts or cursor != self._cursor:
            self._cursor = cursor
            parts.append(pen.change("") + _move_to(*cursor))
        return "".join(parts)

    def _move(self, top: int, bottom: int, distance: int) -> str:
        """Let the terminal move the rows between `top` and `bottom` up, or down if negative."""
        shown = self._shown
        blank: list[Row | None] = [None] * abs(distance)
        if distance > 0:
            shown[top:bottom] = shown[top + distance : bottom] + blank
            scroll = f"\x1b[{bottom};1H" + "\n" * distance
        else:
            shown[top:bottom] = blank + shown[top : bottom + distance]
            scroll = f"\x1b[{top + 1};1H" + "\x1bM" * -distance
        return f"\x1b[{top + 1};{bottom}r{scroll}\x1b[r"


class _Pen:
    """The style that the terminal writes in."""

    def __init__(self) -> None:
        self._codes = ""

    def change(self, codes: str) -> str:
        """The sequence that changes to `codes`, from wherever it was."""
        if codes == self._codes:
            return ""
        self._codes = codes
        return f"\x1b[0;{codes}m" if codes else "\x1b[0m"


def _row(strip: Strip, colours: ColorSystem) -> Row:
    """The text of `strip`, safe to send, with its codes."""
    found: list[tuple[str, str]] = []
    text, codes = "", ""
    for segment in strip:
        style = segment.style
        new_codes = "" if style is None else Strip.render_ansi(style, colours)
        new_text = UNSAFE.sub("", segment.text)
        if new_codes == codes:
            text += new_text
        else:
            if text:
                found.append((text, codes))
            text, codes = new_text, new_codes
    if text:
        found.append((text, codes))
    return tuple(found)


def _move_to(x: int, y: int) -> str:
    return f"\x1b[{y + 1};{x + 1}H"


def _write_row(pen: _Pen, y: int, old: Row | None, new: Row) -> list[str]:
    """What turns the row `old` into `new`."""
    x, cells = 0, new
    if old is not None and all(_NARROW.fullmatch(text) for text, _ in (*old, *new)):
        x, cells = _difference(old, new)
    parts = [_move_to(x, y)]
    for text, codes in cells:
        parts += [pen.change(codes), text]
    return parts


def _difference(old: Row, new: Row) -> tuple[int, Row]:
    """Where two rows of one-cell characters begin to differ, and what to write there."""
    length = sum(len(text) for text, _ in new)
    if sum(len(text) for text, _ in old) != length:
        return 0, new
    start = _common(old, new)
    backwards = [tuple((text[::-1], codes) for text, codes in row[::-1]) for row in (old, new)]
    # The common end must not reach into the common beginning.
    end = max(start, length - _common(*backwards))
    return start, _part(new, start, end)


def _common(old: Row, new: Row) -> int:
    """How many cells two rows have in common at their beginning."""
    count = 0
    for (old_text, old_codes), (new_text, new_codes) in zip(old, new, strict=False):
        if old_codes != new_codes:
            break
        same = _same(old_text, new_text)
        count += same
        if same < len(old_text) or same < len(new_text):
            break
    return count


def _same(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    shorter = min(len(one), len(other))
    return shorter if one == other else next((i for i, (a, b) in pairs if a != b), shorter)


def _part(row: Row, start: int, end: int) -> Row:
    found = []
    position = 0
    for text, codes in row:
        if piece := text[max(0, start - position) : max(0, end - position)]:
            found.append((piece, codes))
        position += len(text)
    return tuple(found)


def _find_move(
    shown: Sequence[Row | None], rows: Sequence[Row | None], changed: Sequence[int]
) -> tuple[int, int, int] | None:
    """Top, bottom and distance of the move that saves the most rows; None if none pays."""
    places: dict[Row, int] = {}
    for y, row in enumerate(shown):
        if row is not None:
            body = _body(row)
            places[body] = -1 if body in places else y  # rows that look alike tell nothing
    found: list[tuple[int, int]] = []
    for y in changed:
        row = rows[y]
        place = places.get(_body(row), -1) if row is not None else -1
        if place >= 0 and place != y:
            found.append((y, place))
    if not found:
        return None
    distance, votes = Counter(place - y for y, place in found).most_common(1)[0]
    moved = [(y, place) for y, place in found if place - y == distance]
    top = min(min(pair) for pair in moved)
    bottom = max(max(pair) for pair in moved) + 1
    changed_rows = set(changed)
    disturbed = sum(y not in changed_rows for y in range(top, bottom))
    return (top, bottom, distance) if votes - disturbed >= MIN_MOVED else None


def _body(row: Row) -> Row:
    """A row without its last cell, where the scrollbar is."""
    *others, (text, codes) = row or (("", ""),)
    return (*others, (text[:-1], codes)) if len(text) > 1 else tuple(others)
