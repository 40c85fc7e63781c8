"""The command palette: every action that can be done now, to be found by a few letters."""

from collections.abc import Sequence
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from tui_chat.ui.commands import Action
from tui_chat.ui.ink import Column, InkText, Line, columns
from tui_chat.ui.left_once import LeftOnce
from tui_chat.ui.search_list import RowList, SearchField, mark_hits

_MARGIN = 4
"""Rows around the list: the field, and what stays to be seen of the chat."""

_TITLE = 26
"""Cells for the title of an action that both its key and its command are shown beside."""


class PaletteScreen(LeftOnce[str | None], ModalScreen[str | None]):
    """A list of actions over the chat; dismissed with the id of the one to do, or None."""

    CSS = """
    PaletteScreen { background: transparent; align: center top; }
    PaletteScreen #palette {
        width: 80%; min-width: 40; max-width: 84; height: auto; margin: 2 0 0 0;
        background: $background; border: solid $rule;
    }
    PaletteScreen #palette-fields { height: 1; background: $surface; }
    PaletteScreen #palette-count { width: auto; height: 1; padding: 0 1; }
    PaletteScreen RowList { height: auto; }
    PaletteScreen #palette-none { padding: 0 1 0 2; }
    """
    # Priority: the field would else take these for editing.
    BINDINGS = [
        Binding("escape,ctrl+p", "dismiss(None)", "back", priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, actions: Sequence[Action]) -> None:
        super().__init__()
        self._actions = actions
        self._shown: list[Action] = []

    def compose(self) -> ComposeResult:
        with Vertical(id="palette"):
            with Horizontal(id="palette-fields"):
                yield SearchField(placeholder="what to do", id="palette-find")
                yield InkText(id="palette-count")
            yield RowList(id="palette-rows")
            yield InkText([("m", "Nothing is called that; F1 shows all.")], id="palette-none")

    def on_mount(self) -> None:
        self._rows = self.query_one(RowList)
        self.query_one(SearchField).focus()
        self._list()

    def on_resize(self) -> None:
        self._rows.styles.max_height = max(1, self.size.height - 2 * _MARGIN)

    @on(Input.Changed, "#palette-find")
    def _list(self) -> None:
        wanted = self.query_one(SearchField).value.lower().split()
        found = [action for action in self._actions if _rank(action, wanted) is not None]
        self._shown = sorted(found, key=lambda action: _rank(action, wanted) or 0)
        text = " ".join(wanted)
        self._rows.show([partial(_paint_row, action, text) for action in self._shown])
        self._rows.display = bool(self._shown)
        self.query_one("#palette-none").display = not self._shown
        self.query_one("#palette-count", InkText).show([("m", f"{len(self._shown)}")])

    def action_move(self, rows: int) -> None:
        self._rows.move(rows)

    def action_page(self, pages: int) -> None:
        self._rows.move(pages * self._rows.rows_in_sight)

    @on(RowList.Picked)
    @on(Input.Submitted)
    def _do(self) -> None:
        if self._shown:
            self.dismiss(self._shown[self._rows.highlighted].id)


def _rank(action: Action, wanted: Sequence[str]) -> int | None:
    """How late an action comes in the list, or None if not every word of `wanted` is in it."""
    text = f"{action.help} {action.usage} {action.key_label}".lower()
    if not all(word in text for word in wanted):
        return None
    if not wanted:
        return 0
    named = action.slash.startswith(wanted[0].lstrip("/") or "/")
    begins = all(f" {word}" in f" {text}" for word in wanted)
    return 0 if named else 1 if begins else 2


def _paint_row(action: Action, wanted: str, width: int, highlighted: bool) -> Sequence[Line]:
    keys = " · ".join(part for part in (action.key_label, action.usage) if part)
    if width - len(keys) < _TITLE:
        keys = action.key_label or f"/{action.slash}"
    room = min(len(keys), width // 2)
    title = action.help[0].upper() + action.help[1:]
    cells: list[Column] = [(title, 0, ""), (keys, -room, "m")] if keys else [(title, 0, "")]
    first, *rest = columns(width, cells)
    name = first if isinstance(first, str) else first[1]
    return [[*mark_hits(name, wanted, "hi" if highlighted else ""), *rest]]
