"""The log file: private, and free of what users and models wrote, whatever fails.

A failure is told as the types of its exceptions and the places in the code that they passed:
their messages may hold a prompt or a key.
"""

import logging
import logging.handlers
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

from tui_chat import files
from tui_chat.chat.sanitize import sanitize

_MAX_BYTES = 1_000_000
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
_logger = logging.getLogger(__name__)


def open_log() -> int:
    """A descriptor that appends to the log file, which only its owner can read.

    Raises:
        OSError: it cannot be opened, or something else than a file is there.
    """
    path = files.log_path()
    files.make_private_dir(path.parent)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    descriptor = files.open_descriptor(path, flags)
    os.fchmod(descriptor, 0o600)  # one that was there already
    return descriptor


def start_log() -> None:
    """Send the records of every logger, and failures that nobody catches, to the log file.

    A log that cannot be written is done without.
    """
    handler: logging.Handler
    try:
        handler = _PrivateFile(files.log_path(), maxBytes=_MAX_BYTES, backupCount=1)
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    threading.excepthook = _tell_of_thread
    sys.unraisablehook = _tell_of_unraisable


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """Every file that it begins is private, and what the disk refuses is not told elsewhere."""

    def _open(self) -> TextIO:  # type: ignore[override]
        return os.fdopen(open_log(), "a", encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class SafeFormatter(logging.Formatter):
    """Leaves out the messages of exceptions, and control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return sanitize(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        if record.name == "asyncio":  # whose further lines are the values of what failed
            record.message = record.message.partition("\n")[0]
        return super().formatMessage(record)

    def formatException(self, ei: _ExcInfo) -> str:
        if ei[1] is None:
            return ""
        return "Traceback (most recent call last):\n" + "".join(_told(ei[1]))


def _told(error: BaseException, seen: frozenset[int] = frozenset()) -> Iterator[str]:
    """The lines of a traceback, its causes before it, without any value."""
    cause = error.__cause__
    before = cause or (None if error.__suppress_context__ else error.__context__)
    seen |= {id(error)}
    if before is not None and id(before) not in seen:
        yield from _told(before, seen)
        yield "which caused:\n" if before is cause else "while this was handled:\n"
    for frame, line in traceback.walk_tb(error.__traceback__):
        yield f'  File "{frame.f_code.co_filename}", line {line}, in {frame.f_code.co_qualname}\n'
    number = f" ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else ""
    yield f"{type(error).__qualname__}{number}\n"


def _tell_of_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None and failure.exc_type is not SystemExit:
        _logger.error("a thread failed", exc_info=failure.exc_value)


def _tell_of_unraisable(failure: "sys.UnraisableHookArgs") -> None:
    if failure.exc_value is not None:
        what = getattr(failure.object, "__qualname__", type(failure.object).__qualname__)
        _logger.error("%s failed while it cleaned up", what, exc_info=failure.exc_value)
