"""What is shipped is what the program needs."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tui_chat

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_themes_styles_types_and_the_guide(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    themes = {f"tui_chat/themes/{path.name}" for path in (ROOT / "themes").glob("*.toml")}
    assert themes and themes <= names
    assert {"tui_chat/py.typed", "tui_chat/ui/app.tcss", "tui_chat/ui/later.tcss"} <= names
    model = {
        f"tui_chat/guide/model/{path.name}" for path in (ROOT / "tui_chat/guide/model").iterdir()
    }
    assert "tui_chat/guide/model/model.safetensors" in model
    assert model <= names


def test_the_guide_stays_small() -> None:
    files = (ROOT / "tui_chat" / "guide" / "model").iterdir()
    assert sum(path.stat().st_size for path in files) <= 12_000_000


def test_the_wheel_declares_the_command_and_the_python_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert "tui-chat = tui_chat.__main__:main" in archive.read(entry).decode()
    metadata = next(name for name in archive.namelist() if name.endswith("METADATA"))
    assert "Requires-Python: >=3.11" in archive.read(metadata).decode()


def test_the_changelog_begins_with_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text, re.MULTILINE)
    assert versions[0] == tui_chat.__version__


def test_the_installed_command_answers() -> None:
    command = Path(sys.executable).with_name("tui-chat")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert tui_chat.__version__ in done.stdout
