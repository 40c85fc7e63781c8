"""The prompts that were sent, across restarts. Losing them is a pity, never an error."""

import json
import logging
import time
from pathlib import Path

from tui_chat.files import (
    AppendLog,
    LockedError,
    atomic_write,
    make_private_dir,
    open_regular_file,
)

LIMIT = 1000
_TRIES = 50
_PAUSE = 0.002
"""Seconds between tries to get the file that another program is writing: it takes less."""
_logger = logging.getLogger(__name__)


class PromptHistory:
    """Earlier prompts in the JSONL file at `path`, oldest first in `entries`.

    Several running programs may share the file; each sees the others' prompts at its next start.
    """

    entries: list[str]

    def __init__(self, path: Path) -> None:
        self._path = path
        stored = _load(path)
        self.entries = stored[-LIMIT:]
        if len(stored) > 2 * LIMIT:
            self._compact()

    def add(self, text: str) -> bool:
        """Remember a prompt; blank ones and a repetition of the last are left out.

        Returns:
            Whether it is on disk too.
        """
        if not text.strip() or self.entries[-1:] == [text]:
            return True
        self.entries.append(text)
        del self.entries[:-LIMIT]
        try:
            make_private_dir(self._path.parent)
            file = _open(self._path)
            try:
                file.append(_line(text).encode(), durable=False)
            finally:
                file.close()
        except OSError as error:
            _logger.warning("a prompt is not in %s: %s", self._path, error)
            return False
        return True

    def previous(self, prefix: str, position: int | None = None) -> int | None:
        """Index of the newest entry before `position` (None: the end) starting with `prefix`."""
        end = len(self.entries) if position is None else position
        return next((i for i in reversed(range(end)) if self.entries[i].startswith(prefix)), None)

    def following(self, prefix: str, position: int) -> int | None:
        """Index of the oldest entry after `position` starting with `prefix`; None at the end."""
        later = range(position + 1, len(self.entries))
        return next((i for i in later if self.entries[i].startswith(prefix)), None)

    def _compact(self) -> None:
        try:
            file = _open(self._path)  # held, so that no prompt gets lost between the two
            try:
                self.entries = _load(self._path)[-LIMIT:]
                atomic_write(self._path, "".join(map(_line, self.entries)))
            finally:
                file.close()
        except OSError as error:
            _logger.warning("%s keeps more prompts than it needs: %s", self._path, error)


def _open(path: Path) -> AppendLog:
    """The file, held until it is closed; made where it is missing.

    Raises:
        OSError: it cannot be opened, or another program holds it for long.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            file = AppendLog(path) if path.exists() else AppendLog(path, create=True)
        except (LockedError, FileExistsError, FileNotFoundError):
            if not tries_left or (path.is_symlink() and not path.exists()):
                raise
            time.sleep(_PAUSE)
            continue
        if file.is_in_place():
            return file
        file.close()  # it was written anew meanwhile
    raise LockedError("it is written anew all the time")


def _line(text: str) -> str:
    return json.dumps({"prompt": text}, separators=(",", ":")) + "\n"


def _load(path: Path) -> list[str]:
    """The readable prompts of the file; none when there is no such file."""
    try:
        with open_regular_file(path) as file:
            data = file.read()
    except FileNotFoundError:
        return []
    except OSError as error:
        _logger.warning("%s cannot be read: %s", path, error)
        return []
    prompts = []
    for line in data.split(b"\n"):
        try:
            record = json.loads(line.strip(b"\x00\r\t "))
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("prompt"), str):
            prompts.append(record["prompt"])
    return prompts
