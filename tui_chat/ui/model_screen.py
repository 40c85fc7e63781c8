"""Choose the model to load: one on this machine, a folder, a name on the hub, or a server."""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from tui_chat.chat.sanitize import one_line
from tui_chat.servers import model_name, names_server
from tui_chat.store.search import fold, holds, words_of
from tui_chat.types import ModelSpec, Precision, ServerSpec
from tui_chat.ui.ink import Column, InkText, Line, OneLine, Part, columns, gigabytes, paint
from tui_chat.ui.left_once import LeftOnce
from tui_chat.ui.search_list import ColumnHead, RowList, SearchField, mark_hits

if TYPE_CHECKING:
    from tui_chat.engine.hardware import Device, Hardware

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RungFit:
    """What one rung of the loading ladder needs, against what is free; in bytes."""

    label: str
    needed_bytes: int
    free_bytes: int
    obstacle: bool = False
    """It would not be tried although it fits."""

    @property
    def fits(self) -> bool:
        """Whether it would be tried with enough memory."""
        return self.needed_bytes <= self.free_bytes and not self.obstacle


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model in the list."""

    name: str
    source: str
    """Where it comes from, in a word or two: "built in", "cached", "folder", "hub", "server"."""
    size_bytes: int = 0
    """Bytes of its weights; 0 where they are not known."""
    rungs: tuple[RungFit, ...] = ()
    """In the order in which they are tried; empty where nothing is known."""
    note: str = ""
    """What there is to say of it, in a sentence."""
    trouble: str = ""
    """Why its server does not tell its models, in one sentence."""

    @property
    def best(self) -> RungFit | None:
        """The rung that would be loaded."""
        return next((rung for rung in self.rungs if rung.fits), None)


def find_models() -> tuple[list[ModelRow], list[str]]:
    """The models on this machine, and what memory is free: a few words for each kind.

    It reads many files: not for the event loop.
    """
    # Deferred, here and below: nothing of this is needed before the screen is opened.
    from tui_chat.engine.hardware import cpu_device, detect_hardware
    from tui_chat.engine.hub import installed_models

    # Only torch knows the GPUs, and it takes seconds to import: without it nothing is estimated.
    hardware = detect_hardware() if "torch" in sys.modules else None
    rows = [
        ModelRow(
            model.name,
            model.source,
            model.size_bytes,
            _rungs(model.name, model.path, hardware) if hardware else (),
        )
        for model in installed_models()
    ]
    gpus = hardware.gpus[:1] if hardware else ()
    free = [f"{_free(gpu)} free on the GPU" for gpu in gpus]
    return rows, [*free, f"{_free(cpu_device())} memory free"]


def server_models(server: ServerSpec, is_cancelled: Callable[[], bool]) -> list[ModelRow]:
    """The models of a server, or one row that says why it does not tell them.

    It asks the server: not for the event loop.
    """
    from tui_chat.engine.base import EngineError
    from tui_chat.engine.server import models_of

    note = f"It runs on the server at {server.url}; what you type is sent there."
    try:
        names = models_of(server, is_cancelled)
    except EngineError as error:
        return [ModelRow(model_name(server, server.model), "server", note=note, trouble=str(error))]
    if server.model and server.model not in names:
        names = (server.model, *names)
    return [ModelRow(model_name(server, name), "server", note=note) for name in names]


def _free(device: "Device") -> str:
    return f"{gigabytes(device.free_bytes)} of {gigabytes(device.total_bytes)}"


def _rungs(name: str, folder: Path, hardware: "Hardware") -> tuple[RungFit, ...]:
    """What each rung that this machine has would need for the model in `folder`."""
    from tui_chat.engine.base import EngineError
    from tui_chat.engine.checkpoint import read_checkpoint
    from tui_chat.engine.hardware import estimate
    from tui_chat.engine.ladder import plan_ladder

    try:
        checkpoint = read_checkpoint(folder)
        steps = plan_ladder(checkpoint, ModelSpec(name), hardware)
    except EngineError:
        return ()
    rungs = []
    for step in steps:
        device = hardware.find(step.device)
        on_cpu = step.precision is Precision.CPU
        if device is not None and on_cpu == (device.name == "cpu"):
            fit = estimate(checkpoint, step.precision, device)
            label = "CPU" if on_cpu else str(step.precision)
            rungs.append(RungFit(label, fit.needed_bytes, fit.free_bytes, bool(step.obstacle)))
    return tuple(rungs)


class ModelScreen(LeftOnce[str | None]):
    """The models to choose from; dismissed with the name of the one to load, or None."""

    CSS = """
    ModelScreen #model-title { padding: 0 2 0 3; margin: 1 0; }
    ModelScreen #model-fields { height: 1; margin: 0 1 1 1; background: $surface; }
    ModelScreen #model-count { width: auto; height: 1; padding: 0 1; }
    ModelScreen ColumnHead { margin: 0 1; }
    ModelScreen RowList { height: auto; max-height: 100%; margin: 0 1; }
    ModelScreen #model-columns { height: 1fr; layout: vertical; }
    ModelScreen #model-list { height: auto; max-height: 58%; }
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
    ]

    def __init__(self, current: str, servers: Sequence[ServerSpec] = ()) -> None:
        """`current` is the model that is loaded, or loading, as `--model` names it."""
        super().__init__()
        self._current = current
        self._servers = servers
        self._asking = len(servers)
        self._left = Event()
        self._models: list[ModelRow] = []
        self._shown: list[ModelRow] = []
        self._free: list[str] = []
        self._loaded = False

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
        yield OneLine(
            [[("k", "Enter"), ("m", " load")]], [[("k", "Esc"), ("m", " back")]], id="model-keys"
        )

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
            models, self._free = await asyncio.to_thread(find_models)
            self._models = [*models, *self._models]
        except (OSError, RuntimeError, ImportError):
            log.exception("the models on this machine could not be listed")
            self.notify("The models on this machine could not be listed.", markup=False)
        if all(model.name != self._current for model in self._models):
            self._models.insert(0, ModelRow(self._current, _kind(self._current)))
        self._loaded = True
        free: list[Line] = [[("m", " · ".join(self._free))], [("m", "".join(self._free[:1]))], []]
        self.query_one("#model-title", OneLine).show([[("hi", "Models")]], free)
        self._show_rows()

    @property
    def _typed(self) -> str:
        return self._field.value.strip()

    @on(Input.Changed, "#model-find")
    def _typed_more(self) -> None:
        self._show_rows()

    def _show_rows(self, *, keep: bool = False) -> None:
        """List the models that hold the typed text, and the text itself as one to load.

        With `keep` the row that is highlighted stays so.
        """
        typed = self._typed
        highlighted = self._shown[self._rows.highlighted].name if keep and self._shown else ""
        self._shown = [model for model in self._models if holds(fold(model.name), words_of(typed))]
        names = [model.name for model in self._shown]
        if typed and typed not in names:
            self._shown.append(ModelRow(typed, _kind(typed)))
            names.append(typed)
        # A whole name or path is meant as it is typed, also where a longer name holds it.
        wanted = typed if "/" in typed else self._current if not typed else ""
        wanted = highlighted or wanted
        at = names.index(wanted) if wanted in names else 0
        painters = [
            partial(_paint_row, model, typed, model.name == self._current) for model in self._shown
        ]
        self._rows.show(painters, highlighted=at)
        count = f"{len(self._models)}" if self._loaded else "looking…"
        asking = " · asking the servers…" if self._asking and self._loaded else ""
        self.query_one("#model-count", InkText).show([("m", f"{count}{asking}")])

    @on(RowList.Highlighted)
    def _show_detail(self) -> None:
        model = self._shown[self._rows.highlighted] if self._shown else None
        self.query_one("#model-name", OneLine).show([[("hi", model.name if model else "")]])
        self.query_one(FitBars).show(model)
        note = (model.trouble or model.note) if model is not None else ""
        if model is not None and model.source == "hub":
            note = "Enter downloads it and loads it."
        elif model is not None and model.rungs and model.name != self._current:
            note = (
                "The model that is loaded now is freed first. If the estimate is wrong, "
                "the next rung is tried, and you are told."
            )
        self.query_one("#model-note", InkText).show([("m", note)])

    def action_move(self, rows: int) -> None:
        self._rows.move(rows)

    def action_page(self, pages: int) -> None:
        self._rows.move(pages * self._rows.rows_in_sight)

    @on(RowList.Picked)
    @on(Input.Submitted)
    def _choose(self) -> None:
        if self._shown:
            self.dismiss(self._shown[self._rows.highlighted].name)


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
    cells: list[Column] = [(name, 0, name_word), (state, 12, state_word)]
    return cells if width < 50 else [(where, 8, "m"), cells[0], (size, -8, "m"), cells[1]]


