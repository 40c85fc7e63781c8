"""The installed command in a real pseudo-terminal: keys in, bytes out, signals, exit codes."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

COMMAND = Path(sys.executable).with_name("tui-chat")
PATIENCE = 30.0
"""Seconds after which a test gives up; nothing is asserted about time."""

# What Textual and we may send: cursor, erase, colours, modes, kitty keys, and sync mode.
ALLOWED = re.compile(
    rb"\x1b\[[0-9;:]*[HmJKABCDGdr]"
    rb"|\x1bM"
    rb"|\x1b\[\?[0-9;]+[hl]"
    rb"|\x1b\[\?[0-9;]+\$p"
    rb"|\x1b\[[><=?][0-9;]*u"
    rb"|\x1b\[<u"
    rb"|\x1b\]22;[a-z-]+\x07"  # the shape of the mouse pointer
)


class Pty:
    """A child process in a terminal that a thread reads all the time."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 100,
        lines: int = 32,
        command: Path = COMMAND,
        **environment: str,
    ) -> None:
        self.screen = pyte.Screen(columns, lines)
        self.raw = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where nohup runs the tests
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            foreign = ("NO_COLOR", "TMUX", "STY", "SSH_TTY", "SSH_CONNECTION", "COLUMNS", "LINES")
            for name in foreign:
                os.environ.pop(name, None)
            os.environ.update(environment)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            # Not execv: readline, which pytest loads, puts a size into the C environment.
            os.execve(command, [str(command), *arguments], os.environ)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self._status: int | None = None
        self._closed = False
        self.reads = threading.Event()
        self.reads.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while not self._closed:
            self.reads.wait()
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return
            with self._lock:
                self.raw += data
                # pyte takes the colons and kitty sequences of newer terminals for text.
                self._stream.feed(re.sub(rb"\x1b\[[><=?][0-9;]*u|\x1b\[\?[0-9;]+\$p", b"", data))

    def text(self) -> str:
        with self._lock:
            # Screen.display fails where a combining character has no cell.
            rows, columns = range(self.screen.lines), range(self.screen.columns)
            buffer = self.screen.buffer
            return "\n".join("".join(buffer[y][x].data for x in columns) for y in rows)

    def type(self, text: str | bytes) -> None:
        os.write(self.fd, text.encode() if isinstance(text, str) else text)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)

    def shows(self, text: str) -> None:
        self.until(lambda: text in self.text())

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, as a window that is dragged does."""
        with self._lock:
            self.screen.resize(max(1, lines), max(1, columns))
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def clear(self) -> None:
        """Lose all that is shown."""
        with self._lock:
            self.screen.erase_in_display(2)

    def close(self) -> None:
        """Close our side, as a lost SSH connection does."""
        self._closed = True
        os.close(self.fd)

    def exit_code(self) -> int:
        def ended() -> bool:
            if self._status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._status = status if pid else None
            return self._status is not None

        self.until(ended)
        assert self._status is not None
        return os.waitstatus_to_exitcode(self._status)

    def whole_output(self) -> bytes:
        """Everything that was written, once the process has ended; no sequence is cut in two."""
        self.exit_code()
        self._reader.join(PATIENCE)
        return self.raw

    def end(self) -> None:
        self.reads.set()
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "reply.md"
    path.write_text("A short **reply** with `code`.\n\nIt has two paragraphs.\n", encoding="utf-8")
    return path


Start = Callable[..., Pty]


@pytest.fixture
def start(script: Path) -> Iterator[Start]:
    running: list[Pty] = []

    def run(*arguments: str, rate: int = 0, wait: bool = True, **environment: str) -> Pty:
        model = ("--model", f"echo:{script}", "--echo-rate", str(rate))
        terminal = Pty(*model, *arguments, **environment)
        running.append(terminal)
        if wait:
            terminal.shows("ready")
        return terminal

    yield run
    for each in running:
        each.end()


def records(home: Path) -> list[dict[str, object]]:
    (path,) = (home / "data" / "chats").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def long_reply(script: Path) -> None:
    script.write_text("word " * 20_000, encoding="utf-8")


def test_a_question_is_answered_and_the_figures_are_shown(start: Start, home: Path) -> None:
    terminal = start()
    terminal.type("hello there\r")
    terminal.shows("It has two paragraphs.")
    terminal.shows("tok/s · speed")
    terminal.type("\x1b[Z")  # Shift+Tab
    terminal.shows("accuracy from the next reply on")
    terminal.type("again\r")
    terminal.shows("tok/s · accuracy")
    terminal.type("\x11")  # Ctrl+Q
    assert terminal.exit_code() == 0
    assert [r["content"] for r in records(home) if r.get("role") == "user"] == [
        "hello there",
        "again",
    ]


def test_a_terminal_without_utf8_gets_nothing_but_ascii(
    start: Start, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    script.write_text("- Ça va, 日本\n\n```py\nx = 1\n```\n", encoding="utf-8")
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s - speed")
    terminal.shows("* Ca va, ????")
    terminal.shows("| hello")
    assert terminal.raw.isascii()


def test_text_typed_before_the_first_frame_stands_in_the_box(start: Start) -> None:
    terminal = start(wait=False)
    for character in "typed early":
        terminal.type(character)
    terminal.shows("▌ typed early")
    terminal.type("\r")
    terminal.shows("It has two paragraphs.")


@pytest.mark.parametrize("between", ["", "\x0e"], ids=["at once", "after a new chat"])
def test_quitting_right_behind_a_prompt_is_no_failure(start: Start, between: str) -> None:
    terminal = start()
    terminal.type(f"hello\r{between}more\r\x11")
    assert terminal.exit_code() == 0
    assert b"failed" not in terminal.whole_output()


def test_quitting_leaves_the_terminal_as_it_was(start: Start) -> None:
    terminal = start()
    terminal.shows("tui-chat")
    terminal.type("\x11")
    assert terminal.exit_code() == 0
    for on, off in ((b"?1049h", b"?1049l"), (b"?1003h", b"?1003l"), (b"?25l", b"?25h")):
        assert terminal.raw.rfind(off) > terminal.raw.rfind(on), on


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_during_a_reply_saves_it_and_ends_with_its_code(
    start: Start, script: Path, home: Path, number: signal.Signals
) -> None:
    long_reply(script)
    terminal = start(rate=100)
    terminal.type("go\r")
    terminal.shows("word word word")
    os.kill(terminal.pid, number)
    assert terminal.exit_code() == 128 + number
    end = records(home)[-1]
    assert end["status"] == "interrupted"
    assert str(end["content"]).startswith("word word word")
    assert terminal.raw.rfind(b"?1049l") > terminal.raw.rfind(b"?1049h")


def test_a_closed_terminal_ends_the_process_and_the_reply_is_on_disk(
    start: Start, script: Path, home: Path
) -> None:
    long_reply(script)
    terminal = start(rate=100)
    terminal.type("go\r")
    terminal.shows("word word word")
    terminal.close()
    terminal.exit_code()
    end = records(home)[-1]
    assert end["status"] == "interrupted"
    assert str(end["content"]).startswith("word word word")


def test_bytes_that_are_no_text_do_not_end_the_app(start: Start) -> None:
    terminal = start()
    terminal.shows("Message")
    terminal.type(b"caf\xe9 \xff\xfe\x80 ")
    terminal.type("still here\r")
    terminal.shows("It has two paragraphs.")


def test_a_character_that_arrives_in_pieces_or_not_at_all_does_not_end_the_app(
    start: Start,
) -> None:
    terminal = start()
    terminal.shows("Message")
    for byte in "é".encode():
        terminal.type(bytes([byte]))
        time.sleep(0.3)  # each in a read of its own
    terminal.shows("▌ é")
    terminal.type(b"\xe9")
    time.sleep(0.3)
    terminal.type("still here\r")
    terminal.shows("It has two paragraphs.")


def test_no_sequence_of_the_model_reaches_the_terminal(start: Start, script: Path) -> None:
    hostile = (
        "\x1b]52;c;aGk=\x07 \x1b]0;title\x1b\\ \x1b[2J \x1bc \x9b31m \x1bP+q\x1b\\ \x00\x0e\x7f "
        "**\x1b[31mbold** `\x1b[0m` [link](http://x.example/\x1b]8;;) \u202eright\n\n"
        "```sh\necho \x1b]52;c;aGk=\x1b\\\n```\n\nthe very end\n"
    )
    script.write_text(hostile, encoding="utf-8")
    terminal = start()
    terminal.type("go\r")
    terminal.shows("the very end")
    terminal.shows("tok/s")
    terminal.type("\x11")
    rest = ALLOWED.sub(b"", terminal.whole_output())
    unsafe = re.findall(rb"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]", rest)
    assert unsafe == [], rest[max(0, rest.find(unsafe[0]) - 60) :][:120]
    assert not re.search("[\x80-\x9f\u202a-\u202e\u2066-\u2069]", rest.decode())


def test_without_a_terminal_the_screen_is_refused_with_one_sentence(script: Path) -> None:
    done = subprocess.run(
        [COMMAND, "--model", f"echo:{script}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "terminal" in done.stderr


def test_the_last_chat_goes_on_after_a_restart(start: Start, home: Path) -> None:
    first = start()
    first.type("hello there\r")
    first.shows("tok/s · speed")
    first.type("\x11")
    assert first.exit_code() == 0
    again = start("--continue", wait=False)
    again.shows("hello there")
    again.type("and more\r")
    again.until(lambda: again.text().count("It has two paragraphs.") == 2)
    assert [r["content"] for r in records(home) if r.get("role") == "user"] == [
        "hello there",
        "and more",
    ]


@pytest.mark.parametrize("start_walking", [b"\x1b[1;3A", b"\t", b"\x1b[19~"])
def test_the_keys_of_walking_arrive_through_a_terminal(
    start: Start, home: Path, start_walking: bytes
) -> None:
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tokenize")
    terminal.type(start_walking)
    terminal.shows("y copy  e edit  r again  x leave out")
    terminal.type("x")
    terminal.shows("left out")
    terminal.type("r")
    terminal.shows("2/2")
    terminal.type(b"\x1b[1;3D")  # Alt+Left, in the box
    terminal.shows("1/2")
    terminal.type("\x11")
    assert terminal.exit_code() == 0
    kinds = [record["t"] for record in records(home)]
    assert kinds[-4:] == ["exclude", "begin", "end", "head"]


def test_a_chat_that_is_open_in_another_copy_is_read_only_here(start: Start, home: Path) -> None:
    first = start()
    first.type("mine\r")
    first.shows("It has two paragraphs.")
    second = start()
    second.shows("Message")
    second.type("\x0f")  # Ctrl+O
    second.shows("mine")
    second.type("\r")
    second.shows("It has two paragraphs.")
    before = len(records(home))
    second.type("intruder\r")
    second.shows("starts a new chat")  # and the prompt is in the box again
    second.shows("intruder")
    first.type("second\r")
    first.until(lambda: first.text().count("It has two paragraphs.") == 2)
    assert all(r.get("content") != "intruder" for r in records(home))
    assert len(records(home)) > before
    second.type("\x11")  # Ctrl+Q
    assert second.exit_code() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_what_is_typed_survives_a_signal(start: Start, home: Path, number: signal.Signals) -> None:
    def stored() -> list[str]:
        found = (home / "data" / "drafts").glob("*.json")
        # A draft that is held and was not written yet is an empty file.
        return [json.loads(data)["text"] for path in found if (data := path.read_bytes())]

    first = start()
    first.type("a long thought")
    first.shows("a long thought")
    if number == signal.SIGKILL:  # the others are told, and write it then
        first.until(lambda: stored() == ["a long thought"])
    os.kill(first.pid, number)
    first.exit_code()
    assert stored() == ["a long thought"]
    again = start()
    again.shows("a long thought")
    again.type("\r")
    again.shows("It has two paragraphs.")
    again.until(lambda: stored() == [])
