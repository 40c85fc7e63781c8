"""The models there are to choose from, and what each needs against what is free."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from tui_chat.servers import model_name
from tui_chat.types import MemoryUse, ModelSpec, Precision, ServerSpec
from tui_chat.ui.ink import gigabytes

if TYPE_CHECKING:
    from tui_chat.engine.checkpoint import Checkpoint
    from tui_chat.engine.hardware import Device, Hardware


GROWTH_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The model to load, and how; what is left out is decided by what fits."""

    name: str
    precision: Precision | None = None
    device: str = "auto"
    context_window: int | None = None


@dataclass(frozen=True, slots=True)
class RungFit:
    """What one rung of the loading ladder needs, against what is free; in bytes."""

    label: str
    weights_bytes: int
    free_bytes: int
    cache_bytes: int = 0
    """The KV cache of `cache_tokens`."""
    workspace_bytes: int = 0
    cache_tokens: int = 0
    growth_bytes: int = 0
    """What `GROWTH_TOKENS` more, or as many as the model can hold, would add to the cache."""
    obstacle: str = ""
    """Why it would not be tried although it fits; one sentence."""
    spare: bool = False
    """Tried only where a rung before it did not fit."""
    precision: Precision = Precision.CPU
    device: str = "cpu"

    @property
    def needed_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.workspace_bytes

    @property
    def short_bytes(self) -> int:
        """How much more than is free it needs; 0 where it fits."""
        return max(0, self.needed_bytes - self.free_bytes)

    @property
    def fits(self) -> bool:
        """Whether it would be tried with enough memory."""
        return not self.short_bytes and not self.obstacle


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model in the list."""

    name: str
    source: str
    """Where it comes from, in a word or two: "built in", "cached", "folder", "hub", "server"."""
    rungs: tuple[RungFit, ...] = ()
    """In the order in which they are tried; empty where nothing is known."""
    note: str = ""
    """What there is to say of it, in a sentence."""
    trouble: str = ""
    """Why its server does not tell its models, or its folder is not there; one sentence."""
    checkpoint: "Checkpoint | None" = None
    """What its files say, as far as they are known."""
    download_bytes: int = 0
    """What has to be downloaded of it; for a model of the hub that was asked for."""
    disk_free_bytes: int = 0

    @property
    def is_unknown(self) -> bool:
        """Whether the hub has to be asked first what it is."""
        return self.source == "hub" and self.checkpoint is None and not self.trouble

    @property
    def best(self) -> RungFit | None:
        """The rung that would be loaded."""
        return next((rung for rung in self.rungs if rung.fits), None)

    @property
    def size_bytes(self) -> int:
        """Bytes of its weights on disk; 0 where they are not known."""
        return self.checkpoint.weights_bytes if self.checkpoint is not None else 0

    @property
    def window(self) -> int:
        """Tokens that it can hold; 0 where its files do not say."""
        from tui_chat.engine.hardware import model_window

        return model_window(self.checkpoint.text_config) if self.checkpoint is not None else 0

    @property
    def facts(self) -> str:
        """Parameters and window, as far as they are known: "7.6 B · window 32,768"."""
        facts: list[str] = []
        if self.checkpoint is not None and self.checkpoint.quantization:
            facts.append(self.checkpoint.quantization)  # packed: its numbers are no parameters
        elif self.checkpoint is not None:
            facts.append(_parameters(self.checkpoint.parameters))
        return " · ".join([*facts, *([f"window {self.window:,}"] if self.window else [])])


def _parameters(count: int) -> str:
    """A number of parameters as people write it: "7.6 B", "30 M", "45 k"."""
    if count >= 995e6:
        return f"{count / 1e9:.1f} B"
    return f"{count / 1e6:.0f} M" if count >= 995e3 else f"{count / 1e3:.0f} k"


def model_folders(model_dirs: Sequence[str]) -> list[Path]:
    """The folders of the config in which models are looked for."""
    return [Path(folder).expanduser().absolute() for folder in model_dirs]


def with_tilde(name: str) -> str:
    """A path as people write it: with "~" for the user's home."""
    home = os.path.expanduser("~")
    return f"~{name[len(home) :]}" if name.startswith(f"{home}{os.sep}") else name


def find_models(
    model_dirs: Sequence[str] = (), held: tuple[str, MemoryUse] | None = None
) -> tuple[list[ModelRow], list[str], "Hardware | None"]:
    """The models on this machine, what memory is free in a few words for each kind, and where.

    The hardware is what there will be once `held`, the device and memory of the model that is
    loaded, is freed; None where it is not known. It reads many files: not for the event loop.
    """
    # Deferred, here and below: nothing of this is needed before the screen is opened.
    from tui_chat.engine.hardware import cpu_device, known_hardware
    from tui_chat.engine.hub import installed_models

    folders = model_folders(model_dirs)
    rows = [
        ModelRow(model.name, model.source, checkpoint=model.checkpoint)
        for model in installed_models(None, folders)
    ]
    for folder in folders:
        if not folder.is_dir():
            trouble = f"There is no folder {folder}; model_dirs in config.toml names it."
            rows.append(ModelRow(str(folder), "folder", trouble=trouble))
    # Only torch knows the GPUs, and it takes seconds to import: it is not for this.
    hardware = known_hardware()
    gpus = hardware.gpus[:1] if hardware else ()
    free = [f"{_free(gpu)} free on the GPU" for gpu in gpus]
    free.append(f"{_free(cpu_device())} memory free")
    if hardware is not None and held is not None:
        hardware = hardware.after_freeing(*held)
    return rows, free, hardware


