"""A program in a real pseudo-terminal: type into it, see when something is painted, end it."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tui_chat.bench.cells import Cells
from tui_chat.bench.harness import BenchError

KEPT_CHUNKS = 400
POLL_SECONDS = 0.05
_FOREIGN = (
    *("NO_COLOR", "TMUX", "SSH_TTY", "SSH_CONNECTION", "COLUMNS", "LINES", "TEXTUAL"),
    "PYTHONDONTWRITEBYTECODE",  # an installed program starts from its compiled modules
)


def tui_chat_command() -> list[str]:
    """How the installed tui-chat is started with this interpreter."""
    script = Path(sys.executable).with_name("tui-chat")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "tui_chat"]


def private_environment(folder: Path) -> dict[str, str]:
    """The environment of this process, with the files of tui-chat in `folder` and no network."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    places = {
        f"TUI_CHAT_{name}_DIR": str(folder / name.lower())
        for name in ("CONFIG", "DATA", "CACHE", "LOG")
    }
    fixed = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "HF_HUB_OFFLINE": "1"}
    return kept | places | fixed


_LOGIN = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if sys.argv[1] == "ignored":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.execv(sys.argv[2], sys.argv[2:])
"""


def login_command(command: Sequence[str], *, ignores_hang_up: bool = False) -> list[str]:
    """`command` as a login starts it: its terminal controls it, so closing one hangs it up.

    With `ignores_hang_up` it begins with SIGHUP ignored, as under nohup and some wrappers.
    """
    how = "ignored" if ignores_hang_up else "default"
    return [sys.executable, "-c", _LOGIN, how, *command]


class Terminal:
    """A child process in a terminal of its own, whose output a thread drains all the time."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], *, columns: int = 80, lines: int = 24
    ) -> None:
        """Start `command`.

        Raises:
            OSError: it cannot be started.
        """
        self._flows = threading.Event()
        self._flows.set()
        self._hung_up = threading.Event()
        self._chunks: deque[tuple[float, bytes]] = deque(maxlen=KEPT_CHUNKS)
        self._news = threading.Condition()
        self._drawn = Cells(columns, lines)
        self._undrawn: list[bytes] = []
        """Drawn when it is looked at: that would take the processor from what is measured."""
        self._wanted = ""
        self._seen_at: float | None = None
        self.received = 0
        """Bytes that the program has sent."""
        self._ended = False
        self._master, slave = pty.openpty()
        try:
            self._set_size(columns, lines)
            self.started = time.perf_counter()
            self.process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=slave, env=env, start_new_session=True
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        self._reader = threading.Thread(target=self._drain, name="terminal", daemon=True)
        self._reader.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _drain(self) -> None:
        while not self._hung_up.is_set():
            # A read that waits would keep the terminal open behind our back when we close it.
            if not self._flows.wait(POLL_SECONDS) or not self._has_output():
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:  # Linux says so when the other side is closed
                data = b""
            moment = time.perf_counter()
            with self._news:
                if data:
                    self._chunks.append((moment, data))
                    self.received += len(data)
                    self._undrawn.append(data)
                    if self._seen_at is None and self._shows(self._wanted):
                        self._seen_at = moment
                self._ended = not data
                self._news.notify_all()
            if not data:
                return

    def _has_output(self) -> bool:
        return bool(select.select([self._master], [], [], POLL_SECONDS)[0])

    def wait_for(self, text: str, timeout: float = 60.0) -> float:
        """Seconds from the start of the process until a chunk came with which `text` is shown.

        What was shown before the call, and is still, counts from the last chunk before it.

        Raises:
            BenchError: the program ended or took longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._news:
            last = self._chunks[-1][0] if self._chunks else self.started
            self._wanted, self._seen_at = text, last if self._shows(text) else None
            while self._seen_at is None:
                if self._ended or time.monotonic() > deadline:
                    what = "ended" if self._ended else "was too slow"
                    raise BenchError(
                        f'The program {what} before it painted "{text}": {self.tail()}'
                    )
                self._news.wait(0.5)
            return self._seen_at - self.started

    @property
    def _cells(self) -> Cells:
        """The screen as it is now; for who has the lock."""
        undrawn, self._undrawn = self._undrawn, []
        for data in undrawn:
            self._drawn.feed(data)
        return self._drawn

    def _shows(self, text: str) -> bool:
        return bool(text) and self._cells.is_full_screen and text in self._cells.text

    def stall(self) -> None:
        """Take nothing off the program any more, as a connection does that hangs."""
        self._flows.clear()

    def hang_up(self) -> None:
        """Close our side, as a connection does that is lost."""
        self._hung_up.set()
        self._reader.join()
        os.close(self._master)
        self._master = -1

    @property
    def output(self) -> bytes:
        """What was painted last, a few hundred chunks of it."""
        with self._news:
            return b"".join(data for _, data in self._chunks)

    @property
    def screen(self) -> str:
        """What is shown, row by row."""
        with self._news:
            return self._cells.text

    def tail(self, length: int = 200) -> str:
        """The end of what is shown, on one line."""
        words = " ".join(self.screen.split())
        return "".join(character for character in words if character.isprintable())[-length:]

    @property
    def is_running(self) -> bool:
        """Whether the program has not ended yet."""
        return self.process.poll() is None

    def type(self, text: str) -> float:
        """Press keys: text, or the sequences that a terminal sends for keys.

        Returns when, in seconds from the start of the process.

        Raises:
            BenchError: the program has ended.
        """
        moment = time.perf_counter() - self.started
        self.send(text.encode())
        return moment

    def send(self, data: bytes) -> None:
        """Send bytes as they are, whether a terminal would or not.

        Raises:
            BenchError: the program has ended.
        """
        try:
            os.write(self._master, data)
        except OSError as error:
            raise BenchError(f"The program has ended: {self.tail()}") from error

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size and tell the program."""
        with self._news:
            self._cells.resize(columns, lines)
        self._set_size(columns, lines)
        # The terminal does not control the session, so nobody else tells it.
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGWINCH)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def exit_code(self, timeout: float = 30.0) -> int | None:
        """The exit code once the program has ended; None if it runs on for `timeout` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the program at once and close the terminal."""
        if self.is_running:
            self.process.kill()
            self.process.wait()
        self._flows.set()
        self._reader.join(5.0)
        with contextlib.suppress(OSError):
            os.close(self._master)
