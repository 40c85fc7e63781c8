"""All keys and commands, straight from the action table, in as many columns as have room."""

from collections.abc import Sequence
from itertools import combinations, pairwise, zip_longest
from pathlib import Path
from textwrap import wrap

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from tui_chat.ui.commands import GROUPS, Action
from tui_chat.ui.ink import Line, OneLine, Part, paint
from tui_chat.ui.left_once import LeftOnce

KEY_WIDTH = 11
"""Cells of the column of keys."""
MIN_HELP = 16
"""Cells that the help needs to stand beside its command."""
GUTTER = 4
WIDE, WIDER = 104, 144
"""From these widths on there are two and three columns."""

Cell = tuple[Line, int]
"""One row of a column, and how many cells it has."""


class HelpScreen(LeftOnce[None]):
    """Every action with its key, its slash command and what it does."""

    BINDINGS = [Binding("escape,f1,q", "dismiss", "back")]

    def __init__(self, actions: Sequence[Action], config_path: Path, log_path: Path) -> None:
        super().__init__()
        self._actions = actions
        home = str(Path.home())
        self._paths = [str(path).replace(home, "~", 1) for path in (config_path, log_path)]

    def compose(self) -> ComposeResult:
        yield OneLine(
            [[("hi", "Keys and commands")]],
            [[("m", "every action is in the palette as well")], []],
            classes="title",
        )
        with VerticalScroll(id="help", can_focus=True):
            yield KeyTable(self._actions)
        yield OneLine(classes="keys", id="help-keys")

    def on_mount(self) -> None:
        self.query_one("#help").focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_keys)

    def _show_keys(self) -> None:
        config, log = self._paths
        scroll: Line = ()
        if self.query_one("#help").max_scroll_y:
            scroll = (("k", "↑ ↓"), ("m", " scroll · "))
        back: Line = (*scroll, ("k", "Esc"), ("m", " back"))
        self.query_one("#help-keys", OneLine).show(
            [
                [("m", "change keys in "), config, ("m", " · log "), log],
                [("m", "change keys in "), config],
                [("m", "log "), log],
                [],
            ],
            [back, back, back, back],
        )


class KeyTable(Widget):
    """The actions in their groups; a group is never split between two columns."""

    DEFAULT_CSS = "KeyTable { width: 1fr; height: auto; margin: 0 1 0 0; text-wrap: nowrap; }"

    def __init__(self, actions: Sequence[Action]) -> None:
        super().__init__()
        self._actions = actions

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._rows(width))

    def render(self) -> Content:
        parts: list[Part] = []
        for row in self._rows(self.size.width):
            parts += [*row, "\n"]
        return paint(self.app, parts[:-1])

    def _rows(self, width: int) -> list[Line]:
        count = 3 if width >= WIDER else 2 if width >= WIDE else 1
        size = (width - GUTTER * (count - 1)) // count
        columns = _balanced([self._group(group, size) for group in GROUPS], count)
        rows: list[Line] = []
        for cells in zip_longest(*columns, fillvalue=((), 0)):
            row: list[Part] = []
            gap = 0
            for line, length in cells:
                row += [" " * gap, *line]
                gap = size - length + GUTTER
            rows.append(row)
        return rows

    def _group(self, group: str, width: int) -> list[Cell]:
        cells: list[Cell] = [((("m", group),), len(group))]
        for action in self._actions:
            if action.group == group:
                cells += _action(action, width)
        return cells


def _action(action: Action, width: int) -> list[Cell]:
    """Key, help and slash command; a command without a key stands in the key's place."""
    key: Part = ("hi", f"{action.key_label:<{KEY_WIDTH}}")
    slash = action.usage
    if not action.keys:
        key, slash = ("ref", f"{f'/{action.slash}':<{KEY_WIDTH}}"), action.argument
    room = max(1, width - KEY_WIDTH)
    beside = room - len(slash) - 2 if slash else room
    lines = wrap(action.help, room)
    if len(lines[0]) > beside >= MIN_HELP:
        lines = wrap(action.help, beside)
    elif all(len(line) > beside for line in lines):
        lines.append("")  # for the command
    rows: list[Cell] = []
    for number, line in enumerate(lines):
        head = " " * KEY_WIDTH if number else key
        tail = slash if len(line) <= beside else ""
        slash = slash if tail == "" else ""
        gap = " " * (room - len(line) - len(tail))
        rows.append(((head, line, gap, ("ref", tail)), width))
    return rows


def _balanced(groups: Sequence[list[Cell]], count: int) -> list[list[Cell]]:
    """The groups in `count` columns, in their order, so that the longest column is short."""
    blank: Cell = ((), 0)

    def columns(cuts: Sequence[int]) -> list[list[Cell]]:
        found: list[list[Cell]] = []
        for start, stop in pairwise((0, *cuts, len(groups))):
            column: list[Cell] = []
            for group in groups[start:stop]:
                column += [*([blank] if column else []), *group]
            found.append(column)
        return found

    ways = combinations(range(1, len(groups)), count - 1)
    return min((columns(cuts) for cuts in ways), key=lambda found: max(map(len, found)))
