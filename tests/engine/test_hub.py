import errno
import hashlib
import http.server
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import errors

import tui_chat
from tui_chat.engine.base import LoadError
from tui_chat.engine.hub import (
    DownloadMeter,
    cached_snapshot,
    download_failure,
    installed_models,
    resolve_model,
    short_name,
)
from tui_chat.types import LoadProgress, ModelSpec

COMMIT = "a" * 40


def save_model(folder: Path, size: int = 8) -> Path:
    """The files of a model, its weights being zeros; enough to be found, not to be loaded."""
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    entry = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}
    header = json.dumps({"w": entry}).encode()
    (folder / "model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(size)
    )
    return folder


def cache(cache_dir: Path, name: str) -> Path:
    base = cache_dir / f"models--{name.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(COMMIT)
    return save_model(base / "snapshots" / COMMIT)


def resolve(model: str, cache_dir: Path, revision: str | None = None) -> Path:
    spec = ModelSpec(model, revision=revision)
    return resolve_model(spec, lambda _: None, threading.Event(), cache_dir)


def test_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_model(tmp_path / "m")
    assert resolve(str(folder), tmp_path) == folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/m", tmp_path) == folder
    monkeypatch.chdir(tmp_path)
    assert resolve("./m", tmp_path).resolve() == folder
    assert resolve("m", tmp_path).resolve() == folder


@pytest.mark.parametrize(
    "model",
    ["./gone", "/gone/x", "~/gone", "~nobody9/x", "a/b/c", "gone/", ".\\gone", "/" + "x" * 300],
)
def test_missing_folder_is_not_taken_for_a_hub_name(model: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="No such folder: "):
        resolve(model, tmp_path)


def test_file_or_folder_without_config_is_explained(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    with pytest.raises(LoadError, match="is a file; tui-chat loads a folder"):
        resolve(str(tmp_path / "x.gguf"), tmp_path)
    with pytest.raises(LoadError, match=r"has no config\.json"):
        resolve(str(tmp_path), tmp_path)


@pytest.mark.parametrize("model", ["a b", "-x", "a/..", "", "model!", "a/b?c", "ä/b"])
def test_what_can_be_no_name_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="neither a folder nor the name of a model"):
        resolve(model, tmp_path)


def test_cached_model_is_found_without_the_network(tmp_path: Path) -> None:
    folder = cache(tmp_path, "org/name")
    assert resolve("org/name", tmp_path) == folder
    assert resolve("org/name", tmp_path, revision=COMMIT) == folder


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_incomplete_cached_model_does_not_count(missing: str, tmp_path: Path) -> None:
    (cache(tmp_path, "org/name") / missing).unlink()
    assert cached_snapshot("org/name", None, tmp_path) is None
    assert "org/name" not in [model.name for model in installed_models(tmp_path)]


@pytest.mark.parametrize("revision", ["../x", "/etc", "a/../b", ""])
def test_revision_cannot_leave_the_cache(revision: str, tmp_path: Path) -> None:
    cache(tmp_path, "org/name")
    if revision:
        with pytest.raises(LoadError, match="is not the name of a revision"):
            resolve("org/name", tmp_path, revision=revision)
    else:
        assert resolve("org/name", tmp_path, revision=revision)


@pytest.mark.parametrize("content", ["../../elsewhere", "/etc", "", "a b", "x" * 999])
def test_a_reference_in_the_cache_leads_nowhere_else(content: str, tmp_path: Path) -> None:
    cache(tmp_path, "org/name")
    save_model(tmp_path / "models--org--name" / "elsewhere")
    (tmp_path / "models--org--name" / "refs" / "main").write_text(content)
    assert cached_snapshot("org/name", None, tmp_path) is None


def test_missing_model_offline_says_so(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="is not on this machine and HF_HUB_OFFLINE is set"):
        resolve("org/name", tmp_path)


def test_installed_models_are_listed_with_their_size(tmp_path: Path) -> None:
    folder = cache(tmp_path, "org/name--with-dashes")
    (tmp_path / "models--broken").mkdir()
    (tmp_path / "version.txt").touch()
    cached = [model for model in installed_models(tmp_path) if model.source == "cached"]
    assert [(m.name, m.path, m.size_bytes) for m in cached] == [
        ("org/name--with-dashes", folder, 8)
    ]
    assert [m for m in installed_models(tmp_path / "none") if m.source == "cached"] == []


def test_short_names(tmp_path: Path) -> None:
    assert short_name("guide") == "guide"
    assert short_name("Qwen/Qwen3-0.6B") == "Qwen3-0.6B"
    assert short_name(str(tmp_path / "my-model") + "/") == "my-model"


def http_error(kind: type[Any], status: int) -> Exception:
    response = httpx2.Response(status, request=httpx2.Request("GET", "https://huggingface.co/x"))
    error: Exception = kind("refused", response=response)
    return error


