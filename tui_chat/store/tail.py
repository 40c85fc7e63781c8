"""The end of a conversation file, loaded without what stands before it.

A long conversation opens as fast as a short one because only the last lines of its file are
parsed, and more when it is asked for: twice as much each time, so that going up through all of
it costs about as much as loading it twice. What is not parsed is still looked through with a byte
search, because the end depends on some of it:

- records that are no messages (title, system prompt, whatever kinds there are) hold for the end;
- system messages inside the conversation, which are sent whatever else is dropped, and messages
  that are not as we write them make the end begin with them;
- where an id of the end stands there as well (a reply that was continued later, a line copied by
  hand), the end has to begin with that line.

Whatever only the lines before can tell raises `NeedsEarlier`, and the end grows. A message whose
parent is not in the end is never shown; it must be found before, or else the tree would give it
to a message of the end. All children of the others are there, since they stand behind their
parent. So for a file of any content the branch that is loaded is the end of the whole branch, and
its messages have the siblings that they have there.

The search reads the file at about a gigabyte in a second. A page is shown sooner than that: the
first glance takes the records that are no messages from the beginning of the file only, and is
looked over before anything is written or sent. It differs only where a file has more of them, or
where others have edited it.
"""

import contextlib
import errno
import json
import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

from tui_chat.files import AppendLog
from tui_chat.store.records import DamagedRecord, Record, decode, lines
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Message, Role

FIRST_BYTES = 32 * 1024
"""How much of a file is loaded at first; twice as much of it is loaded whole."""
_GLANCE = 64 * 1024
"""How much of the beginning of a file is read at the first glance."""
_BLOCK = 1 << 18
_WITH_ID = ("msg", "begin", "part", "end")
_STARTS = tuple(b'{"t":"%s","id":"' % kind.encode() for kind in _WITH_ID)
_SHORT = 16
"""Less than the shortest of these."""
_LINE = re.compile(
    rb'\n(?:\{"t":"head"|('
    rb'\{"t":"part","id":"[^"\\\n]*"'
    rb'|\{"t":"(?:msg|begin|end)","id":"[^"\\\n]*"'
    rb'(?=,"parent":(?:null|"[^"\\\n]*"),"role":"(?:user|assistant)")'
    rb"|[^\n]{1,16}))"
)
"""How we begin a line: head, or a kind of message with its id (the group); else its start."""
_MESSAGE = re.compile(rb'\n\{"t":"(?:msg|begin)","id":"')
_LONGEST = 20
"""As long as that can be."""
_NUMBERED = re.compile(r"-(?:[2-9]|[1-9][0-9]{1,5})\Z")
"""How an id ends that a tree gave to the second message of one id."""

_NOBODY = Conversation("", datetime.fromtimestamp(0, UTC))

Enough = Callable[["TailTree"], bool]


class NeedsEarlier(Exception):
    """The end of the file does not say what it means without the lines before it."""


class CutShort(OSError):
    """Others have taken away bytes of a file that were there when it was opened."""


class TailTree(MessageTree):
    """The tree of the last lines of a file. What they leave open is not in its conversation."""

    def __init__(self, header: Conversation) -> None:
        super().__init__(header)
        self._cut: set[str] = set()
        """The messages whose parent is not here: their siblings may not be, either."""
        self._absent: set[str] = set()
        """Those parents."""
        self.passed_over: list[Record] = []
        """What was said of messages that are not here."""

    @property
    def conversation(self) -> Conversation:
        """The header with the end of the open branch."""
        return replace(super().conversation, has_earlier=True)

    def is_settled(self, message_id: str) -> bool:
        """Whether a message is here with its parent, all its siblings and all below it."""
        return message_id in self.messages and message_id not in self._cut

    def parents_to_find(self) -> set[str]:
        """Ids that must be those of messages before the end, for it to be as it is here."""
        # The first message could only be given to one before the end, if its parent is nowhere.
        first = next(iter(self.messages.values()), None)
        return self._absent - {first.parent_id} if first is not None else set()

    def needs_earlier(self, record: Record) -> bool:
        """Whether a record to be written speaks of a message that is not settled here."""
        message_id = record.get("id")
        if not isinstance(message_id, str):
            return False
        is_new = record["t"] in ("msg", "begin", "end") and message_id not in self.messages
        if is_new:
            return record["parent"] not in self.messages or not self._is_plain(message_id)
        return record["t"] == "msg" or not self.is_settled(message_id)

    def apply(self, record: Record) -> None:
        """Take over one record; one that speaks of an earlier message is passed over.

        Raises:
            DamagedRecord: as for every tree.
            NeedsEarlier: it cannot be understood without the lines before; start over with them.
        """
        try:
            super().apply(record)
        except DamagedRecord:
            message_id, kind = record.get("id"), record["t"]
            if kind in (*_WITH_ID, "meta") or not isinstance(message_id, str):
                raise
            if message_id in self.messages:
                raise
            self.passed_over.append(record)
            if kind == "head":
                self.head, self._branch = None, None

    def _add(self, message: Message, *, replaces: bool = False) -> None:
        if not self._is_plain(message.id):
            raise NeedsEarlier
        super()._add(message, replaces=replaces)

    def _is_plain(self, message_id: str) -> bool:
        """Whether no message before the end can be meant by this id too."""
        return message_id not in self._absent and not _NUMBERED.search(message_id)

    def _parent_of(self, message: Message) -> str | None:
        parent = message.parent_id
        if parent is None or parent not in self.messages:
            if message.role is Role.SYSTEM:
                raise NeedsEarlier
            self._cut.add(message.id)
            if parent is not None:
                self._absent.add(parent)
        return parent

    def _free_id(self, message_id: str) -> str:
        raise NeedsEarlier

    def _path(self, message_id: str | None) -> Iterator[Message]:
        for message in super()._path(message_id):
            if message.id in self._cut:
                return
            yield message


