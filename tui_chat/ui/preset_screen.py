"""Choose the preset of a chat: what each of them says, and which files cannot be used."""

from collections.abc import Sequence
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input

from tui_chat.chat.sanitize import one_line
from tui_chat.presets import NO_PRESET, presets_dir
from tui_chat.settings import shown
from tui_chat.store.search import fold, holds, words_of
from tui_chat.types import Mode, Preset
from tui_chat.ui.ink import Column, InkText, Line, OneLine, Part, columns
from tui_chat.ui.left_once import LeftOnce
from tui_chat.ui.search_list import ColumnHead, RowList, SearchField, mark_hits

_NONE = Preset(NO_PRESET, "the system prompt and the settings of config.toml")


class PresetScreen(LeftOnce[str | None]):
    """The presets to choose from; dismissed with the name of one, "none", or None."""

    CSS = """
    PresetScreen #preset-title { padding: 0 2 0 3; margin: 1 0; }
    PresetScreen #preset-fields { height: 1; margin: 0 1 1 1; background: $surface; }
    PresetScreen ColumnHead { margin: 0 0 0 1; }
    PresetScreen RowList { height: auto; max-height: 50%; margin: 0 0 0 1; }
    PresetScreen #preset-detail { height: 1fr; padding: 1 2 0 3; }
    PresetScreen #preset-problems { height: auto; padding: 0 2 0 3; }
    PresetScreen #preset-keys { padding: 0 2 0 3; }
    """
    # Priority: the field would else take these for editing.
    BINDINGS = [
        Binding("escape", "dismiss(None)", "back", priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
    ]

    def __init__(self, presets: Sequence[Preset], problems: Sequence[str], current: str) -> None:
        """Args: presets: those that can be used; problems: a sentence for each other file;
        current: name of the one that the chat has, or an empty text.
        """
        super().__init__()
        self._presets = [*presets, _NONE]
        self._problems = problems
        self._current = current or NO_PRESET
        self._found: list[Preset] = []

    def compose(self) -> ComposeResult:
        folder: list[Line] = [[("m", str(presets_dir()))], []]
        yield OneLine([[("hi", "Presets")]], folder, id="preset-title")
        with Horizontal(id="preset-fields"):
            yield SearchField(placeholder="name or text", id="preset-find")
        yield ColumnHead(_head)
        yield RowList(id="preset-rows")
        with VerticalScroll(id="preset-detail", can_focus=False):
            yield InkText(id="preset-text")
        yield InkText([("warn", "\n".join(self._problems))], id="preset-problems")
        yield OneLine(
            [[("k", "Enter"), ("m", " choose")]], [[("k", "Esc"), ("m", " back")]], id="preset-keys"
        )

    def on_mount(self) -> None:
        self._rows = self.query_one(RowList)
        self.query_one("#preset-problems").display = bool(self._problems)
        self.query_one(SearchField).focus()
        self._show_rows()

    @on(Input.Changed, "#preset-find")
    def _show_rows(self) -> None:
        """List the presets that hold the typed words in their name, purpose or system prompt."""
        typed = self.query_one(SearchField).value.strip()
        words = words_of(typed)
        self._found = [p for p in self._presets if holds(fold(_searched(p)), words)]
        names = [preset.name for preset in self._found]
        at = names.index(self._current) if not typed and self._current in names else 0
        painters = [partial(_paint_row, p, typed, p.name == self._current) for p in self._found]
        self._rows.show(painters, highlighted=at)

    @on(RowList.Highlighted)
    def _show_detail(self) -> None:
        preset = self._found[self._rows.highlighted] if self._found else None
        self.query_one("#preset-text", InkText).show(detail(preset) if preset else [])
        self.query_one("#preset-detail").scroll_home(animate=False)

    def action_move(self, rows: int) -> None:
        self._rows.move(rows)

    def action_page(self, pages: int) -> None:
        self._rows.move(pages * self._rows.rows_in_sight)

    @on(RowList.Picked)
    @on(Input.Submitted)
    def _choose(self) -> None:
        if self._found:
            self.dismiss(self._found[self._rows.highlighted].name)


def detail(preset: Preset) -> list[Part]:
    """What a preset sets, for the reader."""
    parts: list[Part] = []
    for mode, listed in _listed(preset):
        parts += [("m", f"{mode}: "), listed, "\n"]
    if preset.system_prompt:
        parts += ["\n"] * bool(parts) + [preset.system_prompt]
    elif preset.system_prompt == "":
        parts.append(("m", "It clears the system prompt."))
    elif preset is not _NONE:
        parts.append(("m", "It leaves the system prompt as it is."))
    return parts


def _searched(preset: Preset) -> str:
    return " ".join((preset.name, preset.description, preset.system_prompt or ""))


def _listed(preset: Preset) -> list[tuple[Mode, str]]:
    """The settings of each mode that the preset has any for."""
    return [
        (mode, one_line(", ".join(f"{name} {shown(value)}" for name, value in values.items()), 500))
        for mode in Mode
        if (values := preset.settings.of(mode))
    ]


def _purpose(preset: Preset) -> str:
    told = preset.description or preset.system_prompt
    return one_line(told or "; ".join(f"{mode}: {listed}" for mode, listed in _listed(preset)), 200)


def _cells(width: int, texts: Sequence[str], name_word: str = "m") -> list[Column]:
    """The columns preset, purpose and mode; the last goes where room is short."""
    name, purpose, mode = texts
    if width <= 50:
        return [(name, 12, name_word), (purpose, 0, "m")]
    return [(name, 18, name_word), (purpose, 0, "m"), (mode, 8, "m")]


def _head(width: int) -> Sequence[Column]:
    return _cells(width, ("preset", "what it is for", "mode"))


def _paint_row(
    preset: Preset, typed: str, chosen: bool, width: int, highlighted: bool
) -> Sequence[Line]:
    mode = "chosen" if chosen else str(preset.settings.mode or "")
    parts: list[Part] = []
    for part in columns(width, _cells(width, (preset.name, _purpose(preset), mode), "name")):
        word, text = ("", part) if isinstance(part, str) else part
        if word == "name":
            word = "hi" if highlighted else ""
        parts += mark_hits(text, typed, word)
    return [parts]
