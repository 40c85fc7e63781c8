"""From the name of a model to a folder: built in, local, in the hub's cache, or downloaded."""

import contextlib
import errno
import importlib.resources
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from huggingface_hub import constants

from tui_chat import files
from tui_chat.engine.base import EngineError, LoadCancelled, LoadError, OnProgress
from tui_chat.engine.checkpoint import (
    Checkpoint,
    as_gigabytes,
    is_complete,
    read_checkpoint,
)
from tui_chat.engine.faults import causes, first_line
from tui_chat.types import LoadProgress, ModelSpec

if TYPE_CHECKING:
    from huggingface_hub import DryRunFileInfo

T = TypeVar("T")

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_REVISION = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*")
_SPARE_BYTES = 200_000_000
_CANCELLED = "The download of {} was cancelled; files that were finished are kept."
_RATE_SECONDS = 5.0
"""The rate of a download is that of so many last seconds."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NETWORK_FAULTS = {"ConnectionError", "TimeoutError", "TransportError", "LocalEntryNotFoundError"}


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model that can be loaded without the network."""

    name: str
    """What `--model` takes."""
    path: Path
    checkpoint: Checkpoint
    source: Literal["built in", "cached", "folder"]

    @property
    def size_bytes(self) -> int:
        """Bytes of its weights."""
        return self.checkpoint.weights_bytes


def guide_folder() -> Path:
    """The folder of the built-in model."""
    return Path(str(importlib.resources.files("tui_chat"))) / "guide" / "model"


def default_cache_dir() -> Path:
    """The hub cache of this user."""
    return Path(constants.HF_HUB_CACHE)


def short_name(model: str) -> str:
    """What the screen calls `model`: "guide", a folder's own name, a hub name's last part."""
    if _is_path(model):
        return os.path.basename(os.path.realpath(os.path.expanduser(model)))
    return model.split("/")[-1]


def resolve_model(
    spec: ModelSpec,
    on_progress: OnProgress,
    cancel: threading.Event,
    cache_dir: Path | None = None,
) -> Path:
    """The folder that holds `spec.model`, downloaded first if it is nowhere on this machine.

    Raises:
        LoadError: there is no such folder or model, or it cannot be downloaded.
        LoadCancelled: `cancel` was set during the download.
    """
    if folder := model_on_disk(spec, cache_dir):
        return folder
    cache_dir = cache_dir or default_cache_dir()
    return _download(spec.model, spec.revision, cache_dir, on_progress, cancel)


def model_on_disk(spec: ModelSpec, cache_dir: Path | None = None) -> Path | None:
    """The folder that holds `spec.model` on this machine; None where it must be downloaded.

    Raises:
        LoadError: there is no such folder, and it is no name of a model.
    """
    if spec.model == "guide":
        folder = guide_folder()
        if not (folder / "config.json").is_file():
            raise LoadError("The built-in model is missing here; install tui-chat again.")
        return folder
    if _is_path(spec.model):
        return _local_folder(Path(os.path.expanduser(spec.model)))
    if not _HUB_NAME.fullmatch(spec.model) or ".." in spec.model:
        raise LoadError(
            f"{spec.model!r} is neither a folder nor the name of a model such as Qwen/Qwen3-0.6B."
        )
    if spec.revision and (not _REVISION.fullmatch(spec.revision) or ".." in spec.revision):
        raise LoadError(f"{spec.revision!r} is not the name of a revision.")
    return cached_snapshot(spec.model, spec.revision, cache_dir or default_cache_dir())


def _is_path(model: str) -> bool:
    if model in ("guide", ""):
        return False
    looks = model.startswith((".", "/", "~")) or model.endswith("/") or "\\" in model
    return looks or model.count("/") > 1 or os.path.exists(model)


def _local_folder(folder: Path) -> Path:
    if os.path.isfile(folder):
        raise LoadError(
            f"{folder} is a file; tui-chat loads a folder with config.json and safetensors weights."
        )
    if not os.path.isdir(folder):
        raise LoadError(f"No such folder: {folder}")
    if not (folder / "config.json").is_file():
        raise LoadError(f"{folder} is not a model folder: it has no config.json.")
    return folder


def cached_snapshot(name: str, revision: str | None, cache_dir: Path) -> Path | None:
    """The complete snapshot of a hub model in the cache, or None."""
    base = cache_dir / f"models--{name.replace('/', '--')}"
    commit = revision or "main"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        commit = files.read_bytes(base / "refs" / commit).decode("utf-8").strip()
    if not _REVISION.fullmatch(commit) or ".." in commit or len(commit) > 255:
        return None
    folder = base / "snapshots" / commit
    return folder if is_complete(folder) else None


