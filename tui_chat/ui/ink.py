"""Short texts in the design's few words: muted, strong, key, rate; colours follow the theme.

Texts are parts, never markup, so that data from a model or a file cannot style or script
anything: a part is a plain text, or (word, text) with one of the words in `_STYLES`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.cells import cell_len
from textual.app import App
from textual.content import Content
from textual.widget import Widget

from tui_chat.chat.sanitize import sanitize

Part = str | tuple[str, str]
Line = Sequence[Part]

_STYLES = {
    "m": "$text-muted",  # labels, hints, metrics
    "off": "$bar-off",  # the empty part of a meter
    "rule": "$rule",
    "k": "$foreground",  # a key that can be pressed
    "hi": "$bright bold",  # titles and the one number that counts
    "hit": "bold underline $bright on $hit",  # a search hit
    "rate": "$secondary",  # a live rate
    "you": "$primary",
    "it": "$secondary",  # the model
    "past": "$bar-past",  # an older bar of a plot
    "ref": "$accent",  # what can be pointed at: /commands, versions
    "warn": "$warning",
    "err": "$error",
    "ok": "$success",
}
_ANSI_STYLES = {
    "m": "dim",
    "off": "dim",
    "past": "$bar-past dim",
    "rule": "dim",
    "k": "bold",
    "hi": "bold",
    "hit": "reverse",
    "rate": "bold",
}


def paint(app: App[Any], parts: Line) -> Content:
    """The parts as styled content; every text is made safe to show."""
    styles = _STYLES | _ANSI_STYLES if app.native_ansi_color else _STYLES
    return Content.assemble(
        *(
            sanitize(part) if isinstance(part, str) else (sanitize(part[1]), styles[part[0]])
            for part in parts
        )
    )


def cells_of(parts: Line) -> int:
    """How wide the parts are."""
    text = "".join(part if isinstance(part, str) else part[1] for part in parts)
    return cell_len(sanitize(text))


def turn_marks(version: tuple[int, int], *, left_out: bool) -> list[Part]:
    """What a turn says of itself: which version of how many it is, and that it is not sent."""
    number, count = version
    parts: list[Part] = [("ref", f"‹{number}/{count}›")] if count > 1 else []
    if left_out:
        parts += ["  "] * bool(parts) + [("m", "╏ left out")]
    return parts


def mark_places(text: str, found: Sequence[tuple[int, int]], word: str = "") -> list[Part]:
    """`text` in the style `word` (or none), with the places `found` in it styled as hits."""
    cuts = [0, *(edge for place in found for edge in place), len(text)]
    parts: list[Part] = []
    for index, (start, stop) in enumerate(pairwise(cuts)):
        style = "hit" if index % 2 else word
        if start < stop:
            parts.append((style, text[start:stop]) if style else text[start:stop])
    return parts


def meter(part: float, cells: int, *, draft: float = 0.0, reserve: float = 0.0) -> list[Part]:
    """A one-row bar: heavy line used, light line free, dashes kept back.

    The fractions are of the whole bar. The colour warns from 70 % and alarms from 90 %.
    """
    part = min(max(part, 0.0), 1.0)
    full, tip = divmod(round(part * cells * 2), 2)
    drafted = min(round(draft * cells), cells - full - tip)
    reserved = min(round(reserve * cells), cells - full - tip - drafted)
    free = cells - full - tip - drafted - reserved
    word = "it" if part + draft < 0.7 else "warn" if part + draft < 0.9 else "err"
    parts: list[Part] = [(word, "━" * full + "╸" * tip)]
    if drafted:
        parts.append(("you", "━" * drafted))
    if free or reserved:
        parts.append(("off", "─" * free + "╌" * reserved))
    return parts


def thousands(tokens: int) -> str:
    """A count for narrow places: 512, 3.6k, 128k, 1.5M."""
    if tokens < 1000:
        return str(tokens)
    if tokens >= 999_500:
        return f"{tokens / 1e6:.1f}M"
    return f"{tokens / 1000:.1f}k" if tokens < 99_950 else f"{tokens / 1000:.0f}k"


def gigabytes(size: int) -> str:
    """Bytes as people compare them: 340 kB, 12 MB below one gigabyte, else 1.3 GB."""
    if 0 < size < 995_000:
        return f"{max(1.0, size / 1e3):.0f} kB"
    if size < 995_000_000:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB"


def file_size(size: int) -> str:
    """Bytes of a file as people compare them: 412 B, 0.4 kB, 31 kB, 1.2 MB."""
    if size < 100:
        return f"{size} B"
    if size < 9_950:
        return f"{size / 1000:.1f} kB"
    return f"{size / 1000:.0f} kB" if size < 999_500 else f"{size / 1e6:.1f} MB"


def seconds(value: float) -> str:
    """A duration for reading: 2 ms, 1.9 s, 2 min 05 s."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 99.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02} s"


