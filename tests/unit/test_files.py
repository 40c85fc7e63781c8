import errno
import os
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tui_chat import files
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import Message, Role


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        ("TUI_CHAT_CONFIG_DIR", files.config_dir),
        ("TUI_CHAT_DATA_DIR", files.data_dir),
        ("TUI_CHAT_CACHE_DIR", files.cache_dir),
        ("TUI_CHAT_LOG_DIR", lambda: files.log_path().parent),
    ],
)
def test_each_folder_has_its_variable_and_a_default(
    variable: str, place: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert callable(place)
    monkeypatch.setenv(variable, str(tmp_path / "mine"))
    assert place() == tmp_path / "mine"
    monkeypatch.setenv(variable, "")
    default = place()
    assert default.is_absolute() and "tui-chat" in str(default)


def test_a_folder_that_we_create_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    files.make_private_dir(folder)
    files.make_private_dir(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_write_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config.toml"
    files.atomic_write(path, "old")
    files.atomic_write(path, "néw\r\n")
    assert path.read_bytes() == "néw\r\n".encode()
    assert os.listdir(path.parent) == ["config.toml"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    files.atomic_write(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.atomic_write(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["config.toml"]


def test_a_write_goes_through_a_link_to_its_target(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.toml"
    target.write_text("old", encoding="utf-8")
    link = tmp_path / "config.toml"
    link.symlink_to(target)
    files.atomic_write(link, "new")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "new"


def put(path: Path, kind: str) -> None:
    """Something in the place of a file that no program should wait for, follow or replace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "endless":
            path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "endless"])
def test_what_is_no_file_is_neither_waited_for_nor_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "config.toml"
    put(path, kind)
    before = os.lstat(path)
    with pytest.raises(OSError):
        files.read_bytes(path)
    with pytest.raises(OSError):
        files.atomic_write(path, "new")
    assert os.path.samestat(before, os.lstat(path))
    assert os.listdir(tmp_path) == ["config.toml"]


def test_a_file_is_read_through_a_link_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("target")
    assert files.read_bytes(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="too large"):
        files.read_bytes(tmp_path / "link", 4)


@pytest.mark.parametrize("step", ["fsync", "replace", "mkstemp", "fdopen"])
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "EDQUOT", "EROFS"])
def test_a_disk_that_refuses_at_any_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, fault: str
) -> None:
    path = tmp_path / "config.toml"
    files.atomic_write(path, "old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(getattr(errno, fault), fault)

    monkeypatch.setattr(tempfile if step == "mkstemp" else os, step, refuse)
    with pytest.raises(OSError):
        files.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["config.toml"]


@pytest.mark.parametrize("step", ["os.write", "os.fsync", "os.replace", "files.sync_dir"])
def test_a_kill_at_any_step_of_a_write_leaves_the_old_file_or_the_new(
    tmp_path: Path, step: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text("old")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom tui_chat import files\n"
        f"{step} = lambda *_: os._exit(9)\n"
        "files.atomic_write(Path(sys.argv[1]), 'new')\nos._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2])
    assert done.returncode == 9
    assert path.read_text() == ("new" if step in ("files.sync_dir", "os.write") else "old")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277, 0o777])
def test_what_we_create_is_for_its_owner_alone_under_any_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.make_private_dir(tmp_path / "a" / "b")
        files.atomic_write(tmp_path / "a" / "b" / "config.toml", "text")
        files.AppendLog(tmp_path / "a" / "b" / "log", create=True).close()
        store = ConversationStore(tmp_path / "data", tmp_path / "cache")
        log = store.create()
        log.append(Message("m", Role.USER, "text", datetime.now(UTC)))
        log.close()
        assert store.search("text")
    finally:
        os.umask(before)
    found = [path for path in tmp_path.rglob("*") if path.name != "home"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found if path.is_dir()} == {0o700}
