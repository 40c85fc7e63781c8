"""How the commands without a screen print: raw to a pipe, made safe for a terminal."""

import sys
from typing import TextIO

from tui_chat.chat.sanitize import sanitize


class UsageError(Exception):
    """The command line asks for something impossible; `str()` is one sentence."""


class OutputError(Exception):
    """Standard output cannot be written; `str()` is one sentence."""


def write(text: str, out: TextIO | None = None) -> None:
    """Write untrusted text to `out`, or to standard output, at once.

    Raises:
        OutputError: it cannot be written, because the disk is full for example.
        BrokenPipeError: its reader went away.
    """
    out = out or sys.stdout
    try:
        out.write(sanitize(text) if out.isatty() else text)
        out.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"Standard output cannot be written ({error.strerror}).") from error


def complain(sentence: str) -> None:
    """One line on standard error, which may be closed."""
    if sys.stderr is not None:
        print(f"tui-chat: {sanitize(sentence)}", file=sys.stderr, flush=True)
