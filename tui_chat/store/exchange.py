"""Conversations in the formats of other programs; what reads them is foreign.py."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tui_chat.store.records import header_record, message_record
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Role

FORMATS = {"markdown": ".md", "json": ".json", "openai": ".jsonl", "sharegpt": ".json"}
"""The formats of an export, each with the ending of its files."""
OURS = "tui-chat"
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_SHAREGPT = {Role.USER: "human", Role.ASSISTANT: "gpt", Role.SYSTEM: "system"}


def export(conversations: Iterable[MessageTree], format_: str) -> Iterator[str]:
    """The text of one file with these conversations, in pieces.

    `json` has all branches, fields and figures, but no records that this version does not know:
    the file itself is the copy that has them. The others have the open branch. `openai` is one
    object a line, `sharegpt` a list, `json` an object, or a list where there is not exactly one.
    A lone surrogate becomes U+FFFD outside JSON.
    """
    trees = iter(conversations)
    match format_:
        case "markdown":
            separator = ""
            for tree in trees:
                yield separator + markdown(tree.conversation)
                separator = "\n---\n\n"
        case "openai":
            for tree in trees:
                yield to_json(_openai(tree)) + "\n"
        case "sharegpt":
            yield from _json_list(map(_sharegpt, trees))
        case "json":
            first, second = next(trees, None), next(trees, None)
            if first is not None and second is None:
                yield to_json(json_object(first), indent=1) + "\n"
            else:
                head = [tree for tree in (first, second) if tree is not None]
                yield from _json_list(json_object(tree) for part in (head, trees) for tree in part)
        case _:
            raise ValueError(format_)


def to_json(value: object, indent: int | None = None) -> str:
    """`value` as JSON text that has a UTF-8 form."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def json_object(tree: MessageTree) -> dict[str, Any]:
    """A conversation with all its branches; the fields are those of the records in FORMAT.md.

    `opened` has the `head` records in their order, each with the number of the messages that
    stand before it.
    """
    header = {name: value for name, value in header_record(tree.header).items() if name != "t"}
    messages = [message_record("msg", message) for message in tree.messages.values()]
    for message in messages:
        del message["t"]
    opened, number = [], 0
    for record in tree.records():
        if record["t"] == "head":
            opened.append({"after": number, "id": record["id"]})
        number += record["t"] in ("msg", "begin")
    more = {"opened": opened} if len(opened) > 1 else {}
    return {"format": OURS, **header, "head": tree.head, **more, "messages": messages}


def _json_list(values: Iterable[object]) -> Iterator[str]:
    separator = "[\n"
    for value in values:
        yield separator + to_json(value)
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


def _spoken(tree: MessageTree) -> list[tuple[Role, str, str]]:
    """Role, text and reasoning of the open branch, the system prompt first."""
    conversation = tree.conversation
    told = [(Role.SYSTEM, conversation.system_prompt, "")] if conversation.system_prompt else []
    for message in conversation.messages:
        if message.content or message.status != "failed":
            told.append((message.role, message.content, message.reasoning))
    return told


def _openai(tree: MessageTree) -> dict[str, Any]:
    return {
        "messages": [
            {"role": role.value, "content": text}
            | ({"reasoning_content": reasoning} if reasoning else {})
            for role, text, reasoning in _spoken(tree)
        ]
    }


def _sharegpt(tree: MessageTree) -> dict[str, Any]:
    turns = [{"from": _SHAREGPT[role], "value": text} for role, text, _ in _spoken(tree)]
    return {"id": tree.header.id, "conversations": turns}


def markdown(conversation: Conversation) -> str:
    """A conversation as one Markdown text: the open branch, a heading for each message."""
    title = " ".join(conversation.title.split()) or "Untitled"
    about = [conversation.id, f"{conversation.created_at:%Y-%m-%d %H:%M} UTC"]
    if preset := " ".join(conversation.settings.preset.split()):
        about.append(f"preset {preset}")
    parts = [f"# {title}", " · ".join(about)]
    if conversation.system_prompt:
        parts += ["## System prompt", _closed(conversation.system_prompt)]
    for message in conversation.messages:
        name = message.model if message.role is Role.ASSISTANT else message.role.value.capitalize()
        heading = [" ".join(name.split()) or "Assistant"]
        if message.status != "complete":
            heading.append(message.status)
        if message.edited:
            heading.append("edited")
        if message.excluded:
            heading.append("left out")
        parts.append(f"## {' · '.join(heading)}")
        if message.reasoning:
            reasoning = _closed(message.reasoning)
            parts.append(f"<details><summary>Reasoning</summary>\n\n{reasoning}\n\n</details>")
        parts += [_closed(text) for text in (message.content, message.error) if text]
    return ("\n\n".join(parts) + "\n").encode("utf-8", "replace").decode("utf-8")


def _closed(text: str) -> str:
    """`text` with its last code block closed: one that was cut off would hold all that follows."""
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if found is None:
            continue
        marks, rest = found.groups()
        if not fence:
            # The language of a block of backticks holds none.
            fence = "" if marks[0] == "`" and "`" in rest else marks
        elif marks.startswith(fence) and not rest.strip():
            fence = ""
    return f"{text.rstrip(chr(10))}\n{fence}" if fence else text
