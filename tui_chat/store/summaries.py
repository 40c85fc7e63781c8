"""What a list shows of a conversation, read from its file without parsing all of it."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from tui_chat.files import open_regular_file
from tui_chat.store.records import DamagedRecord, Record, decode
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, ConversationSummary, Role

_CHUNK = 1 << 20
_TITLE_LENGTH = 60
_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_MESSAGE_LINE = re.compile(rb'\n\{"t":"(?:msg|begin)"[^\n]*\}(?![^\n])')


def is_conversation_id(text: str) -> bool:
    """Whether `text` is a name that we give to a conversation, and nothing that leads elsewhere."""
    return _ID.fullmatch(text) is not None


def created_at_of(conversation_id: str) -> datetime:
    """The time that an id begins with; the epoch when it is none."""
    try:
        return datetime.fromisoformat(conversation_id[:15].replace("-", "T") + "Z")
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def title_from(text: str) -> str:
    """The first words of a prompt as a title of one line."""
    words = " ".join(text[: 4 * _TITLE_LENGTH].split())
    return words if len(words) <= _TITLE_LENGTH else words[: _TITLE_LENGTH - 1].rstrip() + "…"


def summarize(path: Path) -> ConversationSummary | None:
    """The summary of the file at `path`, or None when it holds no message.

    Raises:
        OSError: the file cannot be read.
    """
    with open_regular_file(path) as file:
        if summary := _scan(path.stem, file):
            return summary
        # Not as we write it: a damaged header, or lines that another program put down.
        file.seek(0)
        tree = MessageTree(Conversation(path.stem, created_at_of(path.stem)))
        tree.load(file.read())
    return summary_of(tree)


def summary_of(tree: MessageTree) -> ConversationSummary | None:
    """The summary of a loaded conversation, or None when it has no message."""
    messages = list(tree.messages.values())
    if not messages:
        return None
    first_prompt = next((m.content for m in messages if m.role is Role.USER), "")
    return ConversationSummary(
        id=tree.header.id,
        title=tree.header.title or title_from(first_prompt),
        created_at=tree.header.created_at,
        updated_at=messages[-1].created_at,
        model=next((m.model for m in reversed(messages) if m.model), tree.header.model),
        message_count=len(messages),
        pinned=tree.header.pinned,
        archived=tree.header.archived,
    )


def _scan(conversation_id: str, file: BinaryIO) -> ConversationSummary | None:
    """The summary from a few records; a byte search finds them, as we write "t" first."""
    first = file.read(_CHUNK)
    tree = MessageTree(Conversation(conversation_id, created_at_of(conversation_id)))
    tree.load(b"\n".join(first.split(b"\n", 3)[:3]))
    if not tree.has_header or not tree.messages:
        return None
    count, last, title, flags = 0, None, None, None
    for block in _blocks(first, file):
        count += sum(1 for _ in _MESSAGE_LINE.finditer(block))
        last = _last_record(block, "msg", "begin", "end") or last
        title = _last_record(block, "title") or title
        flags = _last_record(block, "flags") or flags
    for record in (last, title, flags):
        if record is not None:
            with contextlib.suppress(DamagedRecord):
                tree.apply(record)
    summary = summary_of(tree)
    return summary and replace(summary, message_count=max(count, summary.message_count))


def _blocks(first: bytes, file: BinaryIO) -> Iterator[bytes]:
    """The file in pieces of whole lines, each line with the newline before it."""
    parts = [b"\n"]
    chunk = first
    while len(chunk) == _CHUNK:
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield b"".join((*parts, head))
            parts = [b"\n"]
        parts.append(tail)
        chunk = file.read(_CHUNK)
    yield b"".join((*parts, chunk))


def _last_record(block: bytes, *kinds: str) -> Record | None:
    """The last record of these kinds that can be read."""
    end = len(block)
    while (start := max(block.rfind(_start(kind), 0, end) for kind in kinds)) >= 0:
        line = block[start + 1 : end].partition(b"\n")[0]
        with contextlib.suppress(DamagedRecord):
            return decode(line)
        end = start
    return None


def _start(kind: str) -> bytes:
    return b'\n{"t":"%s"' % kind.encode()
