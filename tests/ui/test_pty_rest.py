"""Nothing spins: at rest, before a terminal that takes nothing, and once the terminal is gone.

What is compared is the time of the processor that the program has used.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_pty import COMMAND, Pty
from test_pty_stress import is_right, quiet, stall

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

WINDOW = 2.0
"""Seconds over which a program at rest is watched."""
MOST_SHARE = 0.05
"""Of one core, at rest."""
MOST_TO_END = 1.0
"""Seconds of the processor for saving and ending."""
Start = Callable[[str], Pty]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the program behind the words of a shell, ready for a prompt."""
    script = tmp_path / "reply.md"
    script.write_text("\n\n".join(f"paragraph {n} " + "word " * 20 for n in range(300)))
    running: list[Pty] = []

    def run(before: str) -> Pty:
        options = f"--model echo:{script} --echo-rate 200 --max-new-tokens 99999"
        terminal = Pty("-c", f"{before} exec {COMMAND} {options}", command=Path("/bin/sh"))
        running.append(terminal)
        terminal.shows("ready")
        return terminal

    yield run
    for each in running:
        each.end()


def used(terminal: Pty) -> float:
    """Seconds of the processor that the program has used so far."""
    fields = Path(f"/proc/{terminal.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_at_rest(terminal: Pty) -> float:
    """How much of a core the program uses while nothing happens."""
    before, since = used(terminal), time.monotonic()
    time.sleep(WINDOW)
    return (used(terminal) - before) / (time.monotonic() - since)


@pytest.mark.parametrize("before", ["", "SSH_TTY=/dev/pts/7"])
def test_a_program_at_rest_uses_next_to_nothing(start: Start, before: str) -> None:
    terminal = start(before)
    quiet(terminal)
    assert share_at_rest(terminal) < MOST_SHARE
    terminal.type("typed, and not sent")
    terminal.shows("typed, and not sent")
    quiet(terminal)
    assert share_at_rest(terminal) < MOST_SHARE


def test_a_terminal_that_takes_nothing_costs_nothing(start: Start) -> None:
    terminal = start("")
    terminal.type("go\r")
    terminal.shows("word word")
    stall(terminal)
    terminal.type("\x1b")  # the reply is stopped, nothing else happens
    time.sleep(WINDOW)
    assert share_at_rest(terminal) < MOST_SHARE


@pytest.mark.parametrize("before", ["", "trap '' HUP;"])
@pytest.mark.parametrize("stalls", [False, True])
def test_a_terminal_that_is_gone_costs_no_more_than_the_end(
    start: Start, before: str, stalls: bool
) -> None:
    terminal = start(before)
    terminal.type("go\r")
    terminal.shows("word word")
    if stalls:
        stall(terminal)
    since = used(terminal)
    terminal.close()
    _, status, usage = os.wait4(terminal.pid, 0)
    terminal._status = status
    assert usage.ru_utime + usage.ru_stime - since < MOST_TO_END
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP


@pytest.mark.parametrize("size", [(1, 1), (0, 0), (0, 500)])
def test_a_terminal_without_room_is_right_again_afterwards(
    start: Start, size: tuple[int, int]
) -> None:
    terminal = start("")
    terminal.type("go\r")
    terminal.shows("word word")
    terminal.resize(*size)
    terminal.type("\x1bmeanwhile")
    quiet(terminal)
    assert share_at_rest(terminal) < MOST_SHARE
    terminal.resize(100, 32)
    terminal.shows("meanwhile")
    terminal.shows("stopped")
    is_right(terminal)
