"""Conversations out of the files of other programs, and our own, as new ones.

What is imported is foreign: ids are made anew, nothing in it names a file, and what cannot be
taken over is counted and told.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tui_chat.store.exchange import OURS
from tui_chat.store.records import VERSION, DamagedRecord, decode, lines, message_record, timestamp
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Message, Role

_ROLES = {
    "user": Role.USER,
    "human": Role.USER,
    "prompter": Role.USER,
    "assistant": Role.ASSISTANT,
    "gpt": Role.ASSISTANT,
    "chatgpt": Role.ASSISTANT,
    "model": Role.ASSISTANT,
    "bot": Role.ASSISTANT,
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
}
_DEEPEST = 3
"""So many lists and wrappers may stand around a conversation."""


class ImportFault(Exception):
    """A file holds no conversation that can be read; `str()` ends a sentence about the file."""


@dataclass(frozen=True, slots=True)
class Imported:
    """One conversation out of a file."""

    tree: MessageTree
    """With new ids of the messages, not stored yet."""
    left_out: tuple[str, ...]
    """What could not be taken over: "2 tool messages"."""


def read_conversations(data: bytes) -> tuple[list[Imported], list[str]]:
    """The conversations in a file, and sentences about what is none.

    Known are our own files and JSON, the `conversations.json` of ChatGPT with its tree, OpenAI
    messages and ShareGPT, each alone, in lists and as JSON lines.

    Raises:
        ImportFault: the file is not JSON, or holds no conversation.
    """
    notes: list[str] = []
    if _is_chat_file(data):
        tree = MessageTree(Conversation("", datetime.now(UTC)))
        tree.load(data)
        found = [_of_tree(tree)]
    else:
        found = [
            imported for value in _values(data, notes) for imported in _read(value, notes, _DEEPEST)
        ]
    kept = [imported for imported in found if imported.tree.messages]
    if empty := len(found) - len(kept):
        notes.append(f"{_count(empty, 'conversation(s) without a message')} left out")
    if not kept and not notes:
        raise ImportFault("holds no conversation")
    return kept, notes


def _is_chat_file(data: bytes) -> bool:
    """Whether one of the first lines is a record of a conversation file."""
    for line in [line for _, line in zip(range(3), lines(data[: 1 << 20]), strict=False)]:
        try:
            record = decode(line)
        except DamagedRecord:
            continue
        if record["t"] in ("meta", "msg", "begin") and ("v" in record or "role" in record):
            return True
    return False


def _values(data: bytes, notes: list[str]) -> Iterator[Any]:
    """The JSON value of a file, or the values of its lines."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImportFault("is no UTF-8 text") from error
    try:
        yield json.loads(text)
        return
    except RecursionError as error:
        raise ImportFault("is nested too deeply") from error
    except ValueError as error:
        fault = error
    values, damaged = [], 0
    for line in text.split("\n"):
        if line.strip():
            try:
                values.append(json.loads(line))
            except (ValueError, RecursionError):
                damaged += 1
    if not any(isinstance(value, dict | list) for value in values):
        raise ImportFault(f"is no JSON ({fault})")
    if damaged:
        notes.append(f"{_count(damaged, 'line(s) that cannot be read')} left out")
    yield from values


def _read(value: Any, notes: list[str], depth: int) -> Iterator[Imported]:
    """The conversations in one JSON value."""
    reader: Callable[[Any], Imported] | None = None
    inner: Any = None
    if isinstance(value, dict):
        turns = value.get("conversations")
        if value.get("format") == OURS:
            reader = _read_ours
        elif isinstance(value.get("mapping"), dict):
            reader = _read_chatgpt
        elif _is_turns(value.get("messages"), "role"):
            reader = _read_openai
        elif _is_turns(turns, "from"):
            reader = _read_sharegpt
        else:
            inner = turns
    elif _is_turns(value, "role"):
        value, reader = {"messages": value}, _read_openai
    elif _is_turns(value, "from"):
        value, reader = {"conversations": value}, _read_sharegpt
    else:
        inner = value
    if reader is not None:
        yield reader(value)
    elif isinstance(inner, list) and depth:
        for item in inner:
            yield from _read(item, notes, depth - 1)
    else:
        notes.append("an entry that is no known kind of conversation left out")


def _is_turns(value: Any, key: str) -> bool:
    return (
        isinstance(value, list) and bool(value) and isinstance(value[0], dict) and key in value[0]
    )


