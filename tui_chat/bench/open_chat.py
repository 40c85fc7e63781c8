"""Opening a chat of 10,000 and of 100,000 messages against one of 10: until its last page is seen,
the call alone against reading the whole file, and the memory that the app then has."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import psutil

from tui_chat.bench.harness import Measure, Report, Row, Setup, compare, gain, interleave
from tui_chat.bench.library import VOCABULARY
from tui_chat.bench.terminal import Terminal, private_environment, tui_chat_command
from tui_chat.bench.texts import Writer, pieces
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.records import encode, header_record, message_record
from tui_chat.types import Conversation, Message, Mode, Precision, ReplyMetrics, Role

RUNS = 9
COUNTS = (10, 10_000, 100_000)
TARGETS = {10_000: 1.5, 100_000: 3.0}
WORDS = 180
"""Of a reply; a question has a sixth of it."""
PARTS = 3
"""So often a reply is saved while it is written."""
MEMORY_RUNS = 3
LOOK_SECONDS, CALM_LOOKS, BUSY_SHARE = 0.25, 4, 0.1
"""An app that takes less of a processor than this share, so often in a row, is idle."""
LIBRARY, DOWN, ENTER = "\x0f", "\x1b[B", "\r"
_START = datetime(2026, 1, 1, tzinfo=UTC)
_METRICS = ReplyMetrics(1000, 900, WORDS, 0.001, 0.2, 1.5, Precision.FP16, 2**30)


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows until the last page is seen, two for the call alone, one for memory.

    Raises:
        BenchError: the app ended, or showed nothing.
    """
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:
        home = Path(name)
        for count in COUNTS:
            size = _write_chat(home / "data" / "chats", count)
            report(f"a chat of {count:,} messages: {size / 1e6:.1f} MB")
        (home / "script").write_text("A reply.", encoding="utf-8")
        store = ConversationStore(home / "data", home / "cache")
        store.summaries()
        yield from _pages(home, setup.runs or RUNS, report)
        yield from _calls(store, setup.runs or RUNS, report)
        yield from _memory(home, report)


def _pages(home: Path, runs: int, report: Report) -> Iterator[Row]:
    """The time from the key in the list of chats to the last words of the chat."""
    with ExitStack() as stack:
        terminal = stack.enter_context(_app(home))

        def page(count: int) -> Measure:
            return lambda: _open(terminal, count)

        found = interleave({f"open {count:,}": page(count) for count in COUNTS}, runs, report)
    few, *others = found.values()
    for count, many in zip(COUNTS[1:], others, strict=True):
        yield compare(
            f"open {count:,}: last page seen",
            few,
            many,
            unit="s",
            note=f"{COUNTS[0]} against {count:,} messages, target {TARGETS[count]} at most",
        )


def _calls(store: ConversationStore, runs: int, report: Report) -> Iterator[Row]:
    """The call that the app opens a chat with, against reading all of the file."""

    def opened(count: int) -> float:
        started = time.perf_counter()
        log = store.open(_id(count))
        seconds = time.perf_counter() - started
        log.close()
        return seconds

    def read(count: int) -> float:
        started = time.perf_counter()
        store.read(_id(count))
        return time.perf_counter() - started

    for count in COUNTS[1:]:
        sides: dict[str, Callable[[], float]] = {
            f"read all {count:,}": lambda count=count: read(count),  # type: ignore[misc]
            f"open() {count:,}": lambda count=count: opened(count),  # type: ignore[misc]
        }
        found = interleave(sides, min(runs, 3), report)
        yield gain(f"open() {count:,}", *found.values(), unit="s", note="against the whole file")


def _memory(home: Path, report: Report) -> Iterator[Row]:
    """What a fresh app holds once a chat is shown and its prompt is counted."""

    def held(count: int) -> Measure:
        def megabytes() -> float:
            with _app(home) as terminal:
                _open(terminal, count)
                _wait_until_idle(terminal)
                return float(psutil.Process(terminal.process.pid).memory_info().rss / 1e6)

        return megabytes

    found = interleave(
        {f"memory with {count:,}, MB": held(count) for count in COUNTS},
        MEMORY_RUNS,
        report,
        warm_up=False,
    )
    for (few, before), (many, after) in pairwise(zip(COUNTS, found.values(), strict=True)):
        yield compare(
            f"open {many:,}: memory of the app",
            before,
            after,
            unit="MB",
            note=f"{few:,} against {many:,} messages, target: flat, a ratio near 1",
        )


def _app(home: Path) -> Terminal:
    """The app in a terminal, ready, with these chats in its list."""
    command = [*tui_chat_command(), "--model", f"echo:{home / 'script'}"]
    terminal = Terminal(command, private_environment(home))
    try:
        terminal.wait_for("· cpu ·")
    except BaseException:
        terminal.kill()
        raise
    return terminal


def _open(terminal: Terminal, count: int) -> float:
    """Choose a chat in the list; seconds from the last key to the last words on the screen."""
    terminal.type(LIBRARY)
    terminal.wait_for(_title(COUNTS[0]))
    terminal.type(DOWN * COUNTS.index(count))
    _wait_until_idle(terminal)
    pressed = terminal.type(ENTER)
    return terminal.wait_for(_last_words(count)) - pressed


def _wait_until_idle(terminal: Terminal) -> None:
    """Wait until the app has nothing to do, not even with the chat that was opened before."""
    process = psutil.Process(terminal.process.pid)
    calm, last = 0, -1.0
    while calm < CALM_LOOKS:
        time.sleep(LOOK_SECONDS)
        now = sum(process.cpu_times()[:2])
        calm, last = calm + 1 if now - last < LOOK_SECONDS * BUSY_SHARE else 0, now


def _write_chat(folder: Path, count: int) -> int:
    """A chat as the app leaves it: each reply begun, saved in parts and ended; its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    # The chat of the fewest messages was used last, so it stands first in the list.
    moment = _START - timedelta(days=COUNTS.index(count))
    writer = Writer(VOCABULARY)
    header = Conversation(_id(count), moment, _title(count), "guide")
    parent: str | None = None
    with (folder / f"{header.id}.jsonl").open("wb") as file:
        file.write(encode(header_record(header)))
        for number in range(0, count, 2):
            words = writer.prose(WORDS // 6)
            question = Message(_message_id(number), Role.USER, words, moment, parent)
            end = f" {_last_words(count)}" if number + 2 == count else ""
            reply = Message(
                _message_id(number + 1),
                Role.ASSISTANT,
                writer.prose(WORDS) + end,
                moment,
                question.id,
                finish_reason="stop",
                model="guide",
                tokenizer_id="guide:00",
                mode=Mode.SPEED,
                token_count=WORDS,
                metrics=_METRICS,
            )
            file.writelines(map(encode, _records(question, reply)))
            parent = reply.id
        return file.tell()


def _records(question: Message, reply: Message) -> Sequence[dict[str, object]]:
    begun = replace(reply, content="", finish_reason=None, token_count=None, metrics=None)
    return [
        message_record("msg", question),
        message_record("begin", begun),
        *({"t": "part", "id": reply.id, "content": part} for part in pieces(reply.content, PARTS)),
        message_record("end", reply),
    ]


def _id(count: int) -> str:
    return f"{_START:%Y%m%d-%H%M%S}-{count:08x}"


def _message_id(number: int) -> str:
    return UUID(int=(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).hex


def _title(count: int) -> str:
    return f"A chat of {count:,}"


def _last_words(count: int) -> str:
    return f"last-of-{count}-messages"
