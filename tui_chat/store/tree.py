"""The tree of messages that the records of a conversation add up to."""

from collections.abc import Iterator
from dataclasses import replace

from tui_chat.store.records import (
    VERSION,
    DamagedRecord,
    Record,
    decode,
    header_changes,
    header_from_record,
    header_record,
    header_with,
    lines,
    message_from_record,
    message_record,
    part_record,
    required_text,
    version_of,
    with_part,
)
from tui_chat.types import Conversation, Message, Role


class MessageTree:
    """All messages of one conversation and the branch that is open.

    The only place that knows what a record means: memory and file go through `apply` alike.
    A parent stands before its children, so that no file can hold a cycle.
    """

    def __init__(self, header: Conversation) -> None:
        """`header` gives id and defaults; a meta record overrides everything but the id."""
        self.header = header
        self.messages: dict[str, Message] = {}
        """In the order of the file."""
        self.head: str | None = None
        self.has_header = False
        self.is_newer = False
        """Whether a version that we do not know wrote the file."""
        self.damaged = 0
        self.unknown = 0
        """Records of kinds that we do not know; they stay in their file."""
        self._children: dict[str | None, list[str]] = {}
        self._selected: dict[str, int] = {}
        """The messages that became the head again later, in the order in which they did, each
        with the number of messages that there were then."""
        self._running: set[str] = set()
        self._adopted: dict[str, str | None] = {}
        self._branch: tuple[Message, ...] | None = None

    @property
    def conversation(self) -> Conversation:
        """The header with the messages of the open branch, root to head."""
        branch = self._branch
        if branch is None:
            branch = self._branch = tuple(reversed(list(self._path(self.head))))
        return replace(self.header, messages=branch)

    def siblings(self, message_id: str) -> tuple[Message, ...]:
        """All messages with the parent of this one, oldest first. `KeyError` if unknown."""
        children = self._children[self.messages[message_id].parent_id]
        return tuple(self.messages[child] for child in children)

    def end_of_branch(self, message_id: str) -> str:
        """Where the branch through this message ended when it was last open.

        Raises:
            KeyError: there is no such message.
        """
        branch = {self.messages[message_id].id}
        left = [message_id]
        while left:
            children = self._children.get(left.pop(), ())
            branch.update(children)
            left += children
        numbers = ((n, id_) for n, id_ in enumerate(self.messages, start=1) if id_ in branch)
        number, newest = max(numbers)
        selected = next((id_ for id_ in reversed(self._selected) if id_ in branch), newest)
        return selected if self._selected.get(selected, 0) >= number else newest

    def load(self, data: bytes) -> None:
        """Apply all lines of a file, skipping and counting what is damaged."""
        for line in lines(data):
            try:
                self.apply(decode(line))
            except DamagedRecord:
                self.damaged += 1

    def apply(self, record: Record) -> None:
        """Take over one record; kinds and fields that are not known are passed over.

        Raises:
            DamagedRecord: a known kind lacks what it must have; nothing has changed.
        """
        match record["t"]:
            case "meta":
                self._apply_meta(record)
            case "begin":
                message = replace(message_from_record(record), status="interrupted")
                self._running.add(message.id)
                self._add(message, replaces=True)
            case "part":
                self._apply_part(record)
            case "msg" | "end":
                message = message_from_record(record)
                ends = record["t"] == "end" or message.id in self._running
                self._running.discard(message.id)
                self._add(message, replaces=ends)
            case "title" | "flags" | "system" | "settings":
                self.header = header_with(self.header, record)
            case "head":
                message_id = required_text(record, "id")
                if message_id not in self.messages:
                    raise DamagedRecord
                self._set_head(message_id)
            case "exclude":
                self._apply_exclude(record)
            case _:
                self.unknown += 1

    def records(self) -> Iterator[Record]:
        """Records that read back as this tree."""
        return self.records_behind(MessageTree(self.header))

    def records_behind(self, known: "MessageTree") -> Iterator[Record]:
        """Records that read back as this tree where those of `known`, an earlier one, precede."""
        if known.has_header:
            yield from header_changes(known.header, self.header)
        else:
            yield header_record(self.header)
        heads: dict[int, list[str]] = {}
        for message_id, number in self._selected.items():
            if known._selected.get(message_id) != number:
                heads.setdefault(number, []).append(message_id)
        for number, message in enumerate(self.messages.values(), start=1):
            old = known.messages.get(message.id)
            if old is None or old != replace(message, excluded=old.excluded):
                kind = "msg" if old is None else "end"
                yield message_record("begin" if message.id in self._running else kind, message)
            if old is not None and old.excluded != message.excluded:
                yield {"t": "exclude", "id": message.id, "excluded": message.excluded}
            for message_id in heads.get(number, ()):
                yield {"t": "head", "id": message_id}
        if self.head is not None:
            yield {"t": "head", "id": self.head}

    def part_record(self, message_id: str, content: str, reasoning: str) -> Record | None:
        """What to store so that a running reply has this text; None when it has it already.

        Raises:
            KeyError: there is no such message.
        """
        return part_record(self.messages[message_id], content, reasoning)

    def _apply_meta(self, record: Record) -> None:
        self.is_newer = version_of(record) > VERSION or self.is_newer
        if not self.has_header:
            self.has_header = True
            self.header = header_from_record(record, self.header.id)

    def _apply_part(self, record: Record) -> None:
        message_id = record.get("id")
        if not isinstance(message_id, str) or not message_id:
            raise DamagedRecord
        known = self.messages.get(message_id)
        if known is None:  # the begin is lost; the text is not
            known = Message(message_id, Role.ASSISTANT, "", self.header.created_at, self.head)
            self._running.add(message_id)
        elif message_id not in self._running:
            return
        self._add(with_part(known, record), replaces=True)

    def _apply_exclude(self, record: Record) -> None:
        known = self.messages.get(required_text(record, "id"))
        excluded = record.get("excluded")
        if known is None or not isinstance(excluded, bool):
            raise DamagedRecord
        self.messages[known.id] = replace(known, excluded=excluded)
        self._branch = None

    def _add(self, message: Message, *, replaces: bool = False) -> None:
        known = self.messages.get(message.id)
        if known is not None and replaces:
            message = replace(message, parent_id=known.parent_id, excluded=known.excluded)
        else:
            parent = self._parent_of(message)
            if parent != message.parent_id:
                message = replace(message, parent_id=parent)
            if known is not None and known == replace(message, excluded=known.excluded):
                return  # written again after a disk fault
            if known is not None:  # two files joined by hand: show both
                message = replace(message, id=self._free_id(message.id))
        is_new = message.id not in self.messages
        if is_new:
            self._children.setdefault(message.parent_id, []).append(message.id)
        self.messages[message.id] = message
        self._set_head(message.id, is_new=is_new)

    def _parent_of(self, message: Message) -> str | None:
        parent = message.parent_id
        if parent is None or (parent in self.messages and parent != message.id):
            return parent
        # The parent was damaged: follow the message before it, and its other children likewise.
        return self._adopted.setdefault(parent, next(reversed(self.messages), None))

    def _free_id(self, message_id: str) -> str:
        number = 2
        while f"{message_id}-{number}" in self.messages:
            number += 1
        return f"{message_id}-{number}"

    def _set_head(self, message_id: str, *, is_new: bool = False) -> None:
        if message_id != self.head and not is_new:
            self._selected.pop(message_id, None)
            self._selected[message_id] = len(self.messages)
        self.head = message_id
        self._branch = None

    def _path(self, message_id: str | None) -> Iterator[Message]:
        while message_id is not None:
            message = self.messages[message_id]
            yield message
            message_id = message.parent_id
