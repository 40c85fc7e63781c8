"""The folder of conversations: list, create, open, search, delete and restore."""

import contextlib
import errno
import os
import threading
import weakref
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tui_chat.files import (
    AppendLog,
    LockedError,
    cache_dir,
    make_private_dir,
    move_file,
    open_descriptor,
    open_regular_file,
    sync_dir,
)
from tui_chat.store.index import ConversationIndex
from tui_chat.store.log import (
    NEWER,
    ConversationLog,
    MemoryLog,
    StoreError,
    new_id,
    reason_of,
)
from tui_chat.store.records import encode
from tui_chat.store.summaries import created_at_of, is_conversation_id
from tui_chat.store.tail import Tail
from tui_chat.store.tree import MessageTree
from tui_chat.types import (
    NO_SETTINGS,
    ChatHits,
    ChatSettings,
    Conversation,
    ConversationSummary,
    FoundText,
    Message,
    SearchHit,
    TitleSource,
)

__all__ = ["ConversationLog", "ConversationStore", "MemoryLog", "StoreError"]

_SUFFIX = ".jsonl"
FEWEST = 12
"""So many messages are loaded at least, where there are."""
_IN_USE = "This chat is open in another tui-chat; here it can be read, not continued."


class ConversationStore:
    """The conversations in `folder`/chats, and the deleted ones in `folder`/trash.

    What is listed and found comes from an index in `cache` (default: the user's cache folder).
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self._chats = folder / "chats"
        self._trash = folder / "trash"
        self._lock = threading.RLock()
        self._open: weakref.WeakSet[ConversationLog] = weakref.WeakSet()
        self._deleted: list[str] = []
        self._index = ConversationIndex(self._chats, cache or cache_dir())

    def summaries(
        self,
        limit: int | None = None,
        *,
        pinned: bool | None = None,
        archived: bool | None = None,
        fresh: bool = True,
    ) -> list[ConversationSummary]:
        """The stored conversations, last used first; files that are not ours are left out.

        A conversation without a title shows the first words of its first prompt. `pinned` and
        `archived` take only those that are, or only those that are not. With `fresh=False` the
        folder is not looked at again: that takes the same time however many there are.
        """
        return self._index.summaries(limit, fresh=fresh, pinned=pinned, archived=archived)

    def totals(self, *, fresh: bool = True) -> tuple[int, int]:
        """How many conversations are stored, and the bytes of their files."""
        return self._index.totals(fresh=fresh)

    @property
    def folder(self) -> Path:
        """Where the files of the conversations are."""
        return self._chats

    def create(
        self,
        *,
        title: str = "",
        title_by: TitleSource = "user",
        model: str = "",
        tokenizer_id: str = "",
        system_prompt: str = "",
        settings: ChatSettings = NO_SETTINGS,
    ) -> ConversationLog:
        """A new conversation; its file appears with the first message."""
        header = Conversation(
            id=new_id(),
            created_at=datetime.now(UTC),
            title=title,
            model=model,
            tokenizer_id=tokenizer_id,
            system_prompt=system_prompt,
            title_by=title_by,
            settings=settings,
        )
        log = ConversationLog(MessageTree(header), path=self._path(self._chats, header.id))
        with self._lock:
            self._open.add(log)
        return log

    def open(self, conversation_id: str) -> ConversationLog:
        """Load a conversation; read-only where another process writes it or a newer version did.

        Of a long one only the end is loaded, at a first glance: see `ConversationLog.check`. One
        that is open here already is returned again; every `open` needs its own `close`.

        Raises:
            StoreError: there is no such conversation, or it cannot be read.
        """
        path = self._path(self._chats, conversation_id)
        with self._lock:
            shared = self._find_open(conversation_id)
            if shared is not None and shared.share():
                return shared
            header = Conversation(conversation_id, created_at_of(conversation_id))
            try:
                file, tail, reason = _open_file(path, header)
                tree, start, _ = tail.glance(lambda tree: len(tree.conversation.messages) >= FEWEST)
            except FileNotFoundError as error:
                raise StoreError("There is no such chat; it may have been deleted.") from error
            except OSError as error:
                raise StoreError(f"{path} cannot be read because {reason_of(error)}.") from error
            if tree.is_newer and file is not None:
                file.close()
                file = None
            if tree.is_newer:
                reason = NEWER
            log = ConversationLog(
                tree, path=path, file=file, tail=tail, start=start, read_only_reason=reason
            )
            self._open.add(log)
            return log

    def find(self, start: str) -> str:
        """The id that begins with `start`.

        Raises:
            StoreError: no id does, or more than one.
        """
        if is_conversation_id(start):
            return start
        ids = [summary.id for summary in self.summaries() if summary.id.startswith(start)]
        if len(ids) != 1 or not start:
            count = "More than one chat begins" if ids else "No chat begins"
            raise StoreError(f'{count} with "{start}"; tui-chat list shows their ids.')
        return ids[0]

    def read(self, conversation_id: str) -> MessageTree:
        """A conversation with all its branches, without opening it: another may write it.

        Raises:
            StoreError: there is no such conversation, or it cannot be read.
        """
        path = self._path(self._chats, conversation_id)
        tree = MessageTree(Conversation(conversation_id, created_at_of(conversation_id)))
        try:
            with open_regular_file(path) as file:
                tree.load(file.read())
        except FileNotFoundError as error:
            raise StoreError("There is no such chat; it may have been deleted.") from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read because {reason_of(error)}.") from error
        return tree

    def add(self, tree: MessageTree) -> str:
        """Store a conversation that comes from elsewhere, under a new id, which is returned.

        Raises:
            StoreError: the disk refused it; nothing of it is stored.
        """
        while (path := self._path(self._chats, new_id())).exists():
            pass
        tree.header = replace(tree.header, id=path.stem)
        partial = path.with_suffix(".partial")
        try:
            make_private_dir(self._chats)
            file = AppendLog(partial, create=True)
            try:
                file.append(b"".join(map(encode, tree.records())), durable=True)
                os.rename(partial, path)
            except OSError:
                partial.unlink()
                raise
            finally:
                file.close()
            sync_dir(self._chats)
        except OSError as error:
            raise StoreError(f"The chat is not stored because {reason_of(error)}.") from error
        return path.stem

    @property
    def last_deleted(self) -> str | None:
        """Id of what was deleted last by this process and is in the trash still, if anything."""
        with self._lock:
            return next((id_ for id_ in reversed(self._deleted) if self.is_deleted(id_)), None)

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
                self._deleted.append(conversation_id)
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
                self._deleted = [id_ for id_ in self._deleted if id_ != conversation_id]
            except FileNotFoundError as error:
                raise StoreError("This chat is not in the trash.") from error
            except OSError as error:
                raise StoreError(
                    f"The chat could not be restored because {reason_of(error)}."
                ) from error

    def is_deleted(self, conversation_id: str) -> bool:
        """Whether a conversation is in the trash."""
        return self._path(self._trash, conversation_id).exists()

    def search(
        self, text: str, limit: int = 50, *, each: int = 1, fresh: bool = True
    ) -> list[SearchHit]:
        """Messages and titles that hold all words of `text`, last written first.

        A word may stand anywhere, also inside another one; upper and lower case count as equal,
        and every sign is meant as it stands. At most `each` hits come of one conversation.
        With `fresh=False` what was found in the files by the call before is good enough: a
        search as you type is `fresh` once.
        """
        return self._index.search(text, limit, each=each, fresh=fresh)

    def search_chats(
        self, text: str, limit: int = 200, *, archived: bool = True, fresh: bool = True
    ) -> list[ChatHits]:
        """The conversations in which `search` finds something, with the number of their hits.

        Without `archived` those that are archived come last, and without their hits.
        """
        return self._index.search_chats(text, limit, archived=archived, fresh=fresh)

    def found_texts(self, conversation_id: str, text: str, limit: int = 20) -> list[FoundText]:
        """The messages of one conversation that the last `search` finds, in their order."""
        return self._index.found_texts(conversation_id, text, limit)

    def last_messages(self, conversation_id: str, count: int) -> tuple[Message, ...]:
        """The last messages of the open branch; of a long file only its end is loaded.

        Raises:
            StoreError: there is no such conversation, or it cannot be read.
        """
        path = self._path(self._chats, conversation_id)
        header = Conversation(conversation_id, created_at_of(conversation_id))
        try:
            tail = Tail(open_descriptor(path), header)
            tree = tail.glance(lambda tree: len(tree.conversation.messages) >= count).tree
        except FileNotFoundError as error:
            raise StoreError("There is no such chat; it may have been deleted.") from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read because {reason_of(error)}.") from error
        return tree.conversation.messages[-count:]

    def _path(self, folder: Path, conversation_id: str) -> Path:
        if not is_conversation_id(conversation_id):  # it may come from a command line
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


def _open_file(path: Path, header: Conversation) -> tuple[AppendLog | None, Tail, str]:
    """The file to write, or None with the reason why it can only be read; and what loads it.

    Raises:
        OSError: it cannot be read.
    """
    file, reason = None, ""
    try:
        file = AppendLog(path)
    except LockedError:
        reason = _IN_USE
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = f"This chat can be read, not continued, because {reason_of(error)}."
    try:
        # A descriptor of its own: what reads the file must not hold the lock on it.
        tail = Tail(open_descriptor(path), header)
        if file is not None and not tail.reads(file):
            raise OSError(errno.ESTALE, "it was replaced at this moment; try again")
    except BaseException:
        if file is not None:
            file.close()
        raise
    return file, tail, reason
