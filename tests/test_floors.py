import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "textual", "rich", "bitsandbytes", "accelerate")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after `code`."""
    program = f"import sys\n{code}\nprint(*(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stderr.split())


def test_every_module_imports_downwards_only() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module",
    [
        "tui_chat.cli",
        "tui_chat.headless",
        "tui_chat.archive",
        "tui_chat.chat.session",
        "tui_chat.store.conversations",
        "tui_chat.engine",
        "tui_chat.engine.echo",
        "tui_chat.engine.server",
        "tui_chat.ui.commands",
    ],
)
def test_importing_loads_neither_the_screen_nor_the_model_libraries(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


def test_importing_the_screen_does_not_load_the_model_libraries() -> None:
    assert loaded_by("import tui_chat.ui.app") == {"textual", "rich"}


@pytest.mark.parametrize("flag", ["--help", "--version", "--help-keys", "config", "list"])
def test_a_command_that_only_prints_loads_neither(flag: str) -> None:
    code = (
        "from tui_chat.cli import main\n"
        f"try:\n    main([{flag!r}])\nexcept SystemExit as ended:\n    assert not ended.code"
    )
    assert loaded_by(code) == set()


def test_asking_a_server_loads_neither() -> None:
    code = (
        "sys.path.insert(0, 'tests')\nfrom fake_server import FakeServer\n"
        "from tui_chat.cli import main\nsys.stdin = None\n"
        "with FakeServer().running() as server:\n"
        "    assert main(['--server', server.address, 'ask', 'q']) == 0\n"
        "    assert server.chats"
    )
    assert loaded_by(code) == set()


def test_the_client_library_is_not_loaded_without_a_server() -> None:
    code = "import tui_chat.ui.app, tui_chat.chat.session\nassert 'httpx2' not in sys.modules"
    assert loaded_by(code) == {"textual", "rich"}


def test_asking_the_scripted_engine_loads_neither(tmp_path: Path) -> None:
    script = tmp_path / "reply.txt"
    script.write_text("hello", encoding="utf-8")
    model = f"echo:{script}"
    code = (
        f"sys.stdin = None\nfrom tui_chat.cli import main\nmain(['--model', {model!r}, 'ask', 'q'])"
    )
    assert loaded_by(code) == set()
