"""The panel of figures: at the right of the conversation, or a screen of its own in few columns.

Imported when it is first shown.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Region, Size
from textual.widget import Widget

from tui_chat.chat.metrics_history import MetricsHistory, as_text
from tui_chat.types import MemoryUse, Message
from tui_chat.ui.ink import Line, OneLine, Part, paint
from tui_chat.ui.left_once import LeftOnce
from tui_chat.ui.metrics_rows import (
    Rows,
    beside,
    memory_rows,
    mode_rows,
    plot_rows,
    reply_rows,
    sparkline_rows,
)

if TYPE_CHECKING:
    from tui_chat.ui.chat_screen import ChatScreen

DOCKED_FROM = 110
"""Columns of the terminal from which on the panel stands beside the conversation."""
MEMORY_INTERVAL = 1.0
"""Seconds between two looks at the memory."""
_OPEN = "-panel"
"""Class of the chat screen that makes room for the panel."""
_TWO_COLUMNS = 70
"""Cells from which on the tables stand beside the plots."""
_GUTTER = 4
_SIZES = (
    ((5, 4, 4, 4, 4), 1),
    ((4, 3, 3, 3, 3), 1),
    ((3, 3, 2, 2, 2), 1),
    ((2, 2, 2, 2, 2), 1),
    ((2, 2, 1, 1, 1), 1),
    ((1, 1, 1, 1, 1), 1),
    ((), 1),
    ((), 0),
)
"""Heights of the plots, one row with the name where there is none, and the blank rows between
the parts: from the most to the least that may be shown."""


def toggle_metrics(chat: "ChatScreen", copy: Callable[[], None]) -> None:
    """Show the figures of a conversation, or hide them; `copy` copies them."""
    if chat.size.width < DOCKED_FROM:
        chat.app.push_screen(MetricsScreen(chat, copy))
    elif chat.has_class(_OPEN):
        chat.remove_class(_OPEN)
        chat.query(MetricsPanel).remove()
    else:
        chat.add_class(_OPEN)
        chat.mount(MetricsPanel(chat))


def figures_text(chat: "ChatScreen") -> str | None:
    """The figures of the conversation that is shown; None where there are none."""
    history = MetricsHistory.of(chat.session.conversation)
    return as_text(history) if history.replies else None


class MetricsFigures(Widget):
    """All the figures, in two columns where there is room, and as high as there is room."""

    DEFAULT_CSS = "MetricsFigures { width: 1fr; height: auto; text-wrap: nowrap; }"

    def __init__(self, chat: "ChatScreen", on_change: Callable[[MetricsHistory], None]) -> None:
        """`on_change` is told what is shown, whenever it is something else."""
        super().__init__()
        self._chat = chat
        self._on_change = on_change
        self._messages: tuple[Message, ...] | None = None
        self._history = MetricsHistory()
        self._window: int | None = None
        self._memory: MemoryUse | None = None
        self._room = 0

    def on_mount(self) -> None:
        self._look()
        self._chat.status_changed.subscribe(self, lambda _: self._look())
        self.set_interval(MEMORY_INTERVAL, self._look_at_memory)

    def _look(self) -> None:
        """Show what the conversation holds now, where that is something new."""
        engine = self._chat.engine
        window = engine.context_window if engine is not None else None
        conversation = self._chat.session.conversation
        if conversation.messages is not self._messages or window != self._window:
            self._messages, self._window = conversation.messages, window
            self._history = MetricsHistory.of(conversation)
            self._memory = engine.memory() if engine is not None else None
            self._on_change(self._history)
            self.refresh(layout=True)

    def _look_at_memory(self) -> None:
        """Repaint the rows of the memory, if other digits are to be shown."""
        if not self.is_on_screen:
            return
        self._look()  # more of a long conversation may have been loaded
        engine = self._chat.engine
        before, at = self._layout(self.size.width)
        self._memory = engine.memory() if engine is not None else None
        rows, _ = self._layout(self.size.width)
        if len(rows) != len(before):
            self.refresh(layout=True)
        elif rows != before:
            self.refresh(Region(0, at, self.size.width, len(rows) - at))

    # ---- drawing ----

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        self._room = container.height
        return len(self._layout(width)[0])

    def render(self) -> Content:
        parts: list[Part] = []
        for row in self._layout(self.size.width)[0]:
            parts += [*row, "\n"]
        return paint(self.app, parts[:-1])

    def _layout(self, width: int) -> tuple[Rows, int]:
        """All rows, and the first one with the memory in it: the largest plots that fit."""
        for heights, gap in _SIZES:
            rows, at = self._rows(width, heights, gap)
            if len(rows) <= self._room:
                break
        return rows, at

    def _rows(self, width: int, heights: Sequence[int], gap: int) -> tuple[Rows, int]:
        has_two = width >= _TWO_COLUMNS
        column = (width - _GUTTER) // 2 if has_two else width
        rest = width - _GUTTER - column if has_two else width
        history, window = self._history, self._window
        plots: Rows = []
        if history.replies and heights:
            plots = plot_rows(history, window, column, heights, gap)
        elif history.replies:
            plots = sparkline_rows(history, window, column)
        memory = memory_rows(self._memory, rest)
        tables: Rows = []
        for rows in (reply_rows(history, rest), mode_rows(history, rest)):
            tables += [*rows, *[()] * gap] if rows else []
        at = len(tables)
        tables += memory
        if has_two and plots:
            return beside(column, _GUTTER, plots, tables), at
        above = [*plots, *[()] * gap] if plots else []
        return [*above, *tables], at + len(above)


def _title(history: MetricsHistory, way_out: Line) -> tuple[list[Line], list[Line]]:
    count = len(history.replies)
    noun = "reply" if count == 1 else "replies"
    which = f"last {count:,}" if history.has_earlier else f"{count:,}"
    said: Line = [("m", f"{which} {noun}")]
    both: Line = [*said, ("m", " · "), *way_out] if way_out else said
    return [[("hi", "Metrics")]] * 2, [both, said]


class MetricsPanel(Vertical):
    """The figures at the right of the conversation."""

    def __init__(self, chat: "ChatScreen") -> None:
        super().__init__()
        self._chat = chat
        self._title = OneLine(classes="title")

    def compose(self) -> ComposeResult:
        yield self._title
        with VerticalScroll(can_focus=False):
            yield MetricsFigures(self._chat, self._show_title)

    def _show_title(self, history: MetricsHistory) -> None:
        way_out: Line = [("k", self._chat.key("metrics")), ("m", " close")]
        self._title.show(*_title(history, way_out))


class MetricsScreen(LeftOnce[None]):
    """The figures where there is no room beside the conversation."""

    BINDINGS = [
        Binding("escape,q", "dismiss", "back"),
        Binding("y", "copy", "copy"),
    ]

    def __init__(self, chat: "ChatScreen", copy: Callable[[], None]) -> None:
        super().__init__()
        self._chat = chat
        self._copy = copy
        self._title = OneLine(classes="title")
        for key in chat.keys_of("metrics"):
            self._bindings.bind(key, "dismiss", "back")

    def compose(self) -> ComposeResult:
        yield self._title
        with VerticalScroll():
            yield MetricsFigures(self._chat, self._show_title)
        keys: Line = [("k", "y"), ("m", " copy · "), ("k", "Esc"), ("m", " back")]
        yield OneLine([[]], [keys])

    def action_copy(self) -> None:
        self._copy()

    def _show_title(self, history: MetricsHistory) -> None:
        self._title.show(*_title(history, []))