def installed_models(
    cache_dir: Path | None = None, model_dirs: Sequence[Path] = ()
) -> tuple[InstalledModel, ...]:
    """The built-in model, the complete chat models in the hub's cache, and those in `model_dirs`.

    A model may be such a folder itself, or stand in it, or in a folder of it.
    """
    cache_dir = cache_dir or default_cache_dir()
    found: list[InstalledModel] = []
    candidates: list[tuple[str, Path, Literal["built in", "cached", "folder"]]] = []
    if is_complete(guide_folder()):
        candidates.append(("guide", guide_folder(), "built in"))
    for folder in sorted(cache_dir.glob("models--*")):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        snapshot = cached_snapshot(name, None, cache_dir)
        if snapshot is not None:
            candidates.append((name, snapshot, "cached"))
    folders = dict.fromkeys(path for folder in model_dirs for path in _model_folders(folder))
    candidates += [(str(folder), folder, "folder") for folder in folders]
    for name, path, source in candidates:
        with contextlib.suppress(LoadError):  # what would be refused is not offered
            found.append(InstalledModel(name, path, read_checkpoint(path), source))
    return tuple(found)


def _model_folders(folder: Path, depth: int = 2) -> Iterator[Path]:
    """The complete models in `folder`, down to `depth` folders below it."""
    if is_complete(folder):
        yield folder
    elif depth:
        inner: list[Path] = []
        with contextlib.suppress(OSError):  # gone, or not ours to read
            inner = sorted(path for path in folder.iterdir() if path.is_dir())
        for path in inner:
            if not path.name.startswith("."):
                yield from _model_folders(path, depth - 1)


def _download(
    name: str,
    revision: str | None,
    cache_dir: Path,
    on_progress: OnProgress,
    cancel: threading.Event,
) -> Path:
    check_online(name)
    on_progress(LoadProgress("asking the hub", detail=name))
    cancelled = LoadCancelled(_CANCELLED.format(name))
    try:
        fetch = partial(_fetch, name, revision, cache_dir, on_progress, cancel)
        return unless_cancelled(fetch, cancel, cancelled)
    except EngineError:
        raise
    except Exception as error:
        if cancel.is_set():
            raise cancelled from None
        raise LoadError(download_failure(error, name, revision)) from error


def check_online(name: str) -> None:
    """Refuse to ask the hub for `name` where the user wants no network.

    Raises:
        LoadError: one sentence.
    """
    if constants.is_offline_mode():
        raise LoadError(
            f"{name} is not on this machine and HF_HUB_OFFLINE is set; unset it to download."
        )


def listed_files(name: str, revision: str | None, cache_dir: Path) -> "list[DryRunFileInfo]":
    """The files that a download of `name` consists of; the hub is asked, nothing is downloaded.

    Raises:
        LoadError: none of them has weights that can be loaded.
        Exception: whatever the network does; see `download_failure`.
    """
    from huggingface_hub import snapshot_download  # half a second of imports

    listed = snapshot_download(
        name, revision=revision, dry_run=True, cache_dir=cache_dir, allow_patterns=_PATTERNS
    )
    if not any(file.filename.endswith(".safetensors") for file in listed):
        raise LoadError(f"{name} has no safetensors weights; choose another model.")
    return listed


def unless_cancelled(call: Callable[[], T], cancel: threading.Event, cancelled: LoadCancelled) -> T:
    """The result of `call`; on cancel it is left to end by itself, and `cancelled` is raised.

    A hub that does not answer would else be waited for.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="hub", daemon=True).start()
    while not wait([result], timeout=0.1).done:
        if cancel.is_set():
            raise cancelled
    return result.result()


def _fetch(
    name: str,
    revision: str | None,
    cache_dir: Path,
    on_progress: OnProgress,
    cancel: threading.Event,
) -> Path:
    # Deferred: half a second of imports that a model on this machine never needs.
    from huggingface_hub import snapshot_download
    from tqdm.std import tqdm

    listed = listed_files(name, revision, cache_dir)
    if cancel.is_set():
        raise LoadCancelled(_CANCELLED.format(name))
    needed = sum(file.file_size or 0 for file in listed if file.will_download)
    _check_disk(cache_dir, name, needed)
    report = DownloadMeter(on_progress, name, needed)

    class Bar(tqdm):  # type: ignore[misc]
        """Reports bytes instead of drawing; raises from the download's threads on cancel."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self.bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})
            self.n = kwargs.get("initial") or 0
            self.total = kwargs.get("total") or 0

        def update(self, n: float | None = 1) -> None:
            if cancel.is_set():
                raise LoadCancelled(_CANCELLED.format(name))
            self.n += n or 0
            if self.bytes:
                report(self.n)

    folder = snapshot_download(
        name, revision=revision, cache_dir=cache_dir, allow_patterns=_PATTERNS, tqdm_class=Bar
    )
    return Path(folder)