class _Builder:
    """Puts a conversation together from foreign parts, and counts what it cannot take."""

    def __init__(self, title: Any = "", created_at: datetime | None = None) -> None:
        self.created_at = created_at or datetime.now(UTC)
        header = Conversation("", self.created_at, title if isinstance(title, str) else "")
        self.tree = MessageTree(header)
        self.skipped: Counter[str] = Counter()
        self.last: str | None = None

    def add(self, message: Message, parent: str | None) -> str:
        """Append a message under a new id, which is returned."""
        new = replace(message, id=uuid.uuid4().hex, parent_id=parent)
        self.tree.apply(message_record("msg", new))
        self.last = new.id
        return new.id

    def take_prompt(self, role: Role, text: str) -> bool:
        """Whether this is the system prompt: a system message before all others."""
        if role is not Role.SYSTEM or self.tree.messages or self.tree.header.system_prompt:
            return False
        self.tree.header = replace(self.tree.header, system_prompt=text)
        return True

    def result(self, head: str | None = None) -> Imported:
        if head is not None and head in self.tree.messages:
            self.tree.apply({"t": "head", "id": head})
        return Imported(
            self.tree, tuple(_count(number, what) for what, number in self.skipped.items() if what)
        )


def _of_tree(source: MessageTree) -> Imported:
    """A conversation of our own, all of it, under new ids."""
    builder = _Builder()
    builder.tree.header = source.header
    new_ids: dict[str | None, str | None] = {None: None}
    for record in source.records():
        if record["t"] == "head":
            builder.tree.apply({"t": "head", "id": new_ids[record["id"]]})
        elif record["t"] != "meta":
            message = source.messages[record["id"]]
            new_ids[message.id] = builder.add(message, new_ids.get(message.parent_id))
    if source.damaged:
        builder.skipped["damaged record(s)"] = source.damaged
    if source.is_newer:
        builder.skipped["version(s) that only a newer tui-chat knows in full"] += 1
    if source.unknown:
        builder.skipped["record(s) of unknown kinds"] = source.unknown
    return builder.result(new_ids.get(source.head))


def _read_ours(value: dict[str, Any]) -> Imported:
    source = MessageTree(Conversation("", timestamp(value.get("created_at"))))
    version = value.get("v", VERSION)
    records: list[dict[str, Any]] = [{**value, "t": "meta", "v": version}]
    opened = _opened(value)
    for number, message in enumerate(_list(value.get("messages")), start=1):
        records.append({**message, "t": "msg"} if isinstance(message, dict) else {"t": "msg"})
        records += [{"t": "head", "id": id_} for id_ in opened.get(number, ())]
    if value.get("head") is not None:
        records.append({"t": "head", "id": value["head"]})
    for record in records:
        try:
            source.apply(record)
        except DamagedRecord:
            source.damaged += 1
    return _of_tree(source)


def _opened(value: dict[str, Any]) -> dict[int, list[Any]]:
    """Which messages were opened later, by the number of the messages before that."""
    found: dict[int, list[Any]] = {}
    for item in _list(value.get("opened")):
        after = _dict(item).get("after")
        if isinstance(after, int):
            found.setdefault(after, []).append(item.get("id"))
    return found


def _read_openai(value: dict[str, Any]) -> Imported:
    builder = _Builder(value.get("title"))
    model = value.get("model")
    for item in value["messages"]:
        if not isinstance(item, dict):
            builder.skipped["damaged message(s)"] += 1
            continue
        text = _content(item.get("content"), builder.skipped)
        _add_turn(builder, item.get("role"), text, item.get("reasoning_content"), model)
    return builder.result()


def _read_sharegpt(value: dict[str, Any]) -> Imported:
    builder = _Builder(value.get("title"))
    if isinstance(prompt := value.get("system"), str):
        builder.tree.header = replace(builder.tree.header, system_prompt=prompt)
    for item in value["conversations"]:
        if not isinstance(item, dict):
            builder.skipped["damaged message(s)"] += 1
            continue
        text = item.get("value")
        _add_turn(
            builder,
            item.get("from"),
            text if isinstance(text, str) else None,
            None,
            item.get("model"),
        )
    return builder.result()


def _add_turn(
    builder: _Builder, role_name: Any, text: str | None, reasoning: Any, model: Any
) -> None:
    """Append a message to a conversation without branches, or count why not."""
    role = _ROLES.get(role_name) if isinstance(role_name, str) else None
    if role is None or text is None:
        builder.skipped[_kind_of(role_name, role)] += 1
        return
    if builder.take_prompt(role, text):
        return
    message = Message(
        "",
        role,
        text,
        builder.created_at,
        reasoning=reasoning if isinstance(reasoning, str) and role is Role.ASSISTANT else "",
        model=model if isinstance(model, str) and role is Role.ASSISTANT else "",
    )
    builder.add(message, builder.last)


