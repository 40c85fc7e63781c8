"""The records of a conversation file and the tree of messages they add up to."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, TypeVar, get_args

from tui_chat.settings import from_plain, to_plain
from tui_chat.types import (
    ChatSettings,
    Conversation,
    FinishReason,
    Message,
    Mode,
    Precision,
    ReplyMetrics,
    Role,
    Status,
    TitleSource,
)

VERSION = 1
Record = dict[str, Any]
_Value = TypeVar("_Value")

_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_EPOCH = datetime.fromtimestamp(0, UTC)
_ROLES = {role.value: role for role in Role}
_MODES = {mode.value: mode for mode in Mode}
_PRECISIONS = {precision.value: precision for precision in Precision}
_STATUSES: dict[str, Status] = {status: status for status in get_args(Status)}
_FINISH_REASONS: dict[str, FinishReason] = {reason: reason for reason in get_args(FinishReason)}
_TITLE_SOURCES: dict[str, TitleSource] = {source: source for source in get_args(TitleSource)}
_METRIC_TEXTS = frozenset({"cache_note", "speculation_note"})
_METRIC_NUMBERS = frozenset(f.name for f in fields(ReplyMetrics)) - _METRIC_TEXTS - {"precision"}


class DamagedRecord(ValueError):
    """A line that is not a record of ours, or lacks what its kind must have."""


def encode(record: Record) -> bytes:
    """One line of the file, the newline included; `decode` gives back the same record."""
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8 form, but a JSON escape
        if _SURROGATE_PAIR.search(text):  # two escapes in a row would read as one character
            return text.encode("utf-8", "surrogatepass") + b"\n"
        return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Record:
    """The record of one line.

    Raises:
        DamagedRecord: the line is torn, or is no JSON object with a kind in "t".
    """
    try:
        record = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise DamagedRecord from error
    if not isinstance(record, dict) or not isinstance(record.get("t"), str):
        raise DamagedRecord
    return record


def lines(data: bytes) -> Iterator[bytes]:
    """The lines that hold something; a crash of the machine may leave runs of NUL bytes."""
    for line in data.split(b"\n"):
        if stripped := line.strip(b"\x00\r\t "):
            yield stripped


def header_record(conversation: Conversation) -> Record:
    """The first record of a file."""
    optional: Record = {
        "title_by": conversation.title and conversation.title_by,
        "pinned": conversation.pinned,
        "archived": conversation.archived,
        "settings": to_plain(conversation.settings),
    }
    return {
        "t": "meta",
        "v": VERSION,
        "id": conversation.id,
        "created_at": conversation.created_at.isoformat(),
        "title": conversation.title,
        "model": conversation.model,
        "tokenizer_id": conversation.tokenizer_id,
        "system_prompt": conversation.system_prompt,
    } | {name: value for name, value in optional.items() if value and value != "user"}


def title_record(title: str, by: TitleSource) -> Record:
    """The record of a title and of who made it."""
    return {"t": "title", "title": title} | ({} if by == "user" else {"by": by})


def settings_record(settings: ChatSettings) -> Record:
    """The record of all that a conversation sets for itself."""
    return {"t": "settings", "settings": to_plain(settings)}


def message_record(kind: str, message: Message) -> Record:
    """The record of a message; `kind` is msg, begin or end. Empty fields are left out."""
    record: Record = {
        "t": kind,
        "id": message.id,
        "parent": message.parent_id,
        "role": message.role.value,
        "created_at": message.created_at.isoformat(),
        "content": message.content,
    }
    optional: Record = {
        "reasoning": message.reasoning,
        "status": "" if kind == "begin" else message.status,
        "finish_reason": message.finish_reason,
        "error": message.error,
        "model": message.model,
        "revision": message.revision,
        "tokenizer_id": message.tokenizer_id,
        "mode": message.mode,
        "modes": list(message.modes),
        "seed": message.seed,
        "token_count": message.token_count,
        "metrics": message.metrics and _metrics_to_json(message.metrics),
        "cut_tail": message.cut_tail,
        "continuations": message.continuations or None,
        "edited": message.edited or None,
        "excluded": message.excluded or None,
    }
    return record | {name: value for name, value in optional.items() if value not in (None, "", [])}


def message_from_record(record: Record) -> Message:
    """The message of a msg, begin or end record; odd values of lesser fields are left out.

    Raises:
        DamagedRecord: id, role or content is missing.
    """
    message_id, content = record.get("id"), record.get("content")
    role = _choice(_ROLES, record.get("role"))
    if not isinstance(message_id, str) or not message_id or not isinstance(content, str):
        raise DamagedRecord
    if role is None:
        raise DamagedRecord
    return Message(
        id=message_id,
        role=role,
        content=content,
        created_at=timestamp(record.get("created_at")),
        parent_id=_text(record, "parent") or None,
        reasoning=_text(record, "reasoning"),
        status=_choice(_STATUSES, record.get("status")) or "complete",
        finish_reason=_choice(_FINISH_REASONS, record.get("finish_reason")),
        error=_text(record, "error"),
        model=_text(record, "model"),
        revision=_text(record, "revision"),
        tokenizer_id=_text(record, "tokenizer_id"),
        mode=_choice(_MODES, record.get("mode")),
        modes=_modes(record.get("modes")),
        seed=_whole(record.get("seed")),
        token_count=_whole(record.get("token_count")),
        metrics=_metrics_from_json(record.get("metrics")),
        cut_tail=_text(record, "cut_tail"),
        continuations=max(0, _whole(record.get("continuations")) or 0),
        edited=record.get("edited") is True,
        excluded=record.get("excluded") is True,
    )


def timestamp(value: object) -> datetime:
    """An aware UTC time from a record; the epoch where it cannot be read."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else _EPOCH
        if moment.tzinfo is UTC:
            return moment
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return _EPOCH


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
            case "title":
                by = _choice(_TITLE_SOURCES, record.get("by")) or "user"
                title = _required_text(record, "title")
                self.header = replace(self.header, title=title, title_by=by)
            case "flags":
                pinned, archived = _truth(record, "pinned"), _truth(record, "archived")
                self.header = replace(self.header, pinned=pinned, archived=archived)
            case "system":
                prompt = _required_text(record, "system_prompt")
                self.header = replace(self.header, system_prompt=prompt)
            case "settings":
                if not isinstance(values := record.get("settings"), dict):
                    raise DamagedRecord
                self.header = replace(self.header, settings=from_plain(values))
            case "head":
                message_id = _required_text(record, "id")
                if message_id not in self.messages:
                    raise DamagedRecord
                self._set_head(message_id)
            case "exclude":
                self._apply_exclude(record)

    def records(self) -> Iterator[Record]:
        """Records that read back as this tree."""
        yield header_record(self.header)
        heads: dict[int, list[str]] = {}
        for message_id, number in self._selected.items():
            heads.setdefault(number, []).append(message_id)
        for number, message in enumerate(self.messages.values(), start=1):
            yield message_record("begin" if message.id in self._running else "msg", message)
            for message_id in heads.get(number, ()):
                yield {"t": "head", "id": message_id}
        if self.head is not None:
            yield {"t": "head", "id": self.head}

    def part_record(self, message_id: str, content: str, reasoning: str) -> Record | None:
        """What to store so that a running reply has this text; None when it has it already.

        Raises:
            KeyError: there is no such message.
        """
        known = self.messages[message_id]
        record: Record = {"t": "part", "id": message_id}
        for name, old, new in (
            ("content", known.content, content),
            ("reasoning", known.reasoning, reasoning),
        ):
            kept = len(old)
            if not new.startswith(old):  # cleaning took back the end of what was shown
                kept = _common_prefix(old, new)
                record[f"{name}_kept"] = kept
            if new[kept:]:
                record[name] = new[kept:]
        return record if len(record) > 2 else None

    def _apply_meta(self, record: Record) -> None:
        version = record.get("v")
        if not isinstance(version, int):
            raise DamagedRecord
        self.is_newer = self.is_newer or version > VERSION
        if self.has_header:
            return
        self.has_header = True
        self.header = Conversation(
            id=self.header.id,
            created_at=timestamp(record.get("created_at")),
            title=_text(record, "title"),
            model=_text(record, "model"),
            tokenizer_id=_text(record, "tokenizer_id"),
            system_prompt=_text(record, "system_prompt"),
            title_by=_choice(_TITLE_SOURCES, record.get("title_by")) or "user",
            pinned=_truth(record, "pinned"),
            archived=_truth(record, "archived"),
            settings=from_plain(record.get("settings")),
        )

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
        message = replace(
            known,
            content=_extended(known.content, record, "content"),
            reasoning=_extended(known.reasoning, record, "reasoning"),
            status="interrupted",
        )
        self._add(message, replaces=True)

    def _apply_exclude(self, record: Record) -> None:
        known = self.messages.get(_required_text(record, "id"))
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


