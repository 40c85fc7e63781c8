"""TUI_CHAT_KILLS=500 TUI_CHAT_KILL_MESSAGES=10000 runs the long version."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tui_chat.store.conversations import ConversationStore
from tui_chat.types import Message

KILLS = int(os.environ.get("TUI_CHAT_KILLS", "30"))
MESSAGES = int(os.environ.get("TUI_CHAT_KILL_MESSAGES", "1000"))

WRITER = """
import os, sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import Message, Role

store = ConversationStore(Path(sys.argv[1]))
log = store.open(sys.argv[2]) if len(sys.argv) > 2 else store.create()
print(log.id, flush=True)
messages = log.conversation.messages  # of a long one the end
start = int(messages[-1].id[1:-1]) + 1 if messages else 0
parent = messages[-1].id if messages else None

def acknowledge(message_id, text, status):
    os.write(1, f"{message_id} {len(text)} {status}\\n".encode())

for number in count(start):
    prompt = Message(f"m{number}u", Role.USER, f"m{number}u " * 40, datetime.now(UTC), parent)
    log.append(prompt)
    acknowledge(prompt.id, prompt.content, "complete")
    reply = Message(f"m{number}a", Role.ASSISTANT, "", datetime.now(UTC), prompt.id)
    text = f"m{number}a " * 200
    log.begin(reply)
    for end in range(0, len(text), 300):
        log.save_partial(reply.id, text[:end])
        acknowledge(reply.id, text[:end], "interrupted")
    log.end(replace(reply, content=text))
    acknowledge(reply.id, text, "complete")
    parent = reply.id
"""


def write_until_killed(
    folder: Path, conversation_id: str, messages: int, chance: random.Random
) -> tuple[str, dict[str, tuple[int, str]]]:
    """Id of the conversation and what the writer said is on disk: message id → length, status."""
    arguments = [sys.executable, "-c", WRITER, str(folder), conversation_id]
    writer = subprocess.Popen(
        [argument for argument in arguments if argument],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert writer.stdout is not None
    lines = [writer.stdout.readline()]
    complete = 0
    while complete < messages:
        lines.append(writer.stdout.readline())
        assert lines[-1], "the writer ended by itself"
        complete += lines[-1].endswith(b" complete\n")
    time.sleep(chance.random() * 0.01)
    writer.kill()
    rest, _ = writer.communicate()
    lines += rest.splitlines(keepends=True)
    stored = {}
    for line in lines[1:]:
        if line.endswith(b"\n"):
            message_id, length, status = line.decode().split()
            stored[message_id] = (int(length), status)
    return lines[0].decode().strip(), stored


def is_intact(message: Message, length: int, status: str) -> bool:
    text = f"{message.id} " * 200
    return text.startswith(message.content) and (
        len(message.content) == length if status == "complete" else len(message.content) >= length
    )


@pytest.mark.slow
def test_killed_writer_loses_no_acknowledged_message(tmp_path: Path) -> None:
    chance = random.Random(20260301)
    acknowledged: dict[str, tuple[int, str]] = {}
    conversation_id = ""
    per_kill = MESSAGES // KILLS + 1
    for _ in range(KILLS):
        messages = chance.randint(1, 2 * per_kill)
        conversation_id, stored = write_until_killed(tmp_path, conversation_id, messages, chance)
        acknowledged |= stored
    while sum(status == "complete" for _, status in acknowledged.values()) < MESSAGES:
        _, stored = write_until_killed(tmp_path, conversation_id, per_kill, chance)
        acknowledged |= stored

    log = ConversationStore(tmp_path).open(conversation_id)
    end = log.conversation.messages
    log.load_all()
    assert log.conversation.messages[-len(end) :] == end
    shown = {message.id: message for message in log.conversation.messages}
    lost = [
        message_id
        for message_id, (length, status) in acknowledged.items()
        if message_id not in shown or not is_intact(shown[message_id], length, status)
    ]
    assert lost == []
    assert not log.read_only
    assert log.damaged <= KILLS
    log.close()
    summary = ConversationStore(tmp_path).summaries()[0]
    assert summary.message_count == len(shown)
