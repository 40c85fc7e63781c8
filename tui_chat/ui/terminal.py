"""What the terminal is: its colours, a slow connection; and what else is written to it."""

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.color import ColorSystem
from rich.console import Console
from textual.app import App

from tui_chat.log_file import open_log


@contextlib.contextmanager
def stray_output_to_log() -> Iterator[None]:
    """Keep what native code prints off the screen: file descriptors 1 and 2 go to the log.

    Textual draws on `sys.__stderr__` and measures the terminal of `sys.__stdout__`; both keep
    the terminal meanwhile.
    """
    screen_fd, kept = os.dup(2), (os.dup(1), os.dup(2))
    before = sys.__stdout__, sys.__stderr__
    screen = os.fdopen(screen_fd, "w", encoding="utf-8", errors="replace")
    try:
        log_fd = open_log()
    except OSError:
        log_fd = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    sys.__stdout__ = sys.__stderr__ = screen  # type: ignore[misc]
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            screen.close()
        sys.__stdout__, sys.__stderr__ = before  # type: ignore[misc]
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def is_remote(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal is at the other end of an SSH connection."""
    return bool(environ.get("SSH_TTY") or environ.get("SSH_CONNECTION"))


def is_screen(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether GNU screen is between us and the terminal.

    It shows 256 colours at most, whatever it inherits from the terminal that it was started in.
    """
    if "TMUX" in environ:  # which either of them inherits from the other
        return "STY" in environ and nearest_multiplexer() == "screen"
    return "STY" in environ or environ.get("TERM", "").startswith("screen")


def is_tmux(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether tmux is between us and the terminal."""
    if "TMUX" in environ:
        return not is_screen(environ)
    return "STY" not in environ and environ.get("TERM", "").startswith("tmux")


def nearest_multiplexer() -> str:
    """The nearest of the processes above us that is "tmux" or "screen"; empty if none is seen."""
    pid = os.getppid()
    with contextlib.suppress(OSError, ValueError):  # there may be no /proc
        while pid > 1:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")
            name = name.partition("(")[2].lower()
            for multiplexer in ("tmux", "screen"):
                if name.startswith(multiplexer):
                    return multiplexer
            pid = int(rest.split()[1])
    return ""


def few_colours(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal shows sixteen colours or none, so that the `terminal` theme is due."""
    if "NO_COLOR" in environ:
        return True
    term = environ.get("TERM", "")
    is_true = environ.get("COLORTERM", "") in ("truecolor", "24bit") and not is_screen(environ)
    rich_enough = is_true or "256" in term
    return not rich_enough and not term.startswith(("xterm-kitty", "alacritty", "foot", "ghostty"))


def limit_colours(console: Console, environ: Mapping[str, str] = os.environ) -> None:
    """Let `console` use no more colours than there are."""
    if is_screen(environ) and console._color_system is ColorSystem.TRUECOLOR:
        console._color_system = ColorSystem.EIGHT_BIT


def write_raw(app: App[Any], sequence: str) -> None:
    """Send a sequence of our own to the terminal; nothing happens without a driver."""
    if app._driver is not None:
        app._driver.write(sequence)
