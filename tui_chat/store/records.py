"""The records of a conversation file: how they are written, and what each of them says."""

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
_METRIC_NUMBERS = (
    frozenset(f.name for f in fields(ReplyMetrics)) - _METRIC_TEXTS - {"precision", "approximate"}
)


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


def flags_record(*, pinned: bool, archived: bool) -> Record:
    """The record of the marks that the list heeds."""
    return {"t": "flags", "pinned": pinned, "archived": archived}


def settings_record(settings: ChatSettings) -> Record:
    """The record of all that a conversation sets for itself."""
    return {"t": "settings", "settings": to_plain(settings)}


def header_changes(old: Conversation, new: Conversation) -> Iterator[Record]:
    """The records that make the header `old` to `new`."""
    if (old.title, old.title_by) != (new.title, new.title_by):
        yield title_record(new.title, new.title_by)
    if (old.pinned, old.archived) != (new.pinned, new.archived):
        yield flags_record(pinned=new.pinned, archived=new.archived)
    if old.system_prompt != new.system_prompt:
        yield {"t": "system", "system_prompt": new.system_prompt}
    if old.settings != new.settings:
        yield settings_record(new.settings)


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


def version_of(record: Record) -> int:
    """The version of the format that a meta record tells.

    Raises:
        DamagedRecord: it tells none.
    """
    version = record.get("v")
    if not isinstance(version, int):
        raise DamagedRecord
    return version


def header_from_record(record: Record, conversation_id: str) -> Conversation:
    """The header of a meta record; the id is not in it."""
    return Conversation(
        id=conversation_id,
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


def header_with(header: Conversation, record: Record) -> Conversation:
    """`header` with what a title, flags, system or settings record says.

    Raises:
        DamagedRecord: the record lacks what its kind must have.
    """
    match record["t"]:
        case "title":
            by = _choice(_TITLE_SOURCES, record.get("by")) or "user"
            return replace(header, title=required_text(record, "title"), title_by=by)
        case "flags":
            pinned, archived = _truth(record, "pinned"), _truth(record, "archived")
            return replace(header, pinned=pinned, archived=archived)
        case "system":
            return replace(header, system_prompt=required_text(record, "system_prompt"))
        case _:
            if not isinstance(values := record.get("settings"), dict):
                raise DamagedRecord
            return replace(header, settings=from_plain(values))


def part_record(message: Message, content: str, reasoning: str) -> Record | None:
    """What to store so that a running reply has this text; None when it has it already."""
    record: Record = {"t": "part", "id": message.id}
    for name, old, new in (
        ("content", message.content, content),
        ("reasoning", message.reasoning, reasoning),
    ):
        kept = len(old)
        if not new.startswith(old):  # cleaning took back the end of what was shown
            kept = _common_prefix(old, new)
            record[f"{name}_kept"] = kept
        if new[kept:]:
            record[name] = new[kept:]
    return record if len(record) > 2 else None


def with_part(message: Message, record: Record) -> Message:
    """A running reply with what a part record adds."""
    return replace(
        message,
        content=_extended(message.content, record, "content"),
        reasoning=_extended(message.reasoning, record, "reasoning"),
        status="interrupted",
    )


def required_text(record: Record, name: str) -> str:
    """The text of a field that must be there.

    Raises:
        DamagedRecord: it is not.
    """
    value = record.get(name)
    if not isinstance(value, str):
        raise DamagedRecord
    return value


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
    estimated = {"approximate": True} if metrics.approximate else {}
    return record | {"precision": metrics.precision} | texts | estimated


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
    approximate = value.get("approximate") is True
    return ReplyMetrics(**numbers, **texts, precision=precision, approximate=approximate)


def _is_count(value: object, *, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < 2**63 and (isinstance(value, int) or not whole)
