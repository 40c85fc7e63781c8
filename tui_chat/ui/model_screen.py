"""Choose the model to load: one on this machine, a folder, a name on the hub, or a server."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.widgets import Input

from tui_chat.chat.sanitize import one_line
from tui_chat.config import Config, expand_model
from tui_chat.servers import names_server
from tui_chat.store.search import fold, holds, words_of
from tui_chat.types import MemoryUse, Precision, ServerSpec
from tui_chat.ui.fit_bars import FitBars
from tui_chat.ui.ink import Column, InkText, Line, OneLine, Part, columns, gigabytes
from tui_chat.ui.left_once import LeftOnce
from tui_chat.ui.model_rows import (
    ModelChoice,
    ModelRow,
    RungFit,
    find_models,
    folder_model,
    hub_model,
    server_models,
    told_of,
    with_rungs,
    with_tilde,
)
from tui_chat.ui.search_list import ColumnHead, RowList, SearchField, mark_hits

if TYPE_CHECKING:
    from tui_chat.engine.hardware import Hardware

log = logging.getLogger(__name__)

UNLOAD: Literal["unload"] = "unload"
WINDOWS = (4096, 8192, 16384, 32768, 65536, 131_072)
"""Limits for the context window to choose from, beside that of the config and the model's own."""


class ModelScreen(LeftOnce[ModelChoice | Literal["unload"] | None]):
    """The models to choose from; dismissed with the one to load, `UNLOAD`, or None."""

    CSS = """
    ModelScreen #model-title { padding: 0 2 0 3; margin: 1 0; }
    ModelScreen #model-fields { height: 1; margin: 0 1 1 1; background: $surface; }
    ModelScreen #model-count { width: auto; height: 1; padding: 0 1; }
    ModelScreen ColumnHead { margin: 0 0 0 1; }
    ModelScreen RowList { height: auto; max-height: 100%; margin: 0 0 0 1; }
    ModelScreen #model-columns { height: 1fr; layout: vertical; }
    ModelScreen #model-list { height: auto; max-height: 50%; }
    ModelScreen #model-detail { height: auto; padding: 1 1 0 1; max-width: 108; }
    ModelScreen #model-name { padding: 0 1 0 2; }
    ModelScreen #model-note { padding: 0 1 0 2; margin: 1 0 0 0; color: $text-muted; }
    ModelScreen.-normal #model-name, ModelScreen.-wide #model-name { margin: 0 0 1 0; }
    ModelScreen.-wide #model-columns { layout: horizontal; }
    ModelScreen.-wide #model-list { width: 46%; max-height: 100%; }
    ModelScreen.-wide #model-detail { width: 54%; padding: 0 1 0 3; }
    ModelScreen #model-keys { padding: 0 2 0 3; }
    """
    # Priority: the field would else take these for editing.
    BINDINGS = [
        Binding("escape", "dismiss(None)", "back", priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
        Binding("f5", "window", show=False, priority=True),
        Binding("f6", "rung", show=False, priority=True),
        Binding("f7", "unload", show=False, priority=True),
    ]

    def __init__(
        self,
        current: str,
        config: Config | None = None,
        held: tuple[str, MemoryUse] | None = None,
        *,
        loaded: bool = True,
    ) -> None:
        """`current` is the model in use, as `--model` names it; `loaded` tells that it is ready.

        `config` tells servers and folders, and how a model is loaded as long as nothing else is
        chosen; `held` is the device and memory of the model that is loaded in this process.
        """
        super().__init__()
        config = config or Config()
        self._current = current
        self._config = config
        self._held = held
        self._is_loaded = loaded
        self._servers: Sequence[ServerSpec] = tuple(config.servers.values())
        self._asking = len(self._servers)
        self._left = Event()
        self._hardware: Hardware | None = None
        self._window = config.context_window
        self._rung_of: dict[str, tuple[Precision, str]] = {}
        """Precision and device that were chosen, by the name of the model."""
        self._models: list[ModelRow] = []
        self._looked_at: dict[str, ModelRow] = {}
        """Typed folders that were looked into, and names that the hub was asked for."""
        self._asked: set[str] = set()
        """Names that the hub is being asked for."""
        self._shown: list[ModelRow] = []
        self._free: list[str] = []
        self._loaded = False
        self._warned = ""
        """The model that does not fit, as was said when it was to be loaded."""

    def compose(self) -> ComposeResult:
        yield OneLine([[("hi", "Models")]], id="model-title")
        with Horizontal(id="model-fields"):
            yield SearchField(placeholder="name or folder", id="model-find")
            yield InkText(id="model-count")
        with Container(id="model-columns"):
            with Vertical(id="model-list"):
                yield ColumnHead(_head)
                yield RowList(id="model-rows")
            with Vertical(id="model-detail"):
                yield OneLine(id="model-name")
                yield FitBars(id="model-fit")
                yield InkText(id="model-note")
        yield OneLine(id="model-keys")

    def on_mount(self) -> None:
        self._field = self.query_one(SearchField)
        self._rows = self.query_one(RowList)
        self._field.focus()
        self._show_rows()
        self.run_worker(self._load(), exit_on_error=False)
        for server in self._servers:
            self.run_worker(self._ask(server), exit_on_error=False)

    def on_unmount(self) -> None:
        self._left.set()

    async def _ask(self, server: ServerSpec) -> None:
        rows = await asyncio.to_thread(server_models, server, self._left.is_set)
        self._asking -= 1
        names = {row.name for row in rows}
        self._models = [*(model for model in self._models if model.name not in names), *rows]
        if self.is_mounted:
            self._show_rows(keep=True)

    async def _load(self) -> None:
        try:
            models, self._free, self._hardware = await asyncio.to_thread(
                find_models, self._config.model_dirs, self._held
            )
            self._models = [*models, *self._models]
        except (OSError, RuntimeError, ImportError):
            log.exception("the models on this machine could not be listed")
            self.notify("The models on this machine could not be listed.", markup=False)
        if all(model.name != self._current for model in self._models):
            self._models.insert(0, ModelRow(self._current, _kind(self._current)))
        self._estimate()
        self._loaded = True
        free: list[Line] = [[("m", " · ".join(self._free))], [("m", "".join(self._free[:1]))], []]
        self.query_one("#model-title", OneLine).show([[("hi", "Models")]], free)
        self._show_rows()

    def _estimate(self) -> None:
        """Work out anew what each model needs for the window that is chosen."""
        self._models = [self._estimated(model) for model in self._models]
        self._looked_at = {name: self._estimated(row) for name, row in self._looked_at.items()}

    def _estimated(self, model: ModelRow) -> ModelRow:
        return with_rungs(model, self._hardware, self._config.device, self._window)

    @property
    def _typed(self) -> str:
        return self._field.value.strip()

    @on(Input.Changed, "#model-find")
    def _typed_more(self) -> None:
        typed = self._typed
        if typed and _kind(typed) == "folder":
            self.run_worker(self._look_into(typed), group="folder", exclusive=True)
        self._show_rows()

    async def _look_into(self, typed: str) -> None:
        await asyncio.sleep(0.2)  # until the path is typed, most likely
        row = await asyncio.to_thread(folder_model, typed)
        if self._typed == typed and self.is_mounted:
            self._looked_at[typed] = self._estimated(row)
            self._show_rows(keep=True)

    async def _ask_hub(self, name: str) -> None:
        """Ask the hub for a name, so that it is known what Enter would download."""
        self._asked.add(name)
        self._show_detail()
        row = await asyncio.to_thread(hub_model, name, self._left)
        if not self._left.is_set():
            self._asked.remove(name)
            self._looked_at[name] = self._estimated(row)
            self._show_rows(keep=True)

    def _show_rows(self, *, keep: bool = False) -> None:
        """List the models that hold the typed text, and the text itself as one to load.

        With `keep` the row that is highlighted stays so.
        """
        typed = self._typed
        highlighted = self._shown[self._rows.highlighted].name if keep and self._shown else ""
        path = expand_model(typed)
        self._shown = [
            self._looked_at.get(model.name, model)
            for model in self._models
            if model.name == path or holds(fold(model.name), words_of(typed))
        ]
        names = [model.name for model in self._shown]
        if typed and path not in names:
            self._shown.append(self._looked_at.get(typed) or ModelRow(typed, _kind(typed)))
            names.append(typed)
        # A whole name or path is meant as it is typed, also where a longer name holds it.
        wanted = path if path in names else typed
        wanted = wanted if "/" in typed else self._current if not typed else ""
        wanted = highlighted or wanted
        at = names.index(wanted) if wanted in names else 0
        loaded = self._current if self._is_loaded else ""
        painters = [
            partial(_paint_row, model, typed, model.name == loaded) for model in self._shown
        ]
        self._rows.show(painters, highlighted=at)
        number = len(self._models)
        count = ("1 model" if number == 1 else f"{number} models") if self._loaded else "looking…"
        asking = " · asking the servers…" if self._asking and self._loaded else ""
        self.query_one("#model-count", InkText).show([("m", f"{count}{asking}")])

    @property
    def _highlighted(self) -> ModelRow | None:
        return self._shown[self._rows.highlighted] if self._shown else None

    @property
    def _chosen_rung(self) -> RungFit | None:
        """The rung that Enter would load: the one that is chosen, else the first that fits."""
        model = self._highlighted
        if model is None:
            return None
        wanted = self._rung or (self._config.precision, "")
        for rung in model.rungs:
            if wanted[0] == rung.precision and wanted[1] in ("", rung.device):
                return rung
        return model.best

    @property
    def _rung(self) -> tuple[Precision, str] | None:
        """Precision and device that were chosen for the highlighted model."""
        model = self._highlighted
        return self._rung_of.get(model.name) if model is not None else None

    @on(RowList.Highlighted)
    def _show_detail(self) -> None:
        model, rung = self._highlighted, self._chosen_rung
        name = one_line(with_tilde(model.name), 200) if model is not None else ""
        facts = model.facts if model is not None else ""
        self.query_one("#model-name", OneLine).show(
            [[("hi", name)]], [[("m", facts)], [("m", facts.partition(" · ")[0])], []]
        )
        self.query_one(FitBars).show(model, rung)
        forced = (self._rung or self._config.precision) is not None
        told = told_of(model, rung, forced=forced, frees=self._held is not None) if model else ""
        if model is not None and model.name in self._asked:
            told = "Asking the hub… Esc goes back."
        self.query_one("#model-note", InkText).show([("m", told)])
        self._show_keys()

    def _show_keys(self) -> None:
        window = f"{self._window:,}" if self._window else "the model's"
        model = self._highlighted
        asks = model is not None and model.is_unknown
        enter: Line = (("k", "Enter"), ("m", " ask the hub" if asks else " load"))
        keys: Line = (("m", " · "), ("k", "F5"), ("m", f" window: {window} · "), ("k", "F6"))
        unload: Line = (("m", " · "), ("k", "F7"), ("m", " unload")) if self._is_loaded else ()
        left: list[Line] = [
            (*enter, *keys, ("m", " rung"), *unload),
            (*enter, *keys, ("m", " rung")),
            enter,
        ]
        self.query_one("#model-keys", OneLine).show(left, [[("k", "Esc"), ("m", " back")]])

    def action_window(self) -> None:
        """Take the next limit for the context window, and estimate everything for it."""
        model = self._highlighted
        most = (model.window if model is not None else 0) or WINDOWS[-1] + 1
        larger = [size for size in WINDOWS if (self._window or 0) < size < most]
        self._window = larger[0] if larger else None
        self._estimate()
        self._show_rows(keep=True)

    def action_rung(self) -> None:
        """Choose the next rung of the model instead of the first that fits; in the end none."""
        model = self._highlighted
        if model is None:
            return
        rungs = [(rung.precision, rung.device) for rung in model.rungs if not rung.obstacle]
        now = self._rung_of.pop(model.name, None)
        following = rungs[rungs.index(now) + 1 :] if now in rungs else rungs
        if following:
            self._rung_of[model.name] = following[0]
        self._show_detail()

    def action_unload(self) -> None:
        """Free the model that is loaded."""
        if self._is_loaded:
            self.dismiss(UNLOAD)

    def action_move(self, rows: int) -> None:
        self._rows.move(rows)

    def action_page(self, pages: int) -> None:
        self._rows.move(pages * self._rows.rows_in_sight)

    @on(RowList.Picked)
    @on(Input.Submitted)
    def _choose(self) -> None:
        model = self._highlighted
        if model is None or model.name in self._asked:
            return
        if model.is_unknown:
            self.run_worker(self._ask_hub(model.name), group="hub", exit_on_error=False)
            return
        rung = self._chosen_rung
        fits = not model.rungs or (rung is not None and not rung.short_bytes)
        if self._is_loaded and not fits and self._warned != model.name:
            self._warned = model.name
            self.notify(
                "It does not fit, so the model that is loaded stays. Enter again tries it.",
                severity="warning",
                markup=False,
            )
            return
        precision, device = self._rung or (self._config.precision, self._config.device)
        self.dismiss(ModelChoice(model.name, precision, device, self._window))


def _kind(name: str) -> str:
    """Where a model of this name would come from, as far as the name tells."""
    if name == "guide":
        return "built in"
    if name.startswith("echo:"):
        return "script"
    if names_server(name):
        return "server"
    path = Path(name)
    is_path = name.startswith(("/", "~", ".")) or name.count("/") > 1 or path.exists()
    return "folder" if is_path else "hub"


def _cells(
    width: int, texts: Sequence[str], name_word: str = "m", state_word: str = "m"
) -> list[Column]:
    """The columns where, model, on disk and state; the first and third go where room is short."""
    where, name, size, state = texts
    cells: list[Column] = [(name, 0, name_word), (state, 14, state_word)]
    return cells if width < 50 else [(where, 8, "m"), cells[0], (size, -8, "m"), cells[1]]


def _head(width: int) -> Sequence[Column]:
    return _cells(width, ("where", "model", "on disk", ""))


def _paint_row(
    model: ModelRow, typed: str, loaded: bool, width: int, highlighted: bool
) -> Sequence[Line]:
    state, state_word = "download" if model.source == "hub" else "", "m"
    if model.trouble:
        gone = "no answer" if model.source == "server" else "unusable"
        state, state_word = gone, "warn"
    elif loaded:
        state, state_word = "loaded", "ok"
    elif model.best is not None:
        state = f"{model.best.label} fits"
    elif model.rungs:
        state, state_word = "does not fit", "warn"
    size = gigabytes(model.size_bytes) if model.size_bytes else ""
    texts = (model.source, one_line(with_tilde(model.name), 200), size, state)
    word = "hi" if highlighted else ""
    parts: list[Part] = []
    cells = _cells(width, texts, "name", state_word)
    for part in columns(width, cells):
        named = not isinstance(part, str) and part[0] == "name"
        hit = typed if typed != model.name else ""
        parts += mark_hits(part[1], hit, word) if named else [part]
    return [parts]
