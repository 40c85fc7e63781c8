"""The figures of a conversation as rows for a given width: plots, tables, memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tui_chat.chat.metrics_history import (
    CONTEXT_TOKENS,
    DRAFTED_SHARE,
    PEAK_MEMORY_BYTES,
    PREFILL_SECONDS,
    REUSED_SHARE,
    TOKENS_PER_SECOND,
    Figure,
    MetricsHistory,
    Quantity,
)
from tui_chat.chat.sanitize import one_line
from tui_chat.types import MemoryUse
from tui_chat.ui.ink import Column, Line, columns, gigabytes, seconds
from tui_chat.ui.plot import bars, bars_that_fit, ceiling
from tui_chat.ui.status_bar import meter_of_progress

Rows = list[Line]

_AXIS = 8
"""Cells kept at the right of a plot for what its top stands for."""
_SHORT_NAME = 9
_METER = 18
_MODE_COLUMN = 8


@dataclass(frozen=True, slots=True)
class _Plot:
    """How one quantity is plotted."""

    name: str
    short: str
    quantity: Quantity
    number: Callable[[float], str]
    unit: str = ""
    top: float | None = None
    """What the full height stands for; None takes a round number above all values."""


def _plots(history: MetricsHistory, window: int | None) -> list[_Plot]:
    highest = max((tokens or 0 for tokens in history.series(CONTEXT_TOKENS)), default=0)
    if window and window < highest:  # the replies were made with a larger one
        window = None
    of_window = f"of {window:,}" if window else "tok"
    plots = [
        _Plot("tokens per second", "rate", TOKENS_PER_SECOND, _tenths, "tok/s"),
        _Plot("prompt tokens reused", "reused", REUSED_SHARE, _percent, "%", 1.0),
        _Plot("prefill", "prefill", PREFILL_SECONDS, seconds, f"· {_read(history)}"),
        _Plot("context", "context", CONTEXT_TOKENS, _whole, of_window, window),
        _Plot("peak memory", "memory", PEAK_MEMORY_BYTES, lambda size: gigabytes(int(size))),
    ]
    # A server does not tell its memory.
    has_memory = any(history.series(PEAK_MEMORY_BYTES))
    return plots if has_memory else plots[:-1]


def plot_rows(
    history: MetricsHistory, window: int | None, width: int, heights: Sequence[int], gap: int
) -> Rows:
    """A plot for each quantity, one bar a reply, with `gap` blank rows between.

    `window` is the context window, where a model is loaded.
    """
    rows: Rows = []
    for plot, height in zip(_plots(history, window), heights, strict=False):
        values = history.series(plot.quantity)
        top = _top(plot, values)
        room = width - _AXIS
        names = [plot.name]
        if not rows and (fit := bars_that_fit(len(values), room)) < len(values):
            names = [f"{plot.name}, last {fit}", f"{plot.short}, last {fit}"]
        rows += [()] * (gap if rows else 0)
        rows.append(spread(width, [[("m", name)] for name in names], _value(plot, history)))
        first, *rest = bars(values, top, rows=height, width=room)
        axis = plot.number(top).removesuffix(".0")
        # The window is told beside the value already.
        rows += [first if plot.unit.endswith(axis) else [*first, ("m", f" {axis}")], *rest]
    return rows


def sparkline_rows(history: MetricsHistory, window: int | None, width: int) -> Rows:
    """The same plots where height is short: each on one row between its name and its value."""
    plots = _plots(history, window)
    told = [_value(plot, history) for plot in plots]
    room = max(1, width - _SHORT_NAME - max(map(_length, told)) - 1)
    rows: Rows = []
    for plot, value in zip(plots, told, strict=True):
        values = history.series(plot.quantity)
        (line,) = bars(values, _top(plot, values), rows=1, width=room)
        rows.append(spread(width, [[("m", f"{plot.short:<{_SHORT_NAME}}"), *line]], value))
    return rows


def _value(plot: _Plot, history: MetricsHistory) -> Line:
    """What the last reply has of it, with its unit."""
    number: Line = [("hi", _text(history.last(plot.quantity), plot.number))]
    return [*number, ("m", f" {plot.unit}")] if plot.unit else number


def _top(plot: _Plot, values: Sequence[float | None]) -> float:
    return plot.top or ceiling(max((value for value in values if value is not None), default=0.0))


def reply_rows(history: MetricsHistory, width: int) -> Rows:
    """What the last reply cost, step by step."""
    if not history.replies:
        return [[("m", "The figures come with the first reply.")]]
    reply = history.replies[-1]
    metrics = history.metrics[-1]
    about = "≈" if metrics.approximate else ""
    how = " · ".join(filter(None, [" then ".join(reply.modes) or reply.mode, metrics.precision]))
    what = "last reply" if not reply.continuations else "last reply, its last part"
    written = f"  {about}{metrics.completion_tokens:,} tok"
    tokenize = seconds(metrics.tokenize_seconds) if metrics.tokenize_seconds else "—"
    drafted = f"  {metrics.drafted_tokens:,} tok" if metrics.drafted_tokens else ""
    read = f"  {_read(history)}"
    reused = f"{read}, {metrics.cached_tokens:,} reused" if metrics.cached_tokens else read
    return [
        spread(width, [[("m", what)], [("m", "last reply")]], [("m", how)]),
        spread(width, [["tokenize"]], [tokenize]),
        spread(
            width,
            [["prefill", ("m", reused)], ["prefill", ("m", read)], ["prefill"]],
            [_text(history.last(PREFILL_SECONDS), seconds)],
        ),
        spread(width, [["decode", ("m", written)]], [seconds(metrics.decode_seconds)]),
        spread(width, [["drafted", ("m", drafted)]], [_share(history.last(DRAFTED_SHARE))]),
        spread(width, [["total"]], [seconds(metrics.total_seconds)]),
    ]


def mode_rows(history: MetricsHistory, width: int) -> Rows:
    """Speed mode and accuracy mode side by side."""
    modes = history.by_mode()
    if not any(mode.metrics for mode in modes):
        return []

    def row(name: str, word: str, texts: Sequence[str]) -> Line:
        cells: list[Column] = [(name, 0, word)]
        cells += [(text, -_MODE_COLUMN, word) for text in texts]
        return columns(width, cells)

    def medians(name: str, quantity: Quantity, number: Callable[[float], str]) -> Line:
        return row(name, "", [_text(mode.median(quantity), number) for mode in modes])

    rows: Rows = [
        row("by mode", "m", [str(mode.mode) for mode in modes]),
        row("replies", "", [f"{len(mode.metrics):,}" for mode in modes]),
        medians("median tok/s", TOKENS_PER_SECOND, _tenths),
        medians("prefill", PREFILL_SECONDS, seconds),
        row("reused", "", [_share(mode.median(REUSED_SHARE)) for mode in modes]),
        row("drafted", "", [_share(mode.median(DRAFTED_SHARE)) for mode in modes]),
    ]
    if history.is_mixed:
        reply, metrics = history.replies[-1], history.metrics[-1]
        writer = " · ".join(filter(None, [one_line(reply.model, width), metrics.precision]))
        rows.append(columns(width, [(f"only {writer}", 0, "m")]))
    return rows


def memory_rows(memory: MemoryUse | None, width: int) -> Rows:
    """What holds the memory of the device now; there is none to tell without a model here."""
    if memory is None:
        return [spread(width, [[("m", "memory")]], [("m", "no model in this process")])]
    total = memory.total_bytes
    others = max(0, total - memory.free_bytes - memory.weights_bytes - memory.cache_bytes)
    rows: Rows = [spread(width, [[("m", "memory")]], [("m", f"of {gigabytes(total)}")])]
    for name, size, text in (
        ("weights", memory.weights_bytes, gigabytes(memory.weights_bytes)),
        ("KV cache", memory.cache_bytes, gigabytes(memory.cache_bytes)),
        # Of these the megabytes change all the time.
        ("others", others, f"{others / 1e9:.1f} GB"),
        ("free", memory.free_bytes, f"{memory.free_bytes / 1e9:.1f} GB"),
    ):
        bar: Line = ()
        if total and name != "free":
            bar = meter_of_progress(size / total, min(_METER, width - 20))
        rows.append(spread(width, [[f"{name:<{_SHORT_NAME}} ", *bar], [name]], [text]))
    return rows


def spread(width: int, lefts: Sequence[Line], right: Line) -> Line:
    """One row with something at both ends: the first of the left ones that has room."""
    room = width - _length(right)
    left = next((line for line in lefts if _length(line) < room), lefts[-1])
    return [*left, " " * max(1, room - _length(left)), *right]


def beside(width: int, gap: int, left: Rows, right: Rows) -> Rows:
    """Two columns of rows; the left one is `width` wide."""
    blank: Rows = [()] * (len(right) - len(left))
    return [
        [*line, " " * (width - _length(line) + gap), *(right[at] if at < len(right) else ())]
        for at, line in enumerate([*left, *blank])
    ]


def _length(line: Line) -> int:
    """Cells of a line whose signs all take one."""
    return sum(len(part if isinstance(part, str) else part[1]) for part in line)


def _read(history: MetricsHistory) -> str:
    """How much of the last prompt was read."""
    if not history.replies:
        return ""
    metrics = history.metrics[-1]
    about = "≈" if metrics.approximate else ""
    return f"{about}{metrics.prompt_tokens - metrics.cached_tokens:,} tok"


def _text(figure: Figure | None, number: Callable[[float], str]) -> str:
    return "—" if figure is None else f"{figure.about}{number(figure.value)}"


def _share(figure: Figure | None) -> str:
    return "—" if figure is None else f"{_text(figure, _percent)} %"


def _tenths(value: float) -> str:
    return f"{value:,.1f}"


def _percent(value: float) -> str:
    return f"{value * 100:.0f}"


def _whole(value: float) -> str:
    return f"{value:,.0f}"