def when(moment: datetime, now: datetime) -> str:
    """A time as short as it can be told apart: 14:09 today, Tue this week, 12 Nov, 2024."""
    local, today = moment.astimezone(), now.astimezone()
    days = (today.date() - local.date()).days
    if days <= 0:
        return f"{local:%H:%M}"
    if days < 7:
        return f"{local:%a}"
    return f"{local.day} {local:%b}" if local.year == today.year else f"{local:%Y}"


class InkText(Widget):
    """A few lines of parts; painted at render, so that a theme change needs nothing."""

    DEFAULT_CSS = "InkText { width: 1fr; height: auto; }"

    def __init__(self, parts: Line = (), *, id: str | None = None, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self._parts = parts

    def show(self, parts: Line) -> None:
        """Replace the text."""
        self._parts = parts
        self.refresh(layout=True)

    def render(self) -> Content:
        return paint(self.app, self._parts)


class OneLine(Widget):
    """One row that says less where there is less room: the first variant that fits is shown."""

    DEFAULT_CSS = "OneLine { width: 1fr; height: 1; }"

    def __init__(
        self,
        left: Sequence[Line] = (),
        right: Sequence[Line] = (),
        *,
        id: str | None = None,
        classes: str = "",
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._left: Sequence[Line] = left
        self._right: Sequence[Line] = right

    def show(self, left: Sequence[Line] = (), right: Sequence[Line] = ()) -> None:
        """Replace both sides; each is a list of variants from long to short."""
        if left == self._left and right == self._right:
            return
        self._left, self._right = left, right
        self.refresh()

    def render(self) -> Content:
        width = self.size.width
        nothing: Sequence[Line] = ((),)
        left, right = self._left or nothing, self._right or nothing
        for index in range(max(len(left), len(right))):
            a = left[min(index, len(left) - 1)]
            b = right[min(index, len(right) - 1)]
            taken = cells_of(a), cells_of(b)
            gap = width - sum(taken)
            if gap >= (2 if all(taken) else 0):
                return paint(self.app, (*a, " " * gap, *b))
        return paint(self.app, left[-1]).truncate(width, ellipsis=True)


Column = tuple[str, int, str]
"""Text, width in cells (0 takes the rest, negative aligns right), style word or nothing."""


def columns(width: int, cells: Sequence[Column]) -> list[Part]:
    """One row of aligned cells, two cells apart; what does not fit ends in an ellipsis."""
    rest = width - sum(abs(size) + 2 for _, size, _ in cells if size)
    parts: list[Part] = []
    for index, (text, size, word) in enumerate(cells):
        room = max(1, abs(size) or rest)
        content = Content(sanitize(text).replace("\n", " "))
        if content.cell_length > room:
            content = content.truncate(room, ellipsis=True)
        pad = " " * (room - content.cell_length)
        shown = pad + content.plain if size < 0 else content.plain + pad
        parts.append((word, shown) if word else shown)
        if index < len(cells) - 1:
            parts.append("  ")
    return parts


RowPainter = Callable[[int, bool], Sequence[Line]]
"""Paints a list row: (width, highlighted) to its lines."""
