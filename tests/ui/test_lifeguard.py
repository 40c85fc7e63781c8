"""A signal while native code runs that nobody can stop: the process is gone all the same."""

import json
import os
import signal
import sys
import termios
from pathlib import Path

import pytest
from test_pty import Pty

PLANT = """
import ctypes, sys
from tui_chat import cli
from tui_chat.engine.echo import EchoEngine
from tui_chat.ui.prompt_input import PromptInput

def hang():
    # For PyDLL the interpreter is held meanwhile, as by an extension that does not let go of it.
    native, mutex = ctypes.{library}(None), ctypes.create_string_buffer(128)
    for _ in range(2):  # the second time for good, and no signal ends that
        native.pthread_mutex_lock(mutex)

before = EchoEngine.stream
def stream(self, messages, settings, cancel):
    for number, event in enumerate(before(self, messages, settings, cancel)):
        yield event
        if number == 150:
            open("hangs", "w").close()
            {in_engine}

sent = PromptInput._send
def send(self):
    if self.text == "hang":
        open("hangs", "w").close()
        hang()
    sent(self)

EchoEngine.stream, PromptInput._send = stream, send
sys.exit(cli.main(sys.argv[1:]))
"""
MODES = (b"1049", b"1003", b"2004")


def modes_of(terminal: Pty) -> int:
    """The local modes of the terminal: echo, whole lines, signals by keys."""
    return int(termios.tcgetattr(terminal.fd)[3])


def left_on(shown: bytes) -> list[bytes]:
    """What the program asked of the terminal and did not take back."""
    return [mode for mode in MODES if shown.rfind(b"?%sh" % mode) > shown.rfind(b"?%sl" % mode)]


@pytest.mark.parametrize(
    ("place", "library", "number", "code"),
    [
        ("engine", "CDLL", signal.SIGTERM, 128 + signal.SIGTERM),
        ("engine", "PyDLL", signal.SIGTERM, -signal.SIGKILL),
        ("screen", "CDLL", signal.SIGHUP, -signal.SIGKILL),
    ],
)
def test_what_cannot_be_interrupted_is_ended_and_the_terminal_is_as_it_was(
    place: str,
    library: str,
    number: int,
    code: int,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "reply.md"
    script.write_text("word " * 20_000, encoding="utf-8")
    plant = PLANT.format(library=library, in_engine="hang()" if place == "engine" else "pass")
    options = ("--model", f"echo:{script}", "--echo-rate", "100", "--max-new-tokens", "9999")
    terminal = Pty("-c", plant, *options, command=Path(sys.executable))
    modes = modes_of(terminal)
    try:
        terminal.shows("ready")
        assert modes_of(terminal) != modes
        terminal.type("go\r")
        terminal.shows("word word word")
        if place == "screen":
            terminal.until(lambda: "word" in reply_on_disk(home))
            terminal.type("hang\r")
        terminal.until((tmp_path / "hangs").exists)
        os.kill(terminal.pid, number)
        assert terminal.exit_code() == code
        shown = terminal.whole_output()
        assert modes_of(terminal) == modes
    finally:
        terminal.end()
    assert left_on(shown) == []
    assert "word word word" in reply_on_disk(home)


def reply_on_disk(home: Path) -> str:
    """All that is stored of the reply."""
    found = "".join(path.read_text() for path in (home / "data" / "chats").glob("*.jsonl"))
    kept = [json.loads(line) for line in found.splitlines()]
    return "".join(str(each.get("text") or each.get("content") or "") for each in kept[2:])


def test_a_program_that_is_killed_leaves_the_terminal_usable(tmp_path: Path) -> None:
    script = tmp_path / "reply.md"
    script.write_text("A reply.", encoding="utf-8")
    terminal = Pty("--model", f"echo:{script}")
    try:
        terminal.shows("ready")
        os.kill(terminal.pid, signal.SIGKILL)
        assert terminal.exit_code() == -signal.SIGKILL
        shown = terminal.whole_output()
    finally:
        terminal.end()
    assert [
        mode for mode in MODES if shown.rfind(b"?%sh" % mode) > shown.rfind(b"?%sl" % mode)
    ] == []
