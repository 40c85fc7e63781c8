"""What the library says around its list: totals, hits, why nothing is shown, keys."""

from datetime import UTC, datetime
from pathlib import Path

from tui_chat.chat.sanitize import one_line
from tui_chat.types import ConversationSummary
from tui_chat.ui.chat_list import SEARCH_LIMIT, ChatList
from tui_chat.ui.ink import Line, Part, gigabytes, seconds, when


def title_lines(chats: ChatList) -> list[Line]:
    """How many chats there are, how large and where, from the whole line to the short one."""
    if not chats.is_loaded:
        return []
    folder, home = str(chats.store.folder), str(Path.home())
    if folder.startswith(home + "/"):
        folder = "~" + folder.removeprefix(home)
    shown = gigabytes(chats.total_bytes)
    many = _many(len(chats.all), "chat")
    return [[("m", f"{many} · {shown} in {folder}")], [("m", f"{many} · {shown}")], [("m", many)]]


def count_line(chats: ChatList, query: str) -> Line:
    """What a search found, and how long it took."""
    if not query:
        return []
    shown = _many(len(chats.shown), "chat")
    if not chats.is_complete(query):
        return [("m", f"{shown} · searching")]
    found = [chat.count for chat in chats.hits.values() if chat.last is not None]
    plus = "+" if len(found) >= SEARCH_LIMIT else ""
    many = f"{sum(found):,}{plus} {'hit' if sum(found) == 1 else 'hits'}"
    hits = f"{many} in " if sum(found) else ""
    return [("m", f"{hits}{shown} · {seconds(chats.search_seconds)}")]


def why_empty(chats: ChatList, query: str) -> str:
    """Why no chat is shown."""
    if not chats.is_loaded:
        return ""
    if not chats.all:
        return "No chats yet; what you write is kept here."
    hidden = f" F6 shows {_many(chats.hidden, 'archived chat')}." if chats.hidden else ""
    if not query:
        return f"No chat is left in the list.{hidden}"
    if not chats.is_complete(query):
        return "Searching…"
    return f'No hit for "{one_line(query, 60)}".{hidden}'


def about(summary: ConversationSummary) -> str:
    """Model, size and time of a chat."""
    model = one_line(summary.model.rstrip("/").rpartition("/")[2], 60)
    moment = when(summary.updated_at, datetime.now(UTC))
    parts = (model, _many(summary.message_count, "message"), moment)
    return " · ".join(part for part in parts if part)


def key_lines(
    summary: ConversationSummary | None, *, is_hit: bool, undo: str, with_archived: bool
) -> tuple[list[Line], list[Line]]:
    """The keys for the highlighted chat, left and right, from the whole line to the short one.

    `undo` says what Ctrl+U would take back; empty where there is nothing.
    """
    back = _key("Esc", "back")
    toggle = _key("F6", "hide archived" if with_archived else "archived")
    right: list[Line] = [_joined(toggle, back)] * 4 + [back] * 2
    opening = _key("Enter", "open at the hit" if is_hit else "open")
    keys = [
        opening,
        _key("F2", "rename"),
        _key("F4", "unpin" if summary and summary.pinned else "pin"),
        _key("F5", "unarchive" if summary and summary.archived else "archive"),
        _key("Ctrl+D", "delete"),
    ]
    # Everybody tries Enter, so it is the first to go.
    lines = [_joined(*keys), _joined(*keys[1:]), _joined(*keys[2:]), opening]
    if undo:
        take_back = _key("Ctrl+U", "takes it back")
        said: Line = [("m", f"{undo} · "), *take_back]
        lines = [_joined(said, lines[0]), _joined(said, opening), said, take_back]
    return lines, right


RENAME_KEYS: tuple[list[Line], list[Line]] = (
    [[("k", "Enter"), ("m", " rename")]],
    [[("k", "Esc"), ("m", " keep the title")]],
)


def _key(key: str, verb: str) -> Line:
    return [("k", key), ("m", f" {verb}")]


def _joined(*keys: Line) -> Line:
    parts: list[Part] = list(keys[0])
    for line in keys[1:]:
        parts += [("m", " · "), *line]
    return parts


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
