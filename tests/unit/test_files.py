import os
import stat
from pathlib import Path

import pytest

from tui_chat import files


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
