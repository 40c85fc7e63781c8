"""The index of the conversations: an SQLite file in the cache folder that can go at any time.

It holds what the list shows and the texts for the search. The tokenizer is FTS5's trigram one,
because people look for parts of words, for code, and in languages without spaces; only the
trigrams are indexed, without their places, and every hit is compared with the text itself.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tui_chat.files import make_private_dir, open_descriptor, open_regular_file
from tui_chat.store.hits import (
    as_number,
    as_text,
    as_time,
    chat_hits,
    found_texts,
    packed,
    search_hits,
)
from tui_chat.store.search import fold, words_of
from tui_chat.store.summaries import created_at_of, is_conversation_id, summarize, summary_of
from tui_chat.store.tree import MessageTree
from tui_chat.types import (
    ChatHits,
    Conversation,
    ConversationSummary,
    FoundText,
    Role,
    SearchHit,
)

_VERSION = 2
_BATCH = 400
"""Files that are read in one transaction, so that other processes never wait for long."""
_BUSY_SECONDS = 10.0
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SUFFIX = ".jsonl"
_EPOCH = datetime.fromtimestamp(0, UTC)
_SCHEMA = """
CREATE TABLE conversation(
    key INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, mtime INTEGER, size INTEGER, inode INTEGER,
    title, created INTEGER, updated INTEGER, model, count INTEGER, pinned INTEGER,
    archived INTEGER, has_texts INTEGER);
CREATE INDEX newest ON conversation(updated, mtime, id) WHERE count > 0;
CREATE TABLE message(
    number INTEGER PRIMARY KEY, conversation INTEGER, id, role TEXT, created INTEGER, text,
    folded TEXT);
CREATE INDEX of_conversation ON message(conversation);
"""
_TRIGRAMS = """
CREATE VIRTUAL TABLE trigram
    USING fts5(folded, content='', detail=none, tokenize='trigram case_sensitive 1');
