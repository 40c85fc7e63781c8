"""Messages in, reply events out; the only floor that knows torch.

Importing this package loads neither torch nor transformers: `open_engine` does, when asked.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tui_chat.engine.base import Engine, LoadCancelled, LoadError, OnProgress
from tui_chat.servers import names_server
from tui_chat.types import LoadProgress, ModelSpec

ECHO = "echo:"

# huggingface_hub and tokenizers read these once, when they are first imported.
for _name, _value in (
    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("TOKENIZERS_PARALLELISM", "false"),
):
    os.environ.setdefault(_name, _value)


def open_engine(
    spec: ModelSpec,
    on_progress: OnProgress,
    cancel: threading.Event,
    make_room: Callable[[], None] = lambda: None,
) -> Engine:
    """Open the engine for `spec.model`; the one place that imports torch.

    Args:
        spec: `echo:PATH`, `guide`, a folder, a hub name, or a server; and how to open it.
        on_progress: called from this thread (from others during a download), often.
        cancel: when set, the load ends at the next weight or the next stage.
        make_room: called once before anything of a model comes into memory. Its files are on this
            machine by then and can be read, so that what it frees is not freed for nothing.

    Raises:
        LoadError: one sentence that says what is wrong and what to do.
        LoadCancelled: `cancel` was set.
    """
    if spec.model.startswith(ECHO):
        from tui_chat.engine.echo import EchoEngine

        path = Path(os.path.expanduser(spec.model.removeprefix(ECHO)))
        return EchoEngine(path, spec.echo_rate, spec.context_window)

    if names_server(spec.model):
        from tui_chat.engine.server import open_server

        return open_server(spec, on_progress, cancel)

    from tui_chat.engine import hub
    from tui_chat.engine.checkpoint import read_ahead, read_checkpoint
    from tui_chat.engine.imports import import_transformers, quick_imports

    folder = hub.resolve_model(spec, on_progress, cancel)
    # A refused folder is told before the seconds that torch takes.
    checkpoint = read_checkpoint(folder)
    make_room()
    read_ahead(checkpoint)
    name = hub.short_name(spec.model)

    def stage(text: str) -> None:
        if cancel.is_set():
            raise LoadCancelled(f"Loading {name} was cancelled.")
        on_progress(LoadProgress(text))

    _keep_libraries_quiet()
    stage("importing torch")
    with quick_imports():
        import torch  # noqa: F401

        stage("importing transformers")
        import_transformers()
        from tui_chat.engine.loader import load_model
        from tui_chat.engine.local import LocalEngine

    stage("looking at the hardware")
    return LocalEngine(load_model(folder, spec, on_progress, cancel, name=name))


def needs_download(spec: ModelSpec) -> bool:
    """Whether `spec.model` is a name on the hub that is not on this machine."""
    if spec.model.startswith(ECHO) or names_server(spec.model):
        return False
    from tui_chat.engine import hub

    try:
        return hub.model_on_disk(spec) is None
    except LoadError:  # `open_engine` tells why
        return False


def download_model(spec: ModelSpec, on_progress: OnProgress, cancel: threading.Event) -> None:
    """Download `spec.model`, so that `open_engine` finds it on this machine.

    Raises:
        LoadError: one sentence that says what is wrong and what to do.
        LoadCancelled: `cancel` was set; files that were finished are kept.
    """
    from tui_chat.engine import hub

    hub.resolve_model(spec, on_progress, cancel)


def _keep_libraries_quiet() -> None:
    """Nothing may be printed while the screen is up; records still reach the log file."""
    import tqdm

    # tqdm would make a multiprocessing lock, which fails while Textual holds stderr.
    tqdm.tqdm.set_lock(threading.RLock())
    logging.captureWarnings(True)
    for name in ("transformers", "huggingface_hub", "accelerate", "bitsandbytes", "torch"):
        logger = logging.getLogger(name)
        logger.addHandler(logging.NullHandler())
        if name == "bitsandbytes":  # one warning per 8-bit product and token
            logger.setLevel(logging.ERROR)
