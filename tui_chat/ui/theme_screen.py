"""Choose a theme: moving through the list shows each one on the conversation behind it."""

from collections.abc import Sequence
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Input

from tui_chat.ui.ink import Column, InkText, Line, OneLine, columns
from tui_chat.ui.left_once import LeftOnce
from tui_chat.ui.search_list import RowList, SearchField, mark_hits
from tui_chat.ui.theme_switch import ThemeEntry, ThemeSwitch

_PAUSE = 0.1
"""Seconds on a row before its theme is shown: restyling a long page takes longer than a key."""


class ThemeScreen(LeftOnce[str | None], ModalScreen[str | None]):
    """All themes; dismissed with the name of the one to keep, or None with the old one shown."""

    CSS = """
    ThemeScreen { background: transparent; align: right top; }
    ThemeScreen #theme-panel {
        width: 46; height: 1fr; padding: 1 0 0 0; background: $background;
        border-left: solid $rule;
    }
    ThemeScreen.-narrow { align: left bottom; }
    ThemeScreen.-narrow #theme-panel {
        width: 1fr; height: 50%; min-height: 9; padding: 0; border-left: none;
        border-top: solid $rule;
    }
    ThemeScreen #theme-title { padding: 0 2 0 3; margin: 0 0 1 0; }
    ThemeScreen.-narrow #theme-title { margin: 0; }
    ThemeScreen #theme-fields { height: 1; margin: 0 1 1 1; background: $surface; }
    ThemeScreen.-narrow #theme-fields { margin: 0 1 0 1; }
    ThemeScreen #theme-count { width: auto; height: 1; padding: 0 1; }
    ThemeScreen RowList { margin: 0 1; }
    ThemeScreen #theme-keys { padding: 0 2 0 3; }
    """
    # Priority: the field would else take these for editing.
    BINDINGS = [
        Binding("escape", "back", "back", priority=True),
        Binding("ctrl+c", "back", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, themes: ThemeSwitch, current: str) -> None:
        """`current` is the theme that is shown, and comes back with Esc."""
        super().__init__()
        self._themes = themes
        self._current = current
        self._entries = themes.entries()
        self._shown: list[ThemeEntry] = []
        self._pause: Timer | None = None

    def compose(self) -> ComposeResult:
        with Container(id="theme-panel"), Vertical():
            yield OneLine([[("hi", "Themes")]], id="theme-title")
            with Horizontal(id="theme-fields"):
                yield SearchField(placeholder="name, dark or light", id="theme-find")
                yield InkText(id="theme-count")
            yield RowList(id="theme-rows")
            yield OneLine(
                [[("k", "Enter"), ("m", " keep it")]],
                [[("k", "Esc"), ("m", " as it was")]],
                id="theme-keys",
            )

    def on_mount(self) -> None:
        self._rows = self.query_one(RowList)
        self.query_one(SearchField).focus()
        self._list()

    @on(Input.Changed, "#theme-find")
    def _list(self) -> None:
        wanted = self.query_one(SearchField).value.strip().lower()
        self._shown = [
            entry for entry in self._entries if wanted in entry.name.lower() or wanted in entry.kind
        ]
        names = [entry.name for entry in self._shown]
        at = names.index(self._current) if self._current in names else 0
        painters = [
            partial(_paint_row, entry, wanted, entry.name == self._current) for entry in self._shown
        ]
        self._rows.show(painters, highlighted=at)
        self.query_one("#theme-count", InkText).show([("m", f"{len(self._shown)}")])

    @on(RowList.Highlighted)
    def _show_soon(self) -> None:
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(_PAUSE, self._show)

    def _show(self) -> None:
        entry = self._highlighted
        if entry is not None and self.is_current and entry.name != self.app.theme:
            self._themes.show(entry.name)

    @property
    def _highlighted(self) -> ThemeEntry | None:
        return self._shown[self._rows.highlighted] if self._shown else None

    def action_move(self, rows: int) -> None:
        self._rows.move(rows)

    def action_page(self, pages: int) -> None:
        self._rows.move(pages * self._rows.rows_in_sight)

    @on(RowList.Picked)
    @on(Input.Submitted)
    def _keep(self) -> None:
        if self._highlighted is not None:
            self.dismiss(self._highlighted.name)

    def action_back(self) -> None:
        """Leave, with the theme that was there before."""
        self._themes.show(self._current)
        self.dismiss(None)


def _paint_row(
    entry: ThemeEntry, wanted: str, current: bool, width: int, highlighted: bool
) -> Sequence[Line]:
    parts = ["current"] * current + [entry.origin] * bool(entry.origin) + [entry.kind]
    kind = " · ".join(parts)
    if current and len(entry.name) + 2 + len(kind) > width:
        kind = f"current · {entry.kind}"
    cells: list[Column] = [(entry.name, 0, ""), (kind, -len(kind), "m")]
    first, *rest = columns(width, cells)
    name = first if isinstance(first, str) else first[1]
    return [[*mark_hits(name, wanted, "hi" if highlighted else ""), *rest]]