"""
_Result = TypeVar("_Result")
_logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
"""What changes when a file does: time in ns, size, inode."""


class ConversationIndex:
    """The index of one folder of conversations. Any thread may use it; a lock orders them.

    What cannot be written (a read-only cache folder, a full disk) is kept in memory instead.
    """

    def __init__(self, chats: Path, cache: Path) -> None:
        """The index of the files in `chats`, in a file of its own in `cache`."""
        self._chats = chats
        name = hashlib.sha256(os.fsencode(os.path.abspath(chats))).hexdigest()[:16]
        self._path: Path | None = cache / f"index-{_VERSION}-{name}.sqlite3"
        self._older = [cache / f"index-{old}-{name}.sqlite3" for old in range(1, _VERSION)]
        """What earlier versions made of this folder."""
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self._has_trigrams = True
        self._has_list = False
        self._has_texts = False
        """Whether this folder was gone through since the file was opened."""

    def summaries(
        self,
        limit: int | None,
        *,
        fresh: bool,
        pinned: bool | None = None,
        archived: bool | None = None,
    ) -> list[ConversationSummary]:
        """The conversations, last used first; what changed is read before if `fresh`."""

        def action(database: sqlite3.Connection) -> list[ConversationSummary]:
            if fresh or not self._has_list:
                self._refresh(database, texts=False)
            return _summaries(database, limit, pinned, archived)

        return self._run(action)

    def totals(self, *, fresh: bool) -> tuple[int, int]:
        """How many conversations there are, and the bytes of their files."""

        def action(database: sqlite3.Connection) -> tuple[int, int]:
            if fresh or not self._has_list:
                self._refresh(database, texts=False)
            count, size = database.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM conversation WHERE count > 0"
            ).fetchone()
            return count, size

        return self._run(action)

    def search(self, query: str, limit: int, *, each: int, fresh: bool) -> list[SearchHit]:
        """Up to `limit` hits, `each` in a conversation, last written first."""
        words = words_of(query)

        def action(database: sqlite3.Connection) -> list[SearchHit]:
            if fresh or not self._has_texts:
                self._refresh(database, texts=True)
            return search_hits(database, words, limit, each, trigrams=self._has_trigrams)

        return self._run(action) if words else []

    def search_chats(
        self, query: str, limit: int, *, archived: bool, fresh: bool
    ) -> list[ChatHits]:
        """Up to `limit` conversations with hits, the one with the last written hit first."""
        words = words_of(query)

        def action(database: sqlite3.Connection) -> list[ChatHits]:
            if fresh or not self._has_texts:
                self._refresh(database, texts=True)
            trigrams = self._has_trigrams
            return chat_hits(database, words, limit, archived=archived, trigrams=trigrams)

        return self._run(action) if words else []

    def found_texts(self, conversation_id: str, query: str, limit: int) -> list[FoundText]:
        """The texts of one conversation that a search finds, as far as they are indexed."""
        words = words_of(query)
        return self._run(lambda database: found_texts(database, conversation_id, words, limit))

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    # ---- the file ----

    def _run(self, action: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Do `action`: with the file, else with a new file, else in memory."""
        with self._lock:
            made_anew = False
            while True:
                try:
                    return action(self._open())
                except (sqlite3.Error, OSError, TypeError, ValueError, OverflowError) as error:
                    # The last three: a damaged file may hold any value in any place.
                    if self._path is None:
                        raise
                    # Not its message: that may repeat what is in the file.
                    kind = getattr(error, "sqlite_errorname", None) or type(error).__name__
                    _logger.warning("the index %s cannot be used: %s", self._path, kind)
                    self.close()
                    if made_anew or not self._remove(error):
                        self._path = None
                    made_anew = True

    def _remove(self, error: Exception) -> bool:
        """Whether a damaged file is gone; one that is merely in use stays."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if self._path is None or code in _BUSY:
            return False
        try:
            for suffix in ("", "-journal"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _open(self) -> sqlite3.Connection:
        if self._database is not None and self._is_in_place():
            return self._database
        self.close()
        if self._path is not None:
            make_private_dir(self._path.parent)
            for older in self._older:
                older.unlink(missing_ok=True)
            descriptor = open_descriptor(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
            os.fchmod(descriptor, 0o600)
            self._inode = os.fstat(descriptor).st_ino
            os.close(descriptor)
        database = sqlite3.connect(
            self._path or ":memory:",
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            # No write-ahead log: it needs shared memory, which network file systems lack.
            for pragma in ("synchronous=OFF", "secure_delete=ON", "trusted_schema=OFF"):
                database.execute(f"PRAGMA {pragma}")
            self._has_trigrams = _prepare(database)
        except BaseException:
            database.close()
            raise
        self._database = database
        weakref.finalize(self, database.close)
        self._has_list = self._has_texts = False
        return database

    def _is_in_place(self) -> bool:
        if self._path is None:
            return True
        try:
            return os.stat(self._path, follow_symlinks=False).st_ino == self._inode
        except OSError:
            return False

    # ---- bringing it up to date ----

    def _refresh(self, database: sqlite3.Connection, texts: bool) -> None:
        files = dict(self._files())
        known = {
            id_: (stamp, bool(has_texts))
            for id_, *stamp, has_texts in database.execute(
                "SELECT id, mtime, size, inode, has_texts FROM conversation"
            )
        }
        gone = [id_ for id_ in known if id_ not in files]
        changed = [
            id_
            for id_, stamp in files.items()
            if id_ not in known or known[id_][0] != list(stamp) or (texts and not known[id_][1])
        ]
        changed.sort(key=lambda id_: files[id_])  # the last used one is numbered last
        for start in range(0, len(gone), _BATCH):
            with _transaction(database):
                for id_ in gone[start : start + _BATCH]:
                    self._forget(database, id_)
        for start in range(0, len(changed), _BATCH):
            with _transaction(database):
                for id_ in changed[start : start + _BATCH]:
                    self._take(database, id_, files[id_], texts)
        self._has_list = True
        self._has_texts = self._has_texts or texts

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        """The ids of the files with our names, each with its stamp."""
        try:
            entries = list(os.scandir(self._chats))
        except FileNotFoundError:
            return
        except OSError as error:
            _logger.warning("the list of conversations cannot be read: %s", error)
            return
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix == _SUFFIX and is_conversation_id(stem):
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    yield stem, (status.st_mtime_ns, status.st_size, status.st_ino)

    def _take(self, database: sqlite3.Connection, id_: str, stamp: Stamp, texts: bool) -> None:
        """Read one file; another process may have done it since we looked."""
        row = database.execute(
            "SELECT key, mtime, size, inode, has_texts FROM conversation WHERE id = ?", (id_,)
        ).fetchone()
        if row and row[1:4] == stamp and (row[4] or not texts):
            return
        path = self._chats / (id_ + _SUFFIX)
        tree = None
        try:
            if texts:
                tree = MessageTree(Conversation(id_, created_at_of(id_)))
                with open_regular_file(path) as file:
                    tree.load(file.read())
                summary = summary_of(tree)
            else:
                summary = summarize(path)
        except OSError as error:
            _logger.warning("%s is left out of the list: %s", path, error)
            return
        # A file without a message is remembered too, so that it is not read again.
        shown = summary or ConversationSummary(id_, "", _EPOCH, _EPOCH, "", 0)
        values = {
            "id": id_,
            **dict(zip(("mtime", "size", "inode"), stamp, strict=True)),
            "title": packed(shown.title),
            "created": as_number(shown.created_at),
            "updated": as_number(shown.updated_at),
            "model": packed(shown.model),
            "count": shown.message_count,
            "pinned": int(shown.pinned),
            "archived": int(shown.archived),
            "has_texts": int(texts),
        }
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        updates = ", ".join(f"{name} = :{name}" for name in values)
        (key,) = database.execute(
            f"INSERT INTO conversation({names}) VALUES({places}) "
            f"ON CONFLICT(id) DO UPDATE SET {updates} RETURNING key",
            values,
        ).fetchone()
        if tree is not None:
            self._take_texts(database, key, _texts_of(tree, shown))

    def _take_texts(
        self, database: sqlite3.Connection, key: int, texts: dict[str, tuple[str, int, str]]
    ) -> None:
        """Write what is new and remove what is gone; what did not change keeps its number."""
        left = dict(texts)
        for number, id_, role, text in database.execute(
            "SELECT number, id, role, text FROM message WHERE conversation = ?", (key,)
        ).fetchall():
            now = left.get(as_text(id_))
            if now is not None and (now[0], now[2]) == (role, as_text(text)):
                del left[as_text(id_)]
            else:
                self._remove_text(database, number)
        for id_, (role, created, text) in left.items():
            folded = fold(text)
            (number,) = database.execute(
                "INSERT INTO message(number, conversation, id, role, created, text, folded) "
                "VALUES((SELECT coalesce(max(number), 0) + 1 FROM message), ?, ?, ?, ?, ?, ?) "
                "RETURNING number",
                (
                    key,
                    packed(id_),
                    role,
                    created,
                    packed(text),
                    None if folded == text else folded,
                ),
            ).fetchone()
            if self._has_trigrams:
                database.execute(
                    "INSERT INTO trigram(rowid, folded) VALUES(?, ?)", (number, folded)
                )

    def _remove_text(self, database: sqlite3.Connection, number: int) -> None:
        if self._has_trigrams:
            database.execute(
                "INSERT INTO trigram(trigram, rowid, folded) "
                "SELECT 'delete', number, coalesce(folded, text) FROM message WHERE number = ?",
                (number,),
            )
        database.execute("DELETE FROM message WHERE number = ?", (number,))

    def _forget(self, database: sqlite3.Connection, id_: str) -> None:
        row = database.execute("SELECT key FROM conversation WHERE id = ?", (id_,)).fetchone()
        if row is not None:
            self._take_texts(database, row[0], {})
            database.execute("DELETE FROM conversation WHERE key = ?", row)


def _summaries(
    database: sqlite3.Connection, limit: int | None, pinned: bool | None, archived: bool | None
) -> list[ConversationSummary]:
    conditions = ["count > 0"]
    for name, wanted in (("pinned", pinned), ("archived", archived)):
        if wanted is not None:
            conditions.append(f"{name} = {int(wanted)}")
    rows = database.execute(
        "SELECT id, title, created, updated, model, count, pinned, archived FROM conversation "
        f"WHERE {' AND '.join(conditions)} ORDER BY updated DESC, mtime DESC, id DESC LIMIT ?",
        (-1 if limit is None else limit,),
    )
    return [
        ConversationSummary(
            id_,
            as_text(title),
            as_time(created),
            as_time(updated),
            as_text(model),
            count,
            bool(pin),
            bool(archive),
        )
        for id_, title, created, updated, model, count, pin, archive in rows
    ]


def _prepare(database: sqlite3.Connection) -> bool:
    """Make the tables in a new file; whether this SQLite can index trigrams."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        with _transaction(database):
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:  # another process has not made them meanwhile
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                # Built without FTS5, or older than 3.34: then the texts are gone through.
                with contextlib.suppress(sqlite3.OperationalError):
                    database.execute(_TRIGRAMS)
                database.execute(f"PRAGMA user_version = {_VERSION}")
    tables = database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'trigram'")
    return bool(tables.fetchone()[0])


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _texts_of(tree: MessageTree, summary: ConversationSummary) -> dict[str, tuple[str, int, str]]:
    """Role, time and text by message id; under the empty id the title, where it says more."""
    texts = {
        m.id: (m.role.value, as_number(m.created_at), m.content) for m in tree.messages.values()
    }
    prompt = next((m.content for m in tree.messages.values() if m.role is Role.USER), "")
    title = fold(" ".join(tree.header.title.removesuffix("…").split()))
    if title and title not in fold(" ".join(prompt.split())):
        texts[""] = ("", as_number(summary.updated_at), tree.header.title)
    return texts