def folder_model(name: str) -> ModelRow:
    """The row of a folder that was typed; it reads files: not for the event loop."""
    from tui_chat.engine.base import EngineError
    from tui_chat.engine.checkpoint import read_checkpoint

    try:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            return ModelRow(name, "folder", trouble=f"There is no folder {folder}.")
        return ModelRow(name, "folder", checkpoint=read_checkpoint(folder))
    except (EngineError, OSError, RuntimeError) as error:
        return ModelRow(name, "folder", trouble=str(error))


def hub_model(name: str, cancel: Event) -> ModelRow:
    """The row of a model that the hub was asked for; it waits for the network."""
    from tui_chat.engine.base import EngineError
    from tui_chat.engine.hub_lookup import look_up

    try:
        found = look_up(name, cancel)
    except EngineError as error:
        return ModelRow(name, "hub", trouble=str(error))
    return ModelRow(
        name,
        "hub",
        checkpoint=found.checkpoint,
        download_bytes=found.download_bytes,
        disk_free_bytes=found.disk_free_bytes,
    )


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


def with_rungs(
    row: ModelRow, hardware: "Hardware | None", device: str, window: int | None
) -> ModelRow:
    """`row` with what each rung of this machine would need for a context window of `window`."""
    from tui_chat.engine.base import EngineError
    from tui_chat.engine.ladder import plan_ladder, step_fit

    if row.checkpoint is None or hardware is None:
        return row
    spec = ModelSpec(row.name, device=device, context_window=window)
    try:
        steps = plan_ladder(row.checkpoint, spec, hardware)
    except EngineError:  # there is no such device
        return row
    rungs: list[RungFit] = []
    for step in steps:
        place = hardware.find(step.device)
        if place is None or (place.name == "cpu" and not step.dtype):
            continue  # a rung of a GPU that is not there
        fit = step_fit(step, row.checkpoint, place, window or 0)
        more = step_fit(step, row.checkpoint, place, fit.cache_tokens + GROWTH_TOKENS)
        if place.name != "cpu":
            label = str(step.precision)
        else:
            label = "CPU" if step.precision is Precision.CPU else f"CPU {step.precision}"
        rungs.append(
            RungFit(
                label,
                fit.weights_bytes,
                fit.free_bytes,
                fit.cache_bytes,
                fit.workspace_bytes,
                fit.cache_tokens,
                more.cache_bytes - fit.cache_bytes,
                obstacle="" if step.is_short else step.obstacle,
                spare=step.for_want_of_memory,
                precision=step.precision,
                device=place.name,
            )
        )
    return replace(row, rungs=tuple(rungs))


def told_of(model: ModelRow, rung: RungFit | None, *, forced: bool, frees: bool) -> str:
    """What loading a model means, in a few sentences.

    `rung` is the one that would be loaded; with `forced` no other is tried. `frees` tells that
    the memory of another model counts as free.
    """
    if model.trouble or model.note:
        return model.trouble or model.note
    if model.is_unknown:
        return "Enter asks the hub for its size and what it needs; nothing large is downloaded yet."
    told = _download(model) if model.source == "hub" else []
    if not model.rungs:
        return " ".join(told)
    told += _costs(rung, downloads=bool(told)) if rung is not None else _shortage(model)
    reasons = dict.fromkeys(rung.obstacle for rung in model.rungs if rung.obstacle)
    for reason in reasons:
        labels = ", ".join(rung.label for rung in model.rungs if rung.obstacle == reason)
        told.append(f"{labels}: {reason}")
    if rung is not None and forced:
        told.append("Only this rung is tried.")
    elif rung is not None and rung is not model.rungs[-1]:
        told.append("If the estimate is wrong, the next rung is tried, and you are told.")
    if frees:
        told.append("What the model that is loaded now holds counts as free.")
    return " ".join(told)


def _download(model: ModelRow) -> list[str]:
    needed, free = gigabytes(model.download_bytes), gigabytes(model.disk_free_bytes)
    if model.download_bytes > model.disk_free_bytes:
        return [f"It needs {needed} of disk, of which {free} is free."]
    return [
        f"Enter downloads {needed} (of {free} of disk that is free) and loads it.",
        "Ctrl+C or /stop cancels; files that are finished are kept.",
    ]


def _costs(rung: RungFit, *, downloads: bool) -> list[str]:
    sizes = [
        f"weights {gigabytes(rung.weights_bytes)}",
        f"KV cache {gigabytes(rung.cache_bytes)} for {rung.cache_tokens:,} tokens",
    ]
    if rung.workspace_bytes:
        sizes.append(f"workspace {gigabytes(rung.workspace_bytes)}")
    head = f"It is loaded in {rung.label}" if downloads else f"Enter loads it in {rung.label}"
    if rung.short_bytes:
        head = f"{rung.label} is {gigabytes(rung.short_bytes)} short"
    told = [f"{head}: {', '.join(sizes)}."]
    if not rung.cache_bytes:
        told = [f"{head}: {sizes[0]}; its KV cache is not known."]
    elif rung.growth_bytes:
        told.append(f"{GROWTH_TOKENS:,} tokens more cost {gigabytes(rung.growth_bytes)}.")
    return told


def _shortage(model: ModelRow) -> list[str]:
    least = min(model.rungs, key=lambda rung: rung.short_bytes)
    if not least.short_bytes:
        return []
    return [f"It does not fit: even {least.label} is {gigabytes(least.short_bytes)} short."]


def _free(device: "Device") -> str:
    return f"{gigabytes(device.free_bytes)} of {gigabytes(device.total_bytes)}"
