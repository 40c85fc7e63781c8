"""Programs that take over the terminal for a while: editor, pager, the terminal's own scrollback.

What was written or read is never lost because one of them fails.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported

from tui_chat import files
from tui_chat.chat.sanitize import sanitize

SHORT_VISIT = 2.0
"""Seconds below which a pager that has ended is taken for one that shows a short text and does
not wait: then we do."""

_PAGERS = ("less", "more", "most")
"""They show a long text page by page, and end when they are told to."""


class OutsideError(Exception):
    """The other program failed; `str()` is one sentence for the user."""


@contextlib.contextmanager
def _terminal_given_away(app: App[Any]) -> Iterator[None]:
    """Leave the screen; come back to it whatever happens.

    Ctrl+C in the other program is its own affair: a signal for us as well, but without effect.
    """
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, lambda *_: None) if in_main else None
    fault: Exception | None = None
    try:
        with app.suspend():  # which does not come back by itself after an exception
            try:
                yield
            except Exception as error:
                fault = error
    except SuspendNotSupported as error:
        raise OutsideError("This terminal cannot be left to another program.") from error
    finally:
        if in_main and before is not None:
            signal.signal(signal.SIGINT, before)
    if fault is not None:
        raise fault


def _run(command: str, path: Path) -> bool:
    """Run a command line on a file, on the terminal; whether it ended well."""
    screen = sys.__stderr__  # descriptors 1 and 2 go to the log
    try:
        words = [*shlex.split(command), str(path)]
        return subprocess.run(words, check=False, stdout=screen, stderr=screen).returncode == 0
    except (OSError, ValueError):
        return False


def edit_text(app: App[Any], text: str) -> str:
    """Let the user change `text` in $VISUAL or $EDITOR.

    Raises:
        OutsideError: the editor failed; what it had saved is kept in a file that is named.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    before = text.encode("utf-8", "replace")
    with tempfile.TemporaryDirectory(prefix="tui-chat-") as folder:
        path = Path(folder, "prompt.md")
        path.write_bytes(before)
        with _terminal_given_away(app):
            good = _run(command, path)
        try:
            after = path.read_bytes()
        except OSError:
            good, after = False, before
    changed = after.decode("utf-8", "replace")
    if good:
        return changed.removesuffix("\n")
    sentence = f'The editor "{sanitize(command)}" failed; the text is unchanged.'
    if after not in (before, b""):
        kept = files.cache_dir() / "prompt.md"
        with contextlib.suppress(OSError):
            files.atomic_write(kept, changed)
            sentence += f" What it had saved is in {kept}."
    raise OutsideError(sentence)


def page_text(app: App[Any], text: str) -> None:
    """Show `text`, made safe, in $PAGER.

    Raises:
        OutsideError: the pager failed.
    """
    command = os.environ.get("PAGER") or "less"
    with tempfile.TemporaryDirectory(prefix="tui-chat-") as folder:
        path = Path(folder, "chat.md")
        path.write_text(sanitize(text), encoding="utf-8")
        with _terminal_given_away(app):
            started = time.monotonic()
            good = _run(command, path)
            was_short = time.monotonic() - started < SHORT_VISIT
            if good and was_short and not _was_left(command, text):
                _wait_for_enter()
    if not good:
        raise OutsideError(f'The pager "{sanitize(command)}" failed.')


def _was_left(command: str, text: str) -> bool:
    """Whether a pager that has ended was left by its user: it had more than a screen to show."""
    name = os.path.basename(shlex.split(command)[0])
    return name in _PAGERS and text.count("\n") >= shutil.get_terminal_size().lines


def print_text(app: App[Any], text: str) -> None:
    """Write `text`, made safe, into the terminal's own scrollback, and wait for Enter.

    Raises:
        OutsideError: this terminal cannot be left.
    """
    with _terminal_given_away(app):
        screen = sys.__stderr__
        if screen is not None:
            screen.write(f"\n{sanitize(text)}\n")
            screen.flush()
        _wait_for_enter()


def _wait_for_enter() -> None:
    screen = sys.__stderr__
    if screen is None:
        return
    screen.write("Press Enter to go back to the chat. ")
    screen.flush()
    with contextlib.suppress(OSError):
        while (typed := os.read(0, 1024)) and b"\n" not in typed:
            pass