def chained(*chain: Exception) -> Exception:
    for outer, inner in itertools.pairwise(chain):
        outer.__cause__ = inner
    return chain[0]


FAILURES: list[tuple[Callable[[], Exception], str]] = [
    (lambda: chained(OSError("x"), http_error(errors.GatedRepoError, 403)), "is gated: accept"),
    (lambda: http_error(errors.RepositoryNotFoundError, 404), "There is no model org/name"),
    (lambda: http_error(errors.RevisionNotFoundError, 404), "has no revision 'main'"),
    (
        lambda: chained(
            errors.LocalEntryNotFoundError("not cached"), http_error(errors.HfHubHTTPError, 429)
        ),
        "refuses more requests",
    ),
    (lambda: http_error(errors.HfHubHTTPError, 503), "fault of its own (HTTP 503)"),
    (lambda: OSError(errno.ENOSPC, "No space left on device"), "The disk is full"),
    (lambda: PermissionError(errno.EACCES, "denied"), "cache cannot be written"),
    (lambda: errors.OfflineModeIsEnabled("off"), "HF_HUB_OFFLINE is set"),
    (lambda: httpx2.ConnectError("refused"), "the hub cannot be reached"),
    (lambda: chained(OSError("x"), json.JSONDecodeError("e", "<html>", 0)), "web page instead"),
    (lambda: RuntimeError("odd\nmore lines"), "could not be downloaded (odd)."),
]


@pytest.mark.parametrize(("make", "sentence"), FAILURES, ids=[text for _, text in FAILURES])
def test_failed_download_is_one_sentence(make: Callable[[], Exception], sentence: str) -> None:
    text = download_failure(make(), "org/name")
    assert sentence in text
    assert "\n" not in text and text.endswith(".")


class FakeHub(http.server.ThreadingHTTPServer):
    """As much of the hub as a download asks for, on this machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.folder = folder
        self.refusal: tuple[int, str] | None = None
        self.broken = ""
        """A file that is not sent."""
        self.sizes: dict[str, int] = {}
        """What the hub says of the size of a file, where that is not true."""
        self.sent: list[str] = []
        self.silent: threading.Event | None = None
        """Nothing is answered before it is set."""


class _Requests(http.server.BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        headers["Content_Length"] = str(len(body))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        files = sorted(self.server.folder.iterdir())
        if self.server.silent is not None:
            self.server.silent.wait()
        if self.server.refusal:
            status, code = self.server.refusal
            self.answer(status, b"<html>log in</html>", X_Error_Code=code)
        elif "/tree/" in self.path:
            listing = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name}
                for f in files
            ]
            self.answer(200, json.dumps(listing).encode())
        elif self.path.startswith("/api/"):
            siblings = [{"rfilename": f.name} for f in files]
            info = {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            self.answer(200, json.dumps(info).encode())
        else:
            name = self.path.rsplit("/", 1)[-1]
            data = (self.server.folder / name).read_bytes()
            etag = hashlib.sha1(data).hexdigest()
            if self.command == "GET":
                if name == self.server.broken:
                    self.answer(500, b"")
                    return
                self.server.sent.append(name)
            size = str(self.server.sizes.get(name, len(data)))
            etag = f'"{etag}"'
            self.answer(200, data, ETag=etag, X_Repo_Commit=COMMIT, X_Linked_Size=size)

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FakeHub]:
    folder = save_model(tmp_path / "remote", size=30_000_000)
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with FakeHub(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


DOWNLOAD = """
import threading
import tui_chat.engine
from tui_chat.engine import base, hub
from tui_chat.types import LoadProgress, ModelSpec
cancel = threading.Event()
fractions = []
def watch(progress):
    if STOP and progress.stage == STOP: cancel.set()
    if progress.fraction is not None:
        fractions.append(progress.fraction)
try:
    print(hub.resolve_model(ModelSpec("org/name"), watch, cancel))
    print(fractions == sorted(fractions), fractions[-1])
except base.EngineError as error:
    print(type(error).__name__, error)
"""


LOOK_UP = """
import threading
import tui_chat.engine
from tui_chat.engine import base, hub_lookup
cancel = threading.Event()
if STOP: cancel.set()
try:
    model = hub_lookup.look_up("org/name", cancel)
    print(model.download_bytes, model.checkpoint.weights_bytes, model.checkpoint.parameters)
except base.EngineError as error:
    print(type(error).__name__, error)
