"""One conversation that is being written: every change goes to its file before it counts."""

import contextlib
import errno
import logging
import os
import secrets
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from tui_chat.files import AppendLog, make_private_dir, move_file
from tui_chat.store.loading import LoadedPart
from tui_chat.store.records import (
    Record,
    encode,
    flags_record,
    header_record,
    message_record,
    settings_record,
    title_record,
)
from tui_chat.store.tail import Tail
from tui_chat.store.tree import MessageTree
from tui_chat.types import NO_SETTINGS, ChatSettings, Conversation, Message, TitleSource

_logger = logging.getLogger(__name__)
NEWER = "This chat was written by a newer tui-chat; update tui-chat to continue it."
_CLOSED = "This chat is closed; open it again to continue it."
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EFBIG: "the file may not grow any further",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "its folder or file may not be written",
    errno.EPERM: "its folder or file may not be written",
    errno.EIO: "the disk reports an error",
}


class StoreError(Exception):
    """The disk said no; `str()` is one sentence that a user can act on."""


def reason_of(error: OSError) -> str:
    """Why the disk said no, as the end of a sentence."""
    return _REASONS.get(error.errno or 0, error.strerror or type(error).__name__)


def new_id() -> str:
    """A fresh conversation id: the UTC time for the reader, eight hex digits for uniqueness."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


class ConversationLog:
    """An open conversation. Any thread may read it; one lock orders the writers.

    Of a long one only the end is loaded, until more is asked for or needed.

    What the disk refuses stays in memory, is counted in `pending` and is tried again before the
    next record and on `close`.
    """

    def __init__(
        self,
        tree: MessageTree,
        *,
        path: Path | None,
        file: AppendLog | None = None,
        tail: Tail | None = None,
        start: int = 0,
        read_only_reason: str = "",
    ) -> None:
        """A log of `tree` in `path`: the open `file`, or one that the first message creates.

        `tail` loads the rest of a `TailTree` that begins at `start` of the file. Without a path
        the conversation lives in memory alone.
        """
        self._lock = threading.RLock()
        self._loaded = LoadedPart(tree, tail, start, self._lock)
        self._path = path
        self._file = file
        self._read_only_reason = read_only_reason
        self._pending: list[tuple[tuple[Record, ...], bool]] = []
        self._users = 1

    @property
    def _tree(self) -> MessageTree:
        return self._loaded.tree

    @property
    def id(self) -> str:
        """Id of the conversation; it changes only where a foreign file has taken its name."""
        return self._tree.header.id

    @property
    def conversation(self) -> Conversation:
        """The header and the messages of the open branch, root to head.

        Where it `has_earlier`, these are the last ones, as far as they are loaded.
        """
        with self._lock:
            return self._tree.conversation

    @property
    def read_only(self) -> bool:
        """Whether every change raises `StoreError` with `read_only_reason`."""
        return bool(self._read_only_reason)

    @property
    def read_only_reason(self) -> str:
        """One sentence, empty when the conversation can be written."""
        return self._read_only_reason

    @property
    def damaged(self) -> int:
        """Records that could not be read and were skipped, in what is loaded of the file."""
        return self._tree.damaged

    @property
    def pending(self) -> int:
        """Records the disk refused, kept in memory for a retry."""
        return len(self._pending)

    def save_pending(self) -> None:
        """Try again to write what the disk refused.

        Raises:
            StoreError: it refuses still.
        """
        with self._lock:
            self._flush()

    def rescue(self) -> Path:
        """Write all of it to a file in the folder for temporary files, and leave it there.

        Raises:
            OSError: that is refused as well.
            StoreError: the earlier messages cannot be read.
        """
        self.load_all()
        with self._lock:
            data = b"".join(map(encode, self._tree.records()))
        descriptor, name = tempfile.mkstemp(prefix="tui-chat-", suffix=".jsonl")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError:
            os.unlink(name)
            raise
        return Path(name)

    def check(self) -> bool:
        """Look over what was loaded at a first glance; True where that was not right.

        Every change below does so first. A long conversation may turn out to have another title
        or system prompt, not to be writable, or to end otherwise. Takes as long as reading its
        file, once, and so is not for a thread that paints.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._reading():
            was_wrong = self._loaded.check()
        with self._lock:
            if self._tree.is_newer and not self._read_only_reason:
                self._read_only_reason = NEWER
                if self._file is not None:
                    self._file.close()
                    self._file = None
        return was_wrong

    def load_earlier(self) -> bool:
        """Load more of the open branch; False when all of it is there, or the log is closed.

        Takes as long as parsing what is loaded already, so not on a thread that paints; the
        others can go on reading and writing meanwhile.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._reading():
            return self._loaded.load_earlier()

    def load_all(self) -> None:
        """Load all of it, as `load_earlier` loads a part.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._reading():
            self._loaded.load_all()

    def load_message(self, message_id: str) -> None:
        """Load so much that a message is there, if it is in the file.

        Raises:
            StoreError: the file cannot be read.
        """
        with self._reading():
            self._loaded.settle(message_id)

    def append(self, message: Message) -> None:
        """Store a finished message as the new head; its `parent_id` says what it follows.

        Like every change below, it holds in memory even when it raises `StoreError` for a
        fault of the disk; a read-only log changes nothing.
        """
        self._change_message(message_record("msg", message), durable=True)

    def begin(self, message: Message) -> None:
        """Store that a reply is in progress; without `end` it reads back as interrupted."""
        self._change_message(message_record("begin", message))

    def save_partial(self, message_id: str, text_so_far: str, reasoning_so_far: str = "") -> None:
        """Store how far a reply has come; only what is new since the last call is written.

        Raises:
            KeyError: no such reply was begun.
            StoreError: it is not on disk; the next call will write this part as well.
        """
        self.load_message(message_id)
        with self._lock:
            self._require_writable()
            record = self._tree.part_record(message_id, text_so_far, reasoning_so_far)
            if record is None:
                return
            self._flush()
            self._write(record, durable=False)
            self._loaded.apply(record)

    def end(self, message: Message) -> None:
        """Store the finished reply: complete, interrupted or failed."""
        self._change_message(message_record("end", message), durable=True)

    def rename(self, title: str) -> None:
        """Give the conversation the title that the user chose."""
        self.check()
        self._change(title_record(title, "user"), durable=True)

    def suggest_title(self, title: str, by: TitleSource) -> bool:
        """Give it a title that nobody chose; False where the user has chosen one.

        Raises:
            StoreError: as for every change.
        """
        self.check()
        with self._lock:
            header = self._tree.header
            if header.title and header.title_by == "user":
                return False
            self._change(title_record(title, by), durable=True)
            return True

    def flag(self, *, pinned: bool | None = None, archived: bool | None = None) -> None:
        """Pin or archive the conversation, or take that back; None leaves it as it is."""
        self.check()
        with self._lock:
            header = self._tree.header
            record = flags_record(
                pinned=header.pinned if pinned is None else pinned,
                archived=header.archived if archived is None else archived,
            )
            self._change(record, durable=True)

    def set_system_prompt(self, text: str) -> None:
        """Change the system prompt of the conversation."""
        self.check()
        self._change({"t": "system", "system_prompt": text}, durable=True)

    def set_settings(self, settings: ChatSettings, system_prompt: str | None = None) -> None:
        """Change what the conversation sets for itself, and with it the system prompt if given."""
        self.check()
        records = [settings_record(settings)]
        if system_prompt is not None and system_prompt != self.conversation.system_prompt:
            records.append({"t": "system", "system_prompt": system_prompt})
        self._change(*records, durable=True)

    def select(self, message_id: str) -> None:
        """Open the branch that ends with this message.

        Raises:
            KeyError: there is no such message.
        """
        self.check()
        self.load_message(message_id)
        with self._lock:
            if message_id not in self._tree.messages:
                raise KeyError(message_id)
            self._change({"t": "head", "id": message_id})

    def end_of_branch(self, message_id: str) -> str:
        """The message that the branch through this one ended with when it was last open.

        Raises:
            KeyError: there is no such message.
        """
        self.load_message(message_id)
        with self._lock:
            return self._tree.end_of_branch(message_id)

    def exclude(self, message_id: str, excluded: bool) -> None:
        """Leave a message out of the context, or take it in again; its text stays.

        Raises:
            KeyError: there is no such message.
        """
        self.check()
        self.load_message(message_id)
        with self._lock:
            if message_id not in self._tree.messages:
                raise KeyError(message_id)
            self._change({"t": "exclude", "id": message_id, "excluded": excluded}, durable=True)

    def siblings(self, message_id: str) -> tuple[Message, ...]:
        """All messages with the same parent, itself included, oldest first.

        Raises:
            KeyError: there is no such message.
        """
        self.load_message(message_id)
        with self._lock:
            return self._tree.siblings(message_id)

    def close(self) -> None:
        """Write what is pending and let go of the file, once nobody here has it open.

        Raises:
            StoreError: something could not be saved; the file is closed nevertheless.
        """
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._read_only_reason == _CLOSED:
                return
            try:
                self._flush()
            finally:
                self._read_only_reason = _CLOSED
                self._loaded.close()
                if self._file is not None:
                    self._file.close()
                    self._file = None

    def share(self) -> bool:
        """Count one more user, each of whom closes it; False when it is closed already."""
        with self._lock:
            if self._read_only_reason == _CLOSED:
                return False
            self._users += 1
            return True

    def move(self, path: Path) -> bool:
        """Rename the file and follow it; False when this log does not hold it.

        Raises:
            OSError: it could not be renamed.
        """
        with self._lock:
            if self._file is None or self._path is None or not self._file.is_in_place():
                return False
            move_file(self._path, path)
            self._path = self._file.path = path
            return True

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self._path} cannot be read because {reason_of(error)}.") from error

    def _change_message(self, record: Record, *, durable: bool = False) -> None:
        """Apply and write the record of a message, whatever it follows is loaded before."""
        try:
            self.check()
            with self._reading():
                self._loaded.load_for(record)
        except StoreError as error:  # what is new is stored all the same
            _logger.warning("%s", error)
        self._change(record, durable=durable)

    def _change(self, *records: Record, durable: bool = False) -> None:
        """Apply records and write them together."""
        with self._lock:
            self._require_writable()
            for record in records:
                self._loaded.apply(record)
            starts_file = any(record["t"] in ("msg", "begin", "end") for record in records)
            if self._file is None and not self._pending and not starts_file:
                return  # the header will say it when there is a file
            self._pending.append((records, durable))
            self._flush()

    def _require_writable(self) -> None:
        if self._read_only_reason:
            raise StoreError(self._read_only_reason)

    def _flush(self) -> None:
        while self._pending:
            records, durable = self._pending[0]
            self._write(*records, durable=durable)
            del self._pending[0]

    def _write(self, *records: Record, durable: bool) -> None:
        """Records to the disk, all or none, with whatever has to stand before them there."""
        if self._path is None:
            return
        try:
            file = self._writable_file(self._path)
            data = b"".join(map(encode, records))
            if file.has_shrunk():
                self._loaded.load_rest()
                data = b"".join(map(encode, self._lost(file))) + data
            elif not self._tree.has_header:
                data = encode(header_record(self._tree.header)) + data
            file.append(data, durable=durable)
            self._tree.has_header = True
        except OSError as error:
            _logger.warning("conversation %s not saved: %s", self.id, error)
            raise StoreError(
                f"The chat is not saved because {reason_of(error)}; it is kept in memory and "
                "saved as soon as the disk allows."
            ) from error

    def _lost(self, file: AppendLog) -> Iterator[Record]:
        """The records that others took out of the file."""
        there = MessageTree(self._tree.header)
        there.load(file.read())
        return self._tree.records_behind(there)

    def _writable_file(self, path: Path) -> AppendLog:
        """The file under its name: made now, or made again where somebody took it away."""
        if self._file is not None and self._file.is_in_place():
            return self._file
        content = b"" if self._file is None else self._file.read()
        make_private_dir(path.parent)
        while os.path.lexists(path):
            path = path.with_name(f"{new_id()}.jsonl")
        file = AppendLog(path, create=True)
        try:
            if content:
                file.append(content, durable=True)
        except OSError:
            file.close()
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        if self._file is not None:
            self._file.close()
            _logger.warning("the file of %s was taken away; it goes on in %s", self.id, path)
        self._tree.header = replace(self._tree.header, id=path.stem)
        self._path, self._file = path, file
        return file


class MemoryLog(ConversationLog):
    """The same without a file, for one-shot use."""

    def __init__(
        self,
        *,
        title: str = "",
        model: str = "",
        tokenizer_id: str = "",
        system_prompt: str = "",
        settings: ChatSettings = NO_SETTINGS,
    ) -> None:
        header = Conversation(
            id=new_id(),
            created_at=datetime.now(UTC),
            title=title,
            model=model,
            tokenizer_id=tokenizer_id,
            system_prompt=system_prompt,
            settings=settings,
        )
        super().__init__(MessageTree(header), path=None)
