"""The folder of conversations: list, create, open, search, delete and restore."""

import contextlib
import logging
import os
import re
import threading
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tui_chat.files import AppendLog, LockedError, make_private_dir, open_regular_file, sync_dir
from tui_chat.store.log import (
    ConversationLog,
    MemoryLog,
    StoreError,
    move_file,
    new_id,
    reason_of,
)
from tui_chat.store.records import MessageTree
from tui_chat.store.summaries import created_at_of, summarize
from tui_chat.types import Conversation, ConversationSummary

__all__ = ["ConversationLog", "ConversationStore", "MemoryLog", "StoreError"]

_logger = logging.getLogger(__name__)
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_SUFFIX = ".jsonl"
_SNIPPET = 80
_IN_USE = "This chat is open in another tui-chat; here it can be read, not continued."
_NEWER = "This chat was written by a newer tui-chat; update tui-chat to continue it."


class ConversationStore:
    """The conversations in `folder`/chats, and the deleted ones in `folder`/trash."""

    def __init__(self, folder: Path) -> None:
        self._chats = folder / "chats"
        self._trash = folder / "trash"
        self._lock = threading.RLock()
        self._open: weakref.WeakSet[ConversationLog] = weakref.WeakSet()
        self._known: dict[Path, tuple[tuple[int, ...], ConversationSummary | None]] = {}

    def summaries(self, limit: int | None = None) -> list[ConversationSummary]:
        """The stored conversations, last used first; files that are not ours are left out.

        A conversation without a title shows the first words of its first prompt.
        """
        return [summary for _, summary in self._newest_first()[:limit]]

    def create(
        self,
        *,
        title: str = "",
        model: str = "",
        tokenizer_id: str = "",
        system_prompt: str = "",
    ) -> ConversationLog:
        """A new conversation; its file appears with the first message."""
        header = Conversation(
            new_id(), datetime.now(UTC), title, model, tokenizer_id, system_prompt
        )
        log = ConversationLog(MessageTree(header), path=self._path(self._chats, header.id))
        with self._lock:
            self._open.add(log)
        return log

    def open(self, conversation_id: str) -> ConversationLog:
        """Load a conversation; read-only where another process writes it or a newer version did.

        One that is open here already is returned again; every `open` needs its own `close`.

        Raises:
            StoreError: there is no such conversation, or it cannot be read.
        """
        path = self._path(self._chats, conversation_id)
        with self._lock:
            shared = self._find_open(conversation_id)
            if shared is not None and shared.share():
                return shared
            try:
                file, data, reason = _open_file(path)
            except FileNotFoundError as error:
                raise StoreError("There is no such chat; it may have been deleted.") from error
            except OSError as error:
                raise StoreError(f"{path} cannot be read because {reason_of(error)}.") from error
            tree = MessageTree(Conversation(conversation_id, created_at_of(conversation_id)))
            tree.load(data)
            if tree.is_newer and file is not None:
                file.close()
                file = None
            if tree.is_newer:
                reason = _NEWER
            log = ConversationLog(tree, path=path, file=file, read_only_reason=reason)
            self._open.add(log)
            return log

    def delete(self, conversation_id: str) -> None:
        """Move a conversation to the trash, also while it is open here.

        Raises:
            StoreError: there is no such conversation, or another process has it open.
        """
        source = self._path(self._chats, conversation_id)
        target = self._path(self._trash, conversation_id)
        with self._lock:
            try:
                make_private_dir(self._trash)
                self._move(conversation_id, source, target)
            except LockedError as error:
                raise StoreError(
                    "This chat is open in another tui-chat; close it there to delete it."
                ) from error
            except FileNotFoundError as error:
                raise StoreError("There is no such chat to delete.") from error
            except OSError as error:
                raise StoreError(
                    f"The chat could not be deleted because {reason_of(error)}."
                ) from error

    def restore(self, conversation_id: str) -> None:
        """Bring a deleted conversation back.

        Raises:
            StoreError: it is not in the trash, or one of that id is in the list again.
        """
        source = self._path(self._trash, conversation_id)
        target = self._path(self._chats, conversation_id)
        with self._lock:
            if os.path.lexists(target):
                raise StoreError("This chat is in the list already; there is nothing to restore.")
            try:
                make_private_dir(self._chats)
                self._move(conversation_id, source, target)
            except FileNotFoundError as error:
                raise StoreError("This chat is not in the trash.") from error
            except OSError as error:
                raise StoreError(
                    f"The chat could not be restored because {reason_of(error)}."
                ) from error

    def is_deleted(self, conversation_id: str) -> bool:
        """Whether a conversation is in the trash."""
        return self._path(self._trash, conversation_id).exists()

    def search(self, text: str, limit: int = 50) -> list[tuple[ConversationSummary, str]]:
        """Conversations that hold `text` in the title or a message, last used first.

        Upper and lower case count as equal. The second value is the text around the first
        match, empty when only the title matched.
        """
        wanted = text.lower()
        if not wanted.strip():
            return []
        hits: list[tuple[ConversationSummary, str]] = []
        for path, summary in self._newest_first():
            snippet = _find(path, wanted)
            if snippet is None and wanted in summary.title.lower():
                snippet = ""
            if snippet is not None:
                hits.append((summary, snippet))
            if len(hits) >= limit:
                break
        return hits

    def _path(self, folder: Path, conversation_id: str) -> Path:
        if not _ID.fullmatch(conversation_id):  # it may come from a command line
            raise StoreError("There is no such chat; an id looks like 20260131-120000-1a2b3c4d.")
        return folder / (conversation_id + _SUFFIX)

    def _find_open(self, conversation_id: str) -> ConversationLog | None:
        return next((o for o in self._open if o.id == conversation_id and not o.read_only), None)

    def _move(self, conversation_id: str, source: Path, target: Path) -> None:
        log = self._find_open(conversation_id)
        if log is None or not log.move(target):
            file = AppendLog(source)  # locked: nobody is writing it
            try:
                move_file(source, target)
            finally:
                file.close()
        for folder in (source.parent, target.parent):
            with contextlib.suppress(OSError):
                sync_dir(folder)

    def _newest_first(self) -> list[tuple[Path, ConversationSummary]]:
        found = []
        for path, stamp in self._files():
            known = self._known.get(path)
            if known is None or known[0] != stamp:
                try:
                    known = (stamp, summarize(path))
                except OSError as error:
                    _logger.warning("%s is left out of the list: %s", path, error)
                    continue
                self._known[path] = known
            if known[1] is not None:
                found.append((known[1].updated_at, stamp, path, known[1]))
        found.sort(key=lambda item: item[:3], reverse=True)
        return [(path, summary) for _, _, path, summary in found]

    def _files(self) -> Iterator[tuple[Path, tuple[int, ...]]]:
        """The files with our names, each with what changes when its content does."""
        try:
            entries = list(os.scandir(self._chats))
        except FileNotFoundError:
            return
        except OSError as error:
            _logger.warning("the list of conversations cannot be read: %s", error)
            return
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix == _SUFFIX and _ID.fullmatch(stem):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    yield Path(entry.path), (status.st_mtime_ns, status.st_size, status.st_ino)


