"""What was typed and not sent, by conversation, across restarts. Losing it is a pity, never an
error."""

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tui_chat.files import AppendLog, make_private_dir

LIMIT = 100
"""Drafts that are kept; the oldest ones go first."""
LONGEST = 16 * 1024 * 1024
"""Characters of a draft that is still written to the disk."""
NEW_CHAT = "new"
"""The key of a conversation that has no file yet."""
_SUFFIX = ".json"
_PARTIAL = ".partial"
_COPIES = 9
"""So many running programs may each have a draft for one conversation."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """What was not sent."""

    text: str = ""
    """What is in the box."""
    queued: tuple[str, ...] = ()
    """Prompts that were to be sent, and still wait."""
    files: tuple[str, ...] = ()
    """Paths of the files that were attached."""

    @property
    def joined(self) -> str:
        """All of it as one text, to look over and send."""
        return "\n\n".join(part for part in (*self.queued, self.text) if part)


class HeldDraft:
    """The draft of one conversation, which this process alone writes until `close`.

    Any thread may call it. The file is always whole: it is replaced in one step, and the lock of
    the old one is held until the new one is there.
    """

    def __init__(self, folder: Path, key: str, file: AppendLog | None, draft: Draft) -> None:
        self._folder = folder
        self._key = key
        self._file = file
        self._lock = threading.Lock()
        self._is_closed = False
        self.saved = draft
        """What is on the disk."""

    def save(self, draft: Draft) -> bool:
        """Keep `draft`; an empty one removes the file. False, and a line in the log, if not."""
        with self._lock:
            if self._is_closed or draft == self.saved:
                return not self._is_closed
            try:
                self._write(draft)
            except OSError as error:
                _logger.warning("a draft is not in %s: %s", self._folder, error)
                return False
            self.saved = draft
            return True

    def close(self) -> None:
        """Let go of the file, so that another process may take the draft over."""
        with self._lock:
            self._is_closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, draft: Draft) -> None:
        if draft == Draft():
            if self._file is not None:
                self._file.path.unlink(missing_ok=True)
                self._file.close()
                self._file = None
            return
        data = _encoded(draft)
        if len(data) > LONGEST:
            raise OSError(f"it has more than {LONGEST:,} characters")
        make_private_dir(self._folder)
        if self._file is None or not self._file.is_in_place():
            file = self._claim()
            file.append(data, durable=False)
        else:
            path = self._file.path
            file = AppendLog(path.with_name(f"{secrets.token_hex(8)}{_PARTIAL}"), create=True)
            try:
                file.append(data, durable=False)
                os.rename(file.path, path)
            except OSError:
                file.path.unlink(missing_ok=True)
                file.close()
                raise
            file.path = path
        if self._file is not None:
            self._file.close()
        self._file = file

    def _claim(self) -> AppendLog:
        """A new file, under the first name that is free."""
        for path in _paths(self._folder, self._key):
            with contextlib.suppress(FileExistsError):
                return AppendLog(path, create=True)
        raise OSError("there are too many drafts for this conversation")


class Drafts:
    """The drafts in `folder`, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def hold(self, key: str, *, adopt: bool = True) -> HeldDraft:
        """Take the draft of a conversation, or of a new one (`NEW_CHAT`), for this process.

        Of several that no other process holds it is the one that was written last. A file that
        cannot be read is passed over. Without `adopt` it is an empty draft, and those that are
        there stay.
        """
        candidates = sorted(_paths(self._folder, key), key=_written, reverse=True) if adopt else []
        for path in candidates:
            file = _locked(path)
            if file is None:
                continue
            draft = _decoded(file.read())
            if draft is not None:
                return HeldDraft(self._folder, key, file, draft)
            file.close()
        return HeldDraft(self._folder, key, None, Draft())

    def prune(self) -> None:
        """Remove the oldest drafts when there are many, and what a crash left half written."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        drafts = [self._folder / name for name in names if name.endswith(_SUFFIX)]
        gone = sorted(drafts, key=_written)[:-LIMIT]
        gone += [self._folder / name for name in names if name.endswith(_PARTIAL)]
        for path in gone:
            file = _locked(path)  # nobody is writing it
            if file is not None:
                with contextlib.suppress(OSError):
                    path.unlink()
                file.close()


def _paths(folder: Path, key: str) -> Iterator[Path]:
    for number in range(1, _COPIES + 1):
        yield folder / f"{key}{'' if number == 1 else f'.{number}'}{_SUFFIX}"


def _written(path: Path) -> float:
    try:
        return os.stat(path, follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _locked(path: Path) -> AppendLog | None:
    """The file with its lock; None where it is missing, no plain file, or held elsewhere."""
    try:
        file = AppendLog(path)
    except OSError:
        return None
    if file.is_in_place():  # its holder may have replaced it meanwhile
        return file
    file.close()
    return None


def _encoded(draft: Draft) -> bytes:
    record = {"text": draft.text, "queued": draft.queued, "files": draft.files}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _decoded(data: bytes) -> Draft | None:
    """The draft of a file, or None where it is damaged."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    text, queued, files = record.get("text"), record.get("queued"), record.get("files", [])
    if not isinstance(text, str) or not isinstance(queued, list) or not isinstance(files, list):
        return None
    return Draft(text, _texts(queued), _texts(files))


def _texts(found: list[object]) -> tuple[str, ...]:
    return tuple(part for part in found if isinstance(part, str))