def _read_chatgpt(value: dict[str, Any]) -> Imported:
    """A conversation of ChatGPT's export: a tree of nodes, of which some hold a message."""
    nodes: dict[str, dict[str, Any]] = {
        id_: node for id_, node in value["mapping"].items() if isinstance(node, dict)
    }
    builder = _Builder(value.get("title"), _moment(value.get("create_time"), datetime.now(UTC)))
    new_ids: dict[str, str | None] = {}
    children = _children(nodes)
    # Parents first. What follows a node without a message follows the node before it.
    stack: list[tuple[str, str | None, str]] = [
        (id_, None, "") for id_ in reversed(nodes) if not _parent_in(nodes, id_)
    ]
    while stack:
        id_, parent, thought = stack.pop()
        if id_ in new_ids:
            continue
        new_ids[id_], thought = _add_node(builder, nodes[id_], parent, thought)
        following = children.get(id_, ())
        if thought and not following:
            builder.skipped["thought(s) without a reply"] += 1
        stack += [(child, new_ids[id_], thought) for child in reversed(following)]
    if lost := len(nodes) - len(new_ids):
        builder.skipped["message(s) in a loop"] += lost
    head = value.get("current_node")
    return builder.result(new_ids.get(head) if isinstance(head, str) else None)


def _parent_in(nodes: dict[str, dict[str, Any]], id_: str) -> str | None:
    parent = nodes[id_].get("parent")
    return parent if isinstance(parent, str) and parent in nodes else None


def _children(nodes: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The children by parent: in the order that the parent gives, then that of the file."""
    children: dict[str, list[str]] = {}
    for id_ in nodes:
        if parent := _parent_in(nodes, id_):
            children.setdefault(parent, []).append(id_)
    for parent, found in children.items():
        told = [child for child in _list(nodes[parent].get("children")) if isinstance(child, str)]
        order = {child: place for place, child in enumerate(told)}
        found.sort(key=lambda child: order.get(child, len(order)))
    return children


def _add_node(
    builder: _Builder, node: dict[str, Any], parent: str | None, thought: str
) -> tuple[str | None, str]:
    """Append the message of a node, with the `thought` of the nodes before it.

    Returns the id that its children follow, and the thought that is still to be told.
    """
    item = _dict(node.get("message"))
    content, metadata = _dict(item.get("content")), _dict(item.get("metadata"))
    role_name, kind = _dict(item.get("author")).get("role"), content.get("content_type")
    role = _ROLES.get(role_name) if isinstance(role_name, str) else None
    if not item or kind == "reasoning_recap":
        return parent, thought
    if kind == "thoughts":
        steps = [_dict(step).get("content") for step in _list(content.get("thoughts"))]
        return parent, "\n\n".join([t for t in (thought, *steps) if t and isinstance(t, str)])
    text: str | None = None
    if kind in ("text", "multimodal_text"):
        text = _content(content.get("parts"), builder.skipped)
    elif kind == "code" and item.get("recipient") in (None, "all"):
        text = _content(content.get("text"), builder.skipped)
    hidden = metadata.get("is_visually_hidden_from_conversation") is True
    if text == "" and (hidden or role is Role.SYSTEM or role is None):
        return parent, thought  # ChatGPT writes empty ones of its own; nothing is lost
    if role is None or text is None:
        builder.skipped[_kind_of(role_name, role)] += 1
        return parent, thought
    if builder.take_prompt(role, text):
        return parent, thought
    replies = role is Role.ASSISTANT
    model = metadata.get("model_slug")
    message = Message(
        "",
        role,
        text,
        _moment(item.get("create_time"), builder.created_at),
        reasoning=thought if replies else "",
        model=model if isinstance(model, str) and replies else "",
    )
    return builder.add(message, parent), "" if replies else thought


# Foreign values -----------------------------------------------------------------------------


def _content(value: Any, skipped: Counter[str]) -> str | None:
    """The text of a message, which other programs write as a text or as a list of parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return None
    texts: list[str] = []
    for part in value:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
        else:
            skipped["part(s) without text"] += 1
    return "\n\n".join(texts) if texts or not value else None


def _kind_of(role_name: Any, role: Role | None) -> str:
    if role is not None:
        return f"{role.value} message(s) without text"
    known = isinstance(role_name, str) and role_name.isalnum() and len(role_name) <= 20
    return f"{role_name} message(s)" if known else "message(s) of an unknown role"


def _moment(value: Any, default: datetime) -> datetime:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, ValueError, OSError):
            return default
    return default


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(number: int, what: str) -> str:
    return f"{number} {what.replace('(s)', '' if number == 1 else 's')}"