def _head(width: int) -> Sequence[Column]:
    return _cells(width, ("where", "model", "on disk", ""))


def _paint_row(
    model: ModelRow, typed: str, loaded: bool, width: int, highlighted: bool
) -> Sequence[Line]:
    state, state_word = "download" if model.source == "hub" else "", "m"
    if model.trouble:
        state, state_word = "no answer", "warn"
    elif loaded:
        state, state_word = "loaded", "ok"
    elif model.best is not None:
        state = f"{model.best.label} fits"
    elif model.rungs:
        state, state_word = "does not fit", "warn"
    size = gigabytes(model.size_bytes) if model.size_bytes else ""
    texts = (model.source, one_line(model.name, 200), size, state)
    word = "hi" if highlighted else ""
    parts: list[Part] = []
    cells = _cells(width, texts, "name", state_word)
    for part in columns(width, cells):
        named = not isinstance(part, str) and part[0] == "name"
        hit = typed if typed != model.name else ""
        parts += mark_hits(part[1], hit, word) if named else [part]
    return [parts]


class FitBars(Widget):
    """One bar a rung, all on one scale of bytes; what lies past the upright line does not fit."""

    DEFAULT_CSS = """
    FitBars { width: 1fr; height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._model: ModelRow | None = None

    def show(self, model: ModelRow | None) -> None:
        """Show the rungs of another model; nothing where none are known."""
        self._model = model
        self.display = model is not None and bool(model.rungs)
        self.refresh(layout=True)

    def render(self) -> Content:
        if self._model is None or not self._model.rungs:
            return Content()
        width, rungs = self.size.width, self._model.rungs
        cells = max(0, min(34, width - 50))
        most = max(max(rung.needed_bytes, rung.free_bytes) for rung in rungs) or 1
        parts: list[Part] = []
        for rung in rungs:
            chosen = rung is self._model.best
            parts += [("you", "▌") if chosen else " ", " "]
            label = f"{rung.label:<6}  "
            parts.append(("hi", label) if chosen else label)
            if cells >= 8:
                parts += _bar(rung, cells, cells / most)
            need = f"needs {rung.needed_bytes / 1e9:.1f} of {rung.free_bytes / 1e9:.1f} GB free"
            parts += [("m", f"{need:<26}"), "  ", *_verdict(rung), "\n"]
        return paint(self.app, parts[:-1])


def _bar(rung: RungFit, cells: int, scale: float) -> list[Part]:
    needed, free = round(rung.needed_bytes * scale), round(rung.free_bytes * scale)
    if rung.needed_bytes <= rung.free_bytes:
        used: Part = ("it", "━" * needed)
        return [used, ("off", "─" * (free - needed)), "│", " " * (cells - free + 1)]
    past = max(1, needed - free)
    return [("m", "━" * free), "│", ("warn", "━" * past), " " * (cells - free - past + 1)]


def _verdict(rung: RungFit) -> list[Part]:
    short = rung.needed_bytes - rung.free_bytes
    if short > 0:
        return [("warn", f"{short / 1e9:.1f} short")]
    if rung.obstacle:
        return [("m", "not used")]
    return [("ok", "fits, slow" if rung.label == "CPU" else "fits")]
