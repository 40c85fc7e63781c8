"""Odd places to be started in: closed or redirected descriptors, a bare environment."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from test_pty import COMMAND, Pty


@pytest.fixture
def model(tmp_path: Path) -> str:
    script = tmp_path / "reply.md"
    script.write_text("An answer.", encoding="utf-8")
    return f"--model echo:{script}"


def started(line: str) -> Pty:
    return Pty("-c", f"exec {line}", command=Path("/bin/sh"))


@pytest.mark.parametrize("where", [">/dev/null", ">&-", "</dev/tty"])
def test_the_screen_works_whatever_its_output_is(model: str, where: str) -> None:
    answers(f"{COMMAND} {model} {where}")


@pytest.mark.parametrize(
    "environment", ["-u TERM", "LANG=C LC_ALL=C", "LANG=de_DE.ISO-8859-1", "-u HOME"]
)
def test_the_screen_works_in_a_bare_environment(model: str, environment: str) -> None:
    answers(f"env {environment} {COMMAND} {model}")


def answers(line: str) -> None:
    """A question gets its answer, and the end is clean."""
    terminal = started(line)
    try:
        terminal.shows("Enter send")
        terminal.type("hello\r")
        terminal.shows("An answer.")
        terminal.type("\x11")
        assert terminal.exit_code() == 0
    finally:
        terminal.end()


@pytest.mark.parametrize("where", ["</dev/null", "<&-", "2>&-", "2>/dev/null"])
def test_the_screen_is_refused_in_one_sentence_where_it_has_none(model: str, where: str) -> None:
    terminal = started(f"{COMMAND} {model} {where}")
    try:
        assert terminal.exit_code() == 2
        said = re.sub(r"\s+", " ", terminal.text()).strip()
        assert "Traceback" not in said
        assert "tui-chat ask" in said or "2>" in where
    finally:
        terminal.end()


def test_a_dumb_terminal_is_refused(model: str) -> None:
    terminal = started(f"env TERM=dumb {COMMAND} {model}")
    try:
        assert terminal.exit_code() == 2
        assert "TERM=dumb" in terminal.text()
    finally:
        terminal.end()


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_help_and_version_work_with_a_closed_descriptor(closed: int) -> None:
    for flag in ("--help", "--version"):
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "{COMMAND}" {flag} {closed}>&-'],
            capture_output=True,
            text=True,
            env=os.environ,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
