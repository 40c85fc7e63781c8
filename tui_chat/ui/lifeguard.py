"""A process beside the program that ends it where it cannot end itself, and leaves the terminal
as it was.

A signal is handled by Python code in the main thread. While native code holds the interpreter, or
the main thread itself, none runs, and no thread of ours could help. What the system does at once is
to write the number of the signal into a pipe: the other process reads that.
"""

import contextlib
import os
import select
import signal
import termios
import time
from typing import Any

KILL_SECONDS = 5.8
"""After a signal; by then the program has given up on everything else."""
RESTORE_SECONDS = 1.0
"""How long a terminal may take to read what restores it."""
RESTORE = (
    b"\x1b[?2026l\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1015l\x1b[?1006l"
    b"\x1b[?2048l\x1b[?1004l\x1b[?7h\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m"
)
"""What undoes all that the screen asks of a terminal."""
_UP, _DOWN = b"\xfe", b"\xff"
"""Written by the program itself; no signal has such a number."""
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_IGNORED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
)


class Lifeguard:
    """Our end of the pipe; where the system refuses the other process, it leads nowhere."""

    def __init__(self) -> None:
        self._pipe = -1
        self._modes: list[Any] | None = None

    def start(self) -> None:
        """Begin to watch this process; before it has threads, on the main one."""
        self._modes = _modes()
        with contextlib.suppress(OSError):
            parent = os.getpid()
            ours, self._pipe = os.pipe()
            try:
                if os.fork() == 0:
                    _watch(parent, ours)
            finally:
                os.close(ours)
            os.set_blocking(self._pipe, False)
            signal.set_wakeup_fd(self._pipe, warn_on_full_buffer=False)

    def screen_is_up(self) -> None:
        """The terminal is no more as it was."""
        self._tell(_UP)

    def screen_is_down(self) -> None:
        """The terminal is as it was."""
        self._tell(_DOWN)

    def exit(self, code: int) -> None:
        """End this process at once, whatever hangs; the other one undoes the rest."""
        _set_modes(self._modes)
        os._exit(code)

    def _tell(self, what: bytes) -> None:
        if self._pipe >= 0:
            with contextlib.suppress(OSError):
                os.write(self._pipe, what)


def _watch(parent: int, pipe: int) -> None:
    """The life of the other process; it ends with the program."""
    try:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        os.setsid()
        os.dup2(pipe, 1)
        os.closerange(3, 4096)
        _wait_and_end(parent)
    finally:
        os._exit(0)


def _wait_and_end(parent: int) -> None:
    poll = select.poll()
    poll.register(1, select.POLLIN)
    poll.register(0, 0)  # which is told when the terminal is gone
    before = _modes()
    is_up, deadline = False, float("inf")
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        for descriptor, _ in poll.poll(None if deadline == float("inf") else 1000 * left):
            due = min(deadline, time.monotonic() + KILL_SECONDS)
            if descriptor == 0:
                poll.unregister(0)
                deadline = due
                continue
            if not (told := os.read(1, 4096)):
                if is_up:
                    _restore()
                return
            for byte in told:
                is_up = bytes([byte]) == _UP or (is_up and bytes([byte]) != _DOWN)
            if any(number in told for number in _ENDING):
                deadline = due
    if is_up:
        _set_modes(before)  # while no shell has the terminal again
    if os.getppid() == parent:
        os.kill(parent, signal.SIGKILL)
    if is_up:
        _restore()


def _modes() -> list[Any] | None:
    with contextlib.suppress(termios.error):
        return termios.tcgetattr(0)
    return None


def _set_modes(modes: list[Any] | None) -> None:
    if modes is not None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, modes)


def _restore() -> None:
    signal.setitimer(signal.ITIMER_REAL, RESTORE_SECONDS)  # ends us where the terminal hangs
    with contextlib.suppress(OSError):
        os.write(2, RESTORE)