class DownloadMeter:
    """Passes the bytes of a download on with their rate, ten times a second at most."""

    def __init__(
        self,
        on_progress: OnProgress,
        name: str,
        needed: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_progress = on_progress
        self._name = name
        self._needed = needed
        self._clock = clock
        self._done = 0
        self._next = 0.0
        self._recent: deque[tuple[float, int]] = deque([(clock(), 0)])
        self._lock = threading.Lock()  # several files come at once, each on a thread

    def __call__(self, done: float) -> None:
        """`done` bytes of all are there."""
        with self._lock:
            self._done = max(self._done, min(int(done), self._needed))
            now = self._clock()
            unfinished = self._done < self._needed
            if not self._needed or (unfinished and now < self._next):
                return
            self._next = now + 0.1
            self._recent.append((now, self._done))
            while len(self._recent) > 2 and self._recent[1][0] <= now - _RATE_SECONDS:
                self._recent.popleft()
            detail = f"{self._name}: {as_gigabytes(self._done)} of {as_gigabytes(self._needed)}"
            detail += self._rate()
            self._on_progress(LoadProgress("downloading", self._done / self._needed, detail))

    def _rate(self) -> str:
        """The rate of the last seconds and the time that is left at it; empty at first."""
        (then, before), (now, done) = self._recent[0], self._recent[-1]
        if now - then < 1.0 or done <= before:
            return ""
        per_second = (done - before) / (now - then)
        left = round((self._needed - done) / per_second)
        time_left = f"{left // 60} min" if left >= 120 else f"{left} s"
        return f" · {per_second / 1e6:.1f} MB/s" + (f" · {time_left} left" if left else "")


def existing_parent(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that is there."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _check_disk(cache_dir: Path, name: str, needed: int) -> None:
    free = shutil.disk_usage(existing_parent(cache_dir)).free
    if needed + _SPARE_BYTES > free:
        raise LoadError(
            f"{name} needs {as_gigabytes(needed)} of disk but only {as_gigabytes(free)} is free"
            f" in {cache_dir}; free some space or set HF_HOME to another disk."
        )


def download_failure(error: BaseException, name: str, revision: str | None = None) -> str:
    """One sentence for what went wrong in a download, found in `error` or what caused it."""
    chain = list(causes(error))
    kinds = {kind.__name__ for item in chain for kind in type(item).__mro__}
    status = max((_http_status(item) for item in chain), default=0)
    if "GatedRepoError" in kinds:
        return (
            f"{name} is gated: accept its licence at https://huggingface.co/{name},"
            " then run `hf auth login`."
        )
    if "RevisionNotFoundError" in kinds:
        return f"{name} has no revision {revision or 'main'!r}; check --revision."
    if "RepositoryNotFoundError" in kinds:
        return (
            f"There is no model {name} on the hub, or it is private: check the name,"
            " or run `hf auth login`."
        )
    if any(isinstance(item, OSError) and item.errno in _DISK_FULL for item in chain):
        return f"The disk is full, so {name} could not be downloaded; free some space."
    if any(isinstance(item, PermissionError) for item in chain):
        return f"The hub's cache cannot be written ({default_cache_dir()}); check its permissions."
    if status == 429:
        return f"The hub refuses more requests for now; try {name} again in some minutes."
    if status >= 500:
        return f"The hub has a fault of its own (HTTP {status}); try {name} again later."
    if "JSONDecodeError" in kinds:
        return "The network answered with a web page instead of the hub; log in to the network."
    if "OfflineModeIsEnabled" in kinds:
        return f"{name} is not on this machine and HF_HUB_OFFLINE is set; unset it to download."
    if kinds & _NETWORK_FAULTS:
        return f"{name} is not on this machine and the hub cannot be reached; check the network."
    return f"{name} could not be downloaded ({first_line(error)})."


def _http_status(error: BaseException) -> int:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0