def _common_prefix(old: str, new: str) -> int:
    pairs = zip(old, new, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))


def _extended(text: str, record: Record, name: str) -> str:
    kept = _whole(record.get(f"{name}_kept"))
    return (text if kept is None else text[: max(kept, 0)]) + _text(record, name)


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def _truth(record: Record, name: str) -> bool:
    return record.get(name) is True


def _required_text(record: Record, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise DamagedRecord
    return value


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _choice(values: dict[str, _Value], value: object) -> _Value | None:
    return values.get(value) if isinstance(value, str) else None


def _modes(value: object) -> tuple[Mode, ...]:
    known = [_choice(_MODES, item) for item in value] if isinstance(value, list) else []
    return tuple(mode for mode in known if mode)


def _metrics_to_json(metrics: ReplyMetrics) -> Record:
    record: Record = {name: getattr(metrics, name) for name in sorted(_METRIC_NUMBERS)}
    texts = {name: text for name in sorted(_METRIC_TEXTS) if (text := getattr(metrics, name))}
    return record | {"precision": metrics.precision} | texts


def _metrics_from_json(value: object) -> ReplyMetrics | None:
    if not isinstance(value, dict):
        return None
    numbers = {
        name: number
        for name, number in value.items()
        if name in _METRIC_NUMBERS and _is_count(number, whole=not name.endswith("_seconds"))
    }
    texts: Record = {n: text for n in _METRIC_TEXTS if isinstance(text := value.get(n), str)}
    precision = _choice(_PRECISIONS, value.get("precision"))
    return ReplyMetrics(**numbers, **texts, precision=precision)


def _is_count(value: object, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < 2**63 and (isinstance(value, int) or not whole)
