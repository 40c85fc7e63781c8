"""Reading above a reply that goes on, selecting, copying: in a pseudo-terminal and in tmux."""

import base64
import re
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import test_pty  # type: ignore[import-not-found]
from test_pty import COMMAND, PATIENCE, Pty, Start

script, start = test_pty.script, test_pty.start  # pytest finds the fixtures here by name

REPLY = """\
Two habits **matter** here.

```python
first = 1
second = 2
```

The last paragraph.
"""


def place(terminal: Pty, text: str, *, end: bool = False) -> tuple[int, int]:
    """Column and row, from 1, where a text begins (or ends) on the screen."""
    rows = terminal.text().split("\n")
    row = next((number for number, line in enumerate(rows, start=1) if text in line), 0)
    assert row, terminal.text()
    column = rows[row - 1].index(text) + 1
    return column + (len(text) - 1 if end else 0), row


def drag(terminal: Pty, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Press at one place, move, and release at another, as an SGR mouse does."""
    terminal.type(f"\x1b[<0;{start[0]};{start[1]}M")
    terminal.type(f"\x1b[<32;{start[0] + 1};{start[1]}M")
    terminal.type(f"\x1b[<32;{end[0]};{end[1]}M")
    terminal.type(f"\x1b[<0;{end[0]};{end[1]}m")


def copied(terminal: Pty) -> list[str]:
    """What was sent to the clipboard so far."""
    found = re.findall(rb"\x1b\]52;c;([A-Za-z0-9+/=]*)(?:\x07|\x1b\\)", terminal.raw)
    return [base64.b64decode(payload).decode() for payload in found]


def copies(terminal: Pty, text: str) -> None:
    """Press Ctrl+C and wait for the text on the clipboard."""
    terminal.type("\x03")
    terminal.until(lambda: copied(terminal)[-1:] == [text])


@pytest.mark.parametrize(
    ("scroll", "back"),
    [("\x1b[5~", "\x1b[1;5F"), ("\x1b[<64;50;10M" * 6, "\x1b[<65;50;10M" * 200)],
    ids=["keys", "wheel"],
)
def test_the_page_stays_where_it_is_read_while_the_reply_goes_on(
    start: Start, script: Path, scroll: str, back: str
) -> None:
    script.write_text("".join(f"Paragraph {n}.\n\n" for n in range(600)), encoding="utf-8")
    terminal = start("--max-new-tokens", "100000", rate=150)
    terminal.type("go\r")
    terminal.until(lambda: re.search(r"Paragraph [3-9]\d\.", terminal.text()) is not None)
    terminal.type(scroll)
    terminal.shows("new text below")
    time.sleep(0.5)  # the wheel's last steps

    def page() -> list[tuple[int, str]]:
        """The paragraphs with their rows."""
        rows = enumerate(terminal.text().split("\n"))
        return [(row, m[0]) for row, line in rows if (m := re.search(r"Paragraph \d+\.", line))]

    def tokens() -> int:
        found = re.search(r"writing\s+([\d,]+) tok", terminal.text())
        return int(found[1].replace(",", "")) if found else 0

    before, written = page(), tokens()
    assert before
    terminal.until(lambda: tokens() > written + 200)
    assert page() == before
    terminal.type(back)
    terminal.until(lambda: "new text below" not in terminal.text())
    newest = page()[-1]
    terminal.until(lambda: page()[-1] != newest)  # it follows again
    terminal.type("\x1b")


def test_the_wheel_recalls_no_prompt(start: Start) -> None:
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type("\x1b[<64;50;10M" * 5 + "\x1b[<65;50;10M" * 5)
    terminal.type("typed after")
    terminal.shows("▌ typed after")


def test_what_is_selected_with_the_mouse_is_copied_with_ctrl_c(start: Start, script: Path) -> None:
    script.write_text(REPLY, encoding="utf-8")
    terminal = start()
    terminal.type("my own question\r")
    terminal.shows("Two habits matter here.")
    terminal.shows("Enter send")
    drag(terminal, place(terminal, "habits"), place(terminal, "matter", end=True))
    copies(terminal, "habits matter")
    drag(terminal, place(terminal, "first = 1"), place(terminal, "second = 2", end=True))
    copies(terminal, "first = 1\nsecond = 2")
    drag(terminal, place(terminal, "own"), place(terminal, "question", end=True))
    copies(terminal, "own question")
    drag(terminal, place(terminal, "question"), place(terminal, "last", end=True))
    terminal.type("\x03")
    terminal.until(lambda: copied(terminal)[-1].startswith("question"))
    whole = copied(terminal)[-1]
    # Textual ends a selection over several messages one cell before the pointer.
    for part in ("Two habits matter here.", "first = 1\nsecond = 2", "The las"):
        assert part in whole
    terminal.type("\x11")
    assert terminal.exit_code() == 0  # Ctrl+C copied, and did not ask to quit


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("/copy", REPLY.rstrip()),
        ("/copy 1", "first = 1\nsecond = 2\n"),
        ("/copy code", "first = 1\nsecond = 2\n"),
        ("/copy-code 1", "first = 1\nsecond = 2\n"),
        ("/copy prompt", "hello"),
    ],
)
def test_what_is_copied_is_raw(start: Start, script: Path, line: str, text: str) -> None:
    script.write_text(REPLY, encoding="utf-8")
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type(f"{line}\r")
    terminal.until(lambda: copied(terminal) == [text])


def test_the_whole_chat_is_copied_as_markdown(start: Start, script: Path) -> None:
    script.write_text(REPLY, encoding="utf-8")
    terminal = start()
    for prompt in ("hello", "again"):
        terminal.type(f"{prompt}\r")
        terminal.shows(f"▌ {prompt}")
        terminal.until(lambda: "Ctrl+J newline" in terminal.text())
    terminal.type("/copy all\r")
    terminal.until(lambda: bool(copied(terminal)))
    whole = copied(terminal)[0]
    assert whole.startswith("# hello\n")
    assert whole.count("## User") == 2 and "**matter**" in whole


def test_what_is_too_long_for_the_clipboard_goes_to_a_private_file(
    start: Start, script: Path, home: Path
) -> None:
    text = ("reply" * 40 + " ") * 500
    script.write_text(text, encoding="utf-8")
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type("/copy\r")
    terminal.shows("Too long for the clipboard")
    path = home / "cache" / "copied.md"
    assert path.read_text(encoding="utf-8") == text.rstrip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert copied(terminal) == []


def test_what_may_not_arrive_is_in_a_file_too(start: Start, script: Path, home: Path) -> None:
    text = "reply " * 200
    script.write_text(text, encoding="utf-8")
    terminal = start(TERM="screen-256color")  # which a tmux may call itself, seen over SSH
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type("/copy\r")
    terminal.shows("Copied; if it does not arrive")
    assert (home / "cache" / "copied.md").read_text(encoding="utf-8") == text.rstrip()
    terminal.until(lambda: b"\x1bP\x1b]52;c;" in terminal.raw)


# ---- inside tmux ----


class Tmux:
    """A tmux server of its own with one window."""

    def __init__(self, folder: Path) -> None:
        self._base = ["tmux", "-S", str(folder / "tmux.sock"), "-f", "/dev/null"]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        done = subprocess.run(
            [*self._base, *arguments], capture_output=True, text=True, input=stdin, check=True
        )
        return done.stdout

    def screen(self) -> str:
        return self("capture-pane", "-p", "-t", "chat")

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.screen()
            time.sleep(0.05)

    def shows(self, text: str) -> None:
        self.until(lambda: text in self.screen())


@pytest.fixture
def tmux(tmp_path: Path, script: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    script.write_text(REPLY, encoding="utf-8")
    run = Tmux(tmp_path)
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf " and edited" >> "$1"\n', encoding="utf-8")
    editor.chmod(0o700)
    run(
        "new-session",
        "-d",
        "-s",
        "chat",
        "-x",
        "100",
        "-y",
        "30",
        f"VISUAL={editor} {COMMAND} --model echo:{script}; sleep 60",
    )
    run("set-option", "-g", "set-clipboard", "on")
    try:
        run.shows("ready")
        yield run
    finally:
        run("kill-server")


def test_tmux_takes_what_is_copied_into_its_buffer(tmux: Tmux) -> None:
    tmux("send-keys", "-t", "chat", "-l", "hello")
    tmux("send-keys", "-t", "chat", "Enter")
    tmux.shows("tok/s · speed")
    tmux("send-keys", "-t", "chat", "-l", "/copy 1")
    tmux("send-keys", "-t", "chat", "Enter")
    tmux.shows("Copied code block 1")
    tmux.until(lambda: "second = 2" in tmux("show-buffer"))
    assert tmux("show-buffer") == "first = 1\nsecond = 2\n"


def test_a_paste_from_tmux_is_one_and_sends_nothing(tmux: Tmux) -> None:
    tmux("load-buffer", "-", stdin="".join(f"row {number}\n" for number in range(30)))
    tmux("paste-buffer", "-p", "-t", "chat")
    tmux.shows("[≡ pasted 31 lines")
    # Without the marks, as in a program that does not know them.
    tmux("send-keys", "-t", "chat", "C-c")
    tmux("load-buffer", "-", stdin="".join(f"unmarked row {number}\n" for number in range(40)))
    tmux("paste-buffer", "-t", "chat")
    tmux.shows("[≡ pasted 41 lines")


def test_the_editor_comes_and_goes_in_tmux(tmux: Tmux) -> None:
    tmux("send-keys", "-t", "chat", "-l", "draft")
    tmux.shows("▌ draft")
    tmux("send-keys", "-t", "chat", "C-g")
    tmux.shows("▌ draft and edited")
    tmux("send-keys", "-t", "chat", "Enter")
    tmux.shows("tok/s · speed")


def test_print_fills_the_history_that_copy_mode_can_scroll(tmux: Tmux) -> None:
    tmux("send-keys", "-t", "chat", "-l", "hello")
    tmux("send-keys", "-t", "chat", "Enter")
    tmux.shows("tok/s · speed")
    tmux("send-keys", "-t", "chat", "-l", "/print")
    tmux("send-keys", "-t", "chat", "Enter")
    tmux.shows("Press Enter to go back")
    tmux("send-keys", "-t", "chat", "Enter")
    tmux.shows("Ctrl+J newline")
    tmux("send-keys", "-t", "chat", "C-q")
    tmux.until(lambda: "## User" in tmux("capture-pane", "-p", "-S", "-200", "-t", "chat"))
