"""What the README prints is what the program does."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from textual.theme import Theme

from tui_chat.bench.command import BENCHMARKS
from tui_chat.config import Config, to_toml
from tui_chat.ui.commands import ACTIONS, GROUPS, key_label
from tui_chat.ui.theme_proof import prove
from tui_chat.ui.themes import TOKENS, completed, shipped_theme_files

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(start: str, end: str) -> str:
    found = re.search(
        rf"<!-- {re.escape(start)} -->\n(.*?)\n<!-- {re.escape(end)} -->", README, re.S
    )
    assert found is not None
    return found.group(1)


def block_from(start: str) -> str:
    found = re.search(rf"```\n({re.escape(start)}.*?)\n```", README, re.S)
    assert found is not None
    return found.group(1)


def command(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)\n```", README, re.S)
    assert found is not None
    return found.group(1)


def test_the_key_table_is_the_action_table() -> None:
    rows = ["| key | command | what it does |", "|---|---|---|"]
    for group in GROUPS:
        for action in ACTIONS:
            if action.group == group:
                keys = ", ".join(f"`{key_label(key)}`" for key in action.keys)
                usage = f"`{action.usage}`" if action.usage else ""
                rows.append(f"| {keys} | {usage} | {action.help} |")
    assert between("keys: from the action table", "/keys") == "\n".join(rows)


def test_the_settings_and_their_defaults_are_those_of_the_program() -> None:
    block = between("config: the defaults", "/config")
    assert block == f"```toml\n{to_toml(Config()).rstrip()}\n```"


def test_the_themes_and_their_colours_are_those_of_the_program() -> None:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in TOKENS.items()]
    head = ["| colour | what it is for |", "|---|---|"]
    assert between("tokens: of a theme", "/tokens") == "\n".join([*head, *rows])
    table = README[README.index("## Themes") : README.index("<!-- tokens")]
    assert all(f"`{name}`" in table for name in shipped_theme_files())
    example = re.search(r"```toml\n(name = .*?)```", table, re.S)
    assert example is not None
    theme = completed(Theme(**tomllib.loads(example.group(1))))
    prove(theme, "README.md")


def test_the_rows_of_the_benchmark_are_those_of_the_program() -> None:
    head = ["| row | what it measures |", "|---|---|"]
    rows = [
        f"| `{bench.name}` | {bench.help}{'' if bench.by_default else ' (only when named)'} |"
        for bench in BENCHMARKS
    ]
    assert between("rows: of the benchmark", "/rows") == "\n".join([*head, *rows])


@pytest.mark.parametrize("marker", ["run command", "test command"])
def test_each_command_is_one_line_that_makes_the_environment(marker: str) -> None:
    line = command(marker)
    assert "\n" not in line
    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install")


def test_ci_takes_the_test_command_out_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    program = re.search(r"test_command=\$\((awk '.*?' README\.md)\)", script, re.S)
    assert program is not None
    found = subprocess.run(
        ["bash", "-c", program.group(1)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == command("test command")


def test_every_flag_and_command_that_the_readme_names_exists() -> None:
    helps = ""
    commands = ("ask", "list", "show", "search", "export", "import")
    for arguments in (["--help"], *([command, "--help"] for command in commands)):
        run = [sys.executable, "-m", "tui_chat", *arguments]
        helps += subprocess.run(run, capture_output=True, text=True, check=True).stdout
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.S))
    used = set(re.findall(r"tui-chat[^\n|#]*?(--[a-z-]+)", blocks))
    assert used and all(flag in helps for flag in used)


def test_the_tree_names_every_module_of_the_program() -> None:
    tree = block_from("tui_chat/\n├──")
    floors = ("", "ui", "chat", "engine", "store")
    modules = {
        path.name
        for floor in floors
        for path in (ROOT / "tui_chat" / floor).glob("*.py")
        if path.name != "__init__.py"
    }
    assert set(re.findall(r"[\w]+\.py", tree)) == modules
