"""Small plots of signs: upright bars from zero, the newest bright."""

from collections.abc import Sequence
from math import floor, log10

from tui_chat.ui.ink import Line

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ROUND = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)


def ceiling(value: float) -> float:
    """A round number at or a little above `value`, for the top of a plot."""
    if value <= 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next((step * power for step in _ROUND if step * power >= value), 10 * power)


def bars_that_fit(count: int, width: int) -> int:
    """How many of `count` bars `width` cells have room for."""
    return min(count, max(1, width))


def bars(values: Sequence[float | None], top: float, *, rows: int, width: int) -> list[Line]:
    """The newest of the values that fit, as rows from the top one to the one at zero.

    A value that is not known leaves a gap; what is known has a sign even where it is zero.
    """
    shown = values[-bars_that_fit(len(values), width) :]
    gap = " " if 2 * len(shown) - 1 <= width else ""
    levels = [_level(value, top, rows) for value in shown]
    lines: list[Line] = []
    for row in reversed(range(rows)):
        signs = [_EIGHTHS[min(max(level - 8 * row, 0), 8)] for level in levels]
        older = gap.join(signs[:-1]) + gap * (len(signs) > 1)
        lines.append((("past", older), ("it", "".join(signs[-1:]))))
    return lines


def _level(value: float | None, top: float, rows: int) -> int:
    """Height in eighths of a row."""
    if value is None:
        return 0
    if not top:  # a value so small that there is no scale for it
        return 1
    return min(max(1, round(value / top * rows * 8)), rows * 8)