class Loaded(NamedTuple):
    """What was loaded of a file: a `TailTree` unless it is all."""

    tree: MessageTree
    start: int
    """Of its first line."""
    length: int
    """What it took to be enough, in bytes."""


class Tail:
    """A file of which no more than the end is loaded.

    Only the bytes that were there at the start are read, whatever is written behind them.
    """

    def __init__(self, descriptor: int, header: Conversation) -> None:
        """Of the open file `descriptor`, which is closed with this object; nothing is loaded yet.

        `header` gives id and defaults, as for a tree.
        """
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        self._header = header
        self._size = os.fstat(descriptor).st_size

    def reads(self, file: AppendLog) -> bool:
        """Whether this is the file that is written there."""
        return file.is_file(self._descriptor)

    def glance(self, enough: Enough) -> Loaded:
        """The end as it almost certainly is, without a look at all that stands before it.

        Raises:
            OSError: the file cannot be read.
        """
        return self.load(enough, FIRST_BYTES, look=_GLANCE)

    def load(
        self,
        enough: Enough | None,
        length: int,
        since: Sequence[Record] = (),
        *,
        look: int | None = None,
    ) -> Loaded:
        """About the last `length` bytes of the file, or more: so much that it is `enough`, or all.

        The records `since` are applied behind it. Of what is before the end only the first `look`
        bytes are looked through, or all. Any thread; several may load at once.

        Raises:
            CutShort: the end is not there any more; `rest` takes what is left.
            OSError: the file cannot be read.
        """
        while enough is not None and 2 * length < self._size and self._is_ours():
            start = self._message_start(self._size - length)
            if start is not None and (tree := self._end(start, enough, since, look)) is not None:
                return Loaded(tree, start, length)
            length *= 2
        whole = MessageTree(self._header)
        whole.load(self._read(0, self._size))
        for record in since:
            whole.apply(record)
        return Loaded(whole, 0, self._size)

    def rest(self, end: TailTree, start: int) -> MessageTree:
        """`end`, from `start` on, with all that can still be read before it in a cut file."""
        whole = MessageTree(self._header)
        whole.load(self._read(0, start, short=True))
        for record in end.passed_over:
            with contextlib.suppress(DamagedRecord):
                whole.apply(record)
        for record in end.records():
            if record["t"] != "meta":
                whole.apply(record)
        whole.header, whole.has_header, whole.is_newer = end.header, end.has_header, end.is_newer
        whole.damaged += end.damaged
        return whole

    def _is_ours(self) -> bool:
        """Whether the file begins as we write it; others are not worth looking through."""
        return self._read(0, min(6, self._size)) == b'{"t":"'

    def _message_start(self, offset: int) -> int | None:
        """Where the first message behind `offset` begins; None when none does, as we write it.

        The lines before it belong to a reply that begins earlier.
        """
        before = b""
        while offset < self._size:
            block = before + self._read(offset, min(self._size, offset + _BLOCK))
            if match := _MESSAGE.search(block):
                return offset - len(before) + match.start() + 1
            offset += len(block) - len(before)
            before = block[-_LONGEST:]
        return None

    def _end(
        self, start: int, enough: Enough, since: Sequence[Record], look_at: int | None
    ) -> TailTree | None:
        """The tree from `start` on, or None where that is not enough or not to be understood."""
        records, damaged = [], 0
        for line in lines(self._read(start, self._size)):
            try:
                records.append(decode(line))
            except DamagedRecord:
                damaged += 1
        try:
            tree = self._tree_of(records, since)
            if not enough(tree):
                return None
            look = _Look(_ids([*records, *since]), tree.parents_to_find())
            for block, length in self._blocks(start, look_at or _BLOCK):
                look.through(block, length)
                if look_at is not None:
                    break
            if look.parents and look_at is None:
                return None
            tree = self._tree_of([*look.records, *records], since)
        except NeedsEarlier:
            return None
        tree.damaged += damaged + look.damaged
        return tree

    def _tree_of(self, records: Sequence[Record], since: Sequence[Record]) -> TailTree:
        tree = TailTree(self._header)
        for record in records:
            try:
                tree.apply(record)
            except DamagedRecord:
                tree.damaged += 1
        for record in since:
            tree.apply(record)
        return tree

    def _blocks(self, end: int, size: int) -> Iterator[tuple[bytes, int]]:
        """What stands before `end`, where a line starts: bytes that begin with a newline.

        They are about `size` bytes; the number tells where the last whole line of them ends.
        """
        offset, length = -1, size
        while offset + 1 < end:
            block = self._read(max(0, offset), min(end, offset + length))
            if offset < 0:
                block = b"\n" + block
            last = block.rfind(b"\n", 1)
            if last < 0:
                length *= 2
                continue
            yield block, last
            offset, length = offset + last, size

    def _read(self, start: int, end: int, *, short: bool = False) -> bytes:
        parts = []
        while start < end and (
            part := os.pread(self._descriptor, min(end - start, 1 << 24), start)
        ):
            parts.append(part)
            start += len(part)
        if start < end and not short:
            raise CutShort(errno.ENODATA, "others have cut it short")
        return b"".join(parts)


