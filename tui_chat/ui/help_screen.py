"""All keys and commands, straight from the action table."""

from collections.abc import Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Vertical, VerticalScroll

from tui_chat.ui.commands import GROUPS, Action
from tui_chat.ui.ink import Line, OneLine
from tui_chat.ui.left_once import LeftOnce


class HelpScreen(LeftOnce[None]):
    """Every action with its key, its slash command and what it does."""

    BINDINGS = [Binding("escape,f1,q", "dismiss", "back")]

    def __init__(self, actions: Sequence[Action], config_path: Path, log_path: Path) -> None:
        super().__init__()
        self._actions = actions
        self._config_path = config_path
        self._log_path = log_path

    def compose(self) -> ComposeResult:
        yield OneLine(
            [[("hi", "Keys and commands")]],
            [[("m", "every action is in the palette as well")], []],
            classes="title",
        )
        with VerticalScroll(id="help", can_focus=True), Container(id="groups"):
            for group in GROUPS:
                with Vertical(classes="group"):
                    yield OneLine([[("m", group)]])
                    for action in self._actions:
                        if action.group == group:
                            yield OneLine(*_row(action))
        home = str(Path.home())
        config, log = (
            str(path).replace(home, "~", 1) for path in (self._config_path, self._log_path)
        )
        back: Line = (("k", "Esc"), ("m", " back"))
        yield OneLine(
            [
                [("m", "change keys in "), config, ("m", " · log "), log],
                [("m", "change keys in "), config],
                [("m", "log "), log],
            ],
            [back, back, back],
            classes="keys",
        )


def _row(action: Action) -> tuple[list[Line], list[Line]]:
    """Key and help on the left, the slash command on the right; without a key it leads."""
    if not action.keys:
        return [[("ref", f"{action.usage:<16}"), action.help]], []
    slash: list[Line] = [[("ref", action.usage)], []] if action.usage else []
    return [[("hi", f"{action.key_label:<16}"), action.help]], slash