def _open_file(path: Path) -> tuple[AppendLog | None, bytes, str]:
    """The file to write, or None with the reason why it can only be read; and its content."""
    try:
        file = AppendLog(path)
    except LockedError:
        reason = _IN_USE
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"This chat can be read, not continued, because {reason_of(error)}."
    else:
        return file, file.read(), ""
    with open_regular_file(path) as readable:
        return None, readable.read(), reason


def _find(path: Path, wanted: str) -> str | None:
    """The text around the first match in a message, or None."""
    try:
        with open_regular_file(path) as file:
            data = file.read()
    except OSError:
        return None
    plain = wanted.isascii() and wanted.isprintable() and not set('"\\') & set(wanted)
    if plain and wanted.encode() not in data.lower():
        return None  # such text stands in the file as it is, so parsing would be in vain
    tree = MessageTree(Conversation(path.stem, created_at_of(path.stem)))
    tree.load(data)
    for message in tree.messages.values():
        if (position := message.content.lower().find(wanted)) >= 0:
            return _snippet(message.content, position)
    return None


def _snippet(text: str, position: int) -> str:
    start = max(0, position - _SNIPPET // 2)
    end = start + _SNIPPET
    words = " ".join(text[start:end].split())
    return ("…" if start else "") + words + ("…" if end < len(text) else "")