class _Look:
    """What is seen of the lines before the end, and what of it matters."""

    def __init__(self, ids: set[str], parents: set[str]) -> None:
        """The `ids` of the end must not be seen; `parents` should be."""
        self._ids = {line for id_ in ids for line in _starts_with(id_)}
        self._parents = {line: id_ for id_ in parents for line in _starts_with(id_)}
        self.parents = parents
        """Those that were not seen yet."""
        self.records: list[Record] = []
        """The records that are no messages."""
        self.damaged = 0

    def through(self, block: bytes, length: int) -> None:
        """Look through the lines in `length` bytes of a block, each behind a newline.

        Raises:
            NeedsEarlier: one of the ids stands there, or a message that must be in the end.
        """
        found = set(_LINE.findall(block, 0, length))
        found.discard(b"")
        if not self._ids.isdisjoint(found):
            raise NeedsEarlier
        hits = found & self._parents.keys() if self.parents else set()
        if hits or min(map(len, found), default=_LONGEST) <= _SHORT:
            for line in block[:length].split(b"\n"):
                match = _LINE.match(b"\n" + line)
                if match is not None and match[1] is not None:
                    self._take(line, match[1], hits)

    def _take(self, line: bytes, start: bytes, hits: set[bytes]) -> None:
        """Take what matters of a line that begins with `start`."""
        if start.startswith(_STARTS):
            if start in hits and _is_message(line):
                self.parents.discard(self._parents[start])
            return
        for stripped in lines(line):
            try:
                record = decode(stripped)
            except DamagedRecord:
                self.damaged += 1
                continue
            if record["t"] in _WITH_ID:
                raise NeedsEarlier
            self.records.append(record)


def _starts_with(message_id: str) -> Iterator[bytes]:
    """How we begin the lines of a message."""
    written = json.dumps(message_id, ensure_ascii=False)[1:].encode("utf-8", "surrogatepass")
    for start in _STARTS:
        yield start + written


def _is_message(line: bytes) -> bool:
    """Whether a line that begins as we write a message holds one."""
    tree = MessageTree(_NOBODY)
    tree.load(line)
    return bool(tree.messages)


def _ids(records: Sequence[Record]) -> set[str]:
    return {
        id_
        for record in records
        if record["t"] in _WITH_ID and isinstance(id_ := record.get("id"), str)
    }