"""


def download(
    hub: FakeHub, home: Path, *, stop: str = "", code: str = DOWNLOAD, **env: str
) -> list[str]:
    environment = {**os.environ, "HF_HOME": str(home), **env}
    environment["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
    environment["PYTHONPATH"] = str(Path(tui_chat.__file__).parents[1])
    del environment["HF_HUB_OFFLINE"]
    done = subprocess.run(
        [sys.executable, "-c", f"STOP = {stop!r}\n{code}"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_model_is_downloaded_with_progress_and_then_works_offline(
    hub: FakeHub, tmp_path: Path
) -> None:
    path, progress = download(hub, tmp_path / "home")
    assert progress == "True 1.0"
    names = sorted(file.name for file in Path(path).iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert resolve("org/name", tmp_path / "home" / "hub") == Path(path)


def test_cancelled_download_ends_and_a_second_one_completes(hub: FakeHub, tmp_path: Path) -> None:
    assert download(hub, tmp_path / "home", stop="downloading") == [
        "LoadCancelled The download of org/name was cancelled; files that were finished are kept."
    ]
    assert cached_snapshot("org/name", None, tmp_path / "home" / "hub") is None
    assert download(hub, tmp_path / "home")[1] == "True 1.0"


def test_a_hub_that_does_not_answer_is_not_waited_for_on_cancel(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.silent = threading.Event()
    try:
        (line,) = download(hub, tmp_path / "home", stop="asking the hub")
    finally:
        hub.silent.set()
    assert line.startswith("LoadCancelled The download of org/name was cancelled")


def test_the_hub_tells_what_a_model_is_and_nothing_large_is_downloaded(
    hub: FakeHub, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    total = sum(f.stat().st_size for f in hub.folder.iterdir() if f.suffix != ".bin")
    weights = (hub.folder / "model.safetensors").stat().st_size
    (line,) = download(hub, home, code=LOOK_UP)
    assert line == f"{total} {weights} {weights // 2}"
    assert hub.sent == ["config.json"]
    (hub.folder / "config.json").write_text('{"model_type": "x", "auto_map": {"a": "b.py"}}')
    (line,) = download(hub, tmp_path / "other", code=LOOK_UP)
    assert line.startswith("LoadError org/name/config.json wants to run its own Python code")
    hub.silent = threading.Event()
    try:
        (line,) = download(hub, tmp_path / "third", code=LOOK_UP, stop="at once")
    finally:
        hub.silent.set()
    assert line == "LoadCancelled org/name is not asked for any more."


def test_files_that_were_finished_are_not_downloaded_again(hub: FakeHub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    hub.broken = "model.safetensors"
    assert "fault of its own" in download(hub, home)[0]
    hub.broken = ""
    hub.sent.clear()
    assert download(hub, home)[1] == "True 1.0"
    assert hub.sent == ["model.safetensors"]


def test_a_full_disk_is_told_before_the_download(hub: FakeHub, tmp_path: Path) -> None:
    huge = 10**18
    hub.sizes["model.safetensors"] = huge
    (line,) = download(hub, tmp_path / "home")
    assert line.startswith("LoadError org/name needs 1000000000.0 GB of disk but only ")
    assert hub.sent == []


def test_a_download_tells_bytes_rate_and_the_time_that_is_left() -> None:
    moment = 0.0
    told: list[LoadProgress] = []
    meter = DownloadMeter(told.append, "org/name", 4_000_000_000, lambda: moment)
    for moment in range(12):
        meter(moment * 10_000_000 if moment <= 6 else 60_000_000 + (moment - 6) * 20_000_000)
    details = [progress.detail for progress in told]
    assert details[0] == "org/name: 1 MB of 4.0 GB"
    assert details[3] == "org/name: 30 MB of 4.0 GB · 10.0 MB/s · 6 min left"
    assert details[-1] == "org/name: 160 MB of 4.0 GB · 20.0 MB/s · 3 min left"
    moment = 12
    meter(5_000_000_000)
    assert told[-1].fraction == 1.0 and "left" not in told[-1].detail


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "GatedRepo", "org/name is gated"),
        (404, "RepoNotFound", "There is no model org/name"),
        (404, "RevisionNotFound", "has no revision"),
        (200, "", "answered with a web page"),
    ],
)
def test_refusals_of_the_hub_are_explained(
    status: int, code: str, sentence: str, hub: FakeHub, tmp_path: Path
) -> None:
    hub.refusal = (status, code)
    (line,) = download(hub, tmp_path / "home")
    assert line.startswith("LoadError ") and sentence in line


def test_hub_that_cannot_be_reached_is_explained(hub: FakeHub, tmp_path: Path) -> None:
    hub.server_port = 9
    (line,) = download(hub, tmp_path / "home")
    assert "the hub cannot be reached" in line


def test_model_without_safetensors_is_refused_before_the_download(
    hub: FakeHub, tmp_path: Path
) -> None:
    (hub.folder / "model.safetensors").unlink()
    (line,) = download(hub, tmp_path / "home")
    assert "org/name has no safetensors weights" in line
