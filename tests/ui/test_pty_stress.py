"""A terminal that stalls, stops, changes its size or is far away is right in the end."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_pty import Pty  # type: ignore[import-not-found]

WORDS = "\n\n".join(f"paragraph {number}: " + "some words " * 20 for number in range(60))
Start = Callable[..., Pty]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "reply.md"
    path.write_text(f"{WORDS}\n\nthe very end", encoding="utf-8")
    return path


@pytest.fixture
def start(script: Path) -> Iterator[Start]:
    running: list[Pty] = []

    def run(*arguments: str, rate: int = 0, **environment: str) -> Pty:
        model = ("--model", f"echo:{script}", "--echo-rate", str(rate), "--max-new-tokens", "9999")
        terminal = Pty(*model, *arguments, **environment)
        running.append(terminal)
        terminal.shows("ready")
        return terminal

    yield run
    for each in running:
        each.end()


def quiet(terminal: Pty) -> None:
    """Wait until nothing more is sent."""
    sent = -1
    while sent != len(terminal.raw):
        sent = len(terminal.raw)
        time.sleep(1.0)


def is_right(terminal: Pty) -> None:
    """What is shown is what is shown when everything is drawn again."""
    quiet(terminal)
    shown = terminal.text()
    terminal.resize(100, 31)
    terminal.clear()
    terminal.resize(100, 32)
    terminal.until(lambda: terminal.text() == shown)


def stored(home: Path) -> str:
    """All that is on disk of the chat."""
    files = (home / "data" / "chats").glob("*.jsonl")
    return "".join(path.read_text(encoding="utf-8") for path in files)


def state(terminal: Pty) -> str:
    """The state of the process: R and S are running, T is stopped."""
    return Path(f"/proc/{terminal.pid}/stat").read_text().rpartition(")")[2].split()[0]


def stall(terminal: Pty) -> None:
    """Take nothing more off the program, and let it draw until the terminal is full."""
    terminal.reads.clear()
    for _ in range(60):
        terminal.type("\x1b[1;5H\x1b[1;5F")  # Ctrl+Home, Ctrl+End: every row is another one


def test_a_terminal_that_stalls_slows_neither_the_reply_nor_the_keys(
    start: Start, home: Path
) -> None:
    terminal = start(rate=400)
    terminal.type("go\r")
    terminal.shows("tok/s · speed")
    stall(terminal)
    terminal.type("again\r")
    terminal.until(lambda: stored(home).count('"t":"end"') == 2)
    terminal.type("typed meanwhile")
    terminal.reads.set()
    terminal.shows("the very end")
    terminal.shows("typed meanwhile")
    is_right(terminal)


def test_a_terminal_that_stalls_for_good_can_be_left(start: Start, home: Path) -> None:
    terminal = start(rate=400)
    terminal.type("go\r")
    # Each frame has several paragraphs more.
    terminal.until(lambda: any(f"paragraph {n}:" in terminal.text() for n in range(20, 50)))
    stall(terminal)
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.exit_code() == 128 + signal.SIGTERM
    assert "paragraph 20:" in stored(home)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_suspending_and_resuming_leave_the_screen_right(start: Start) -> None:
    terminal = start(rate=200)
    terminal.type("go\r")
    terminal.shows("paragraph 1:")
    for key in (True, False, True, False, True):
        if key:
            terminal.type("\x1a")  # Ctrl+Z
        else:
            os.kill(terminal.pid, signal.SIGTSTP)
        terminal.until(lambda: state(terminal) == "T")
        terminal.clear()  # the shell writes over it
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.shows("writing")
    terminal.shows("the very end")
    terminal.shows("tok/s · speed")
    is_right(terminal)


def test_a_storm_of_sizes_leaves_the_screen_right(start: Start) -> None:
    chance = random.Random(5)
    terminal = start(rate=200)
    terminal.type("go\r")
    terminal.shows("paragraph 1:")
    for _ in range(100):
        terminal.resize(chance.randint(1, 300), chance.randint(1, 100))
    terminal.resize(100, 32)
    terminal.shows("the very end")
    terminal.shows("tok/s · speed")
    is_right(terminal)


def test_a_size_that_changes_and_changes_back_at_once_is_drawn_again(start: Start) -> None:
    terminal = start()
    terminal.shows("tok/s")
    terminal.shows("A scripted engine")
    quiet(terminal)  # the chats are counted meanwhile
    shown = terminal.text()
    terminal.clear()
    terminal.resize(60, 20)
    terminal.resize(100, 32)
    terminal.until(lambda: terminal.text() == shown)


def test_over_ssh_the_reply_comes_in_blocks_and_is_whole_in_the_end(start: Start) -> None:
    terminal = start(rate=200, SSH_CONNECTION="192.0.2.1 5000 192.0.2.2 22")
    assert terminal.raw.rfind(b"?1003l") > terminal.raw.rfind(b"?1003h")
    terminal.type("go\r")
    terminal.shows("paragraph 1:")
    terminal.type("typed meanwhile")
    terminal.shows("typed meanwhile")
    terminal.shows("the very end")
    terminal.shows("tok/s · speed")
    is_right(terminal)
    terminal.type("\x11")
    assert terminal.exit_code() == 0
    assert terminal.raw.rfind(b"?1002l") > terminal.raw.rfind(b"?1002h")


@pytest.mark.parametrize(
    ("flags", "environment", "is_ssh"),
    [
        ((), {}, False),
        ((), {"SSH_TTY": "/dev/pts/7"}, True),
        (("--ssh",), {}, True),
        (("--no-ssh",), {"SSH_TTY": "/dev/pts/7"}, False),
    ],
)
def test_the_terminal_is_taken_for_a_remote_one_over_ssh_or_when_told_so(
    start: Start, flags: tuple[str, ...], environment: dict[str, str], is_ssh: bool
) -> None:
    terminal = start(*flags, **environment)
    assert (b"?1002h" in terminal.raw) == is_ssh


def test_under_screen_no_colour_is_sent_that_it_does_not_know(start: Start) -> None:
    terminal = start(TERM="screen-256color", STY="1.pts-0.host")
    assert b"38;2;" not in terminal.raw and b"38;5;" in terminal.raw
