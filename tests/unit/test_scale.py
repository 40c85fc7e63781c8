"""What opening, listing and looking at the end cost does not grow with what lies on the disk.

Counted are bytes of memory and files, not seconds: these are the same on every machine.
"""

import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tui_chat.store.conversations import ConversationStore
from tui_chat.store.records import encode, header_record, message_record
from tui_chat.types import Conversation, Message, Role

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ID = "20260301-120000-{:08x}"
WORDS = "Words of a message that is as long as many are. " * 8


def write_chat(folder: Path, number: int, count: int, text: str = WORDS) -> Path:
    """A chat of `count` messages, each after the one before."""
    name = ID.format(number)
    path = folder / "chats" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(encode(header_record(Conversation(name, START, title=f"Chat {number}"))))
        for at in range(count):
            role = (Role.USER, Role.ASSISTANT)[at % 2]
            before = f"m{at - 1}" if at else None
            message = Message(f"m{at}", role, f"{at} {text}", START, before)
            file.write(encode(message_record("msg", message)))
    return path


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that were held at once during a call, beyond those before it."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_opening_a_chat_takes_as_much_for_ten_thousand_messages_as_for_a_thousand(
    tmp_path: Path,
) -> None:
    sizes = {}
    for number, count in enumerate((100, 1_000, 10_000)):
        path = write_chat(tmp_path, number, count)

        def open_and_close(name: str = path.stem, last: int = count - 1) -> None:
            log = ConversationStore(tmp_path).open(name)
            assert log.conversation.messages[-1].content.startswith(f"{last} ")
            log.close()

        open_and_close()  # what is imported then is not counted
        sizes[count] = peak_of(open_and_close), path.stat().st_size
    (few, _), (many, size) = sizes[1_000], sizes[10_000]
    assert many < 1.2 * few
    assert many < size / 5


def test_a_huge_chat_is_listed_and_shown_in_the_preview_in_little_memory(tmp_path: Path) -> None:
    path = write_chat(tmp_path, 1, 60, "x" * 1_000_000)
    store = ConversationStore(tmp_path, tmp_path / "cache")

    def look() -> None:
        (summary,) = store.summaries()
        assert (summary.title, summary.message_count) == ("Chat 1", 60)
        assert len(store.last_messages(path.stem, 2)) == 2

    assert path.stat().st_size > 60_000_000
    assert peak_of(look) < 20_000_000


@pytest.mark.slow
def test_the_top_of_a_long_list_is_there_without_a_look_at_any_file(tmp_path: Path) -> None:
    for number in range(5_000):
        write_chat(tmp_path, number, 2, "short")
    assert len(ConversationStore(tmp_path, tmp_path / "cache").summaries()) == 5_000

    opened: list[str] = []
    counting = True

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if counting and event == "open" and str(arguments[0]).endswith(".jsonl"):
            opened.append(str(arguments[0]))

    sys.addaudithook(note)  # for good, so that it is told when to stop
    again = ConversationStore(tmp_path, tmp_path / "cache")
    top = again.summaries(100, fresh=False)
    assert (len(top), opened) == (100, [])
    changed = tmp_path / "chats" / f"{ID.format(7)}.jsonl"
    with open(changed, "ab") as file:
        file.write(encode(message_record("msg", Message("new", Role.USER, "new", START, "m1"))))
    opened.clear()
    assert len(again.summaries()) == 5_000
    counting = False
    assert set(opened) == {str(changed)}
