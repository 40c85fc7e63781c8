"""The list and the search with 5,000 conversations against the same with 50, the index warm."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare, interleave
from tui_chat.bench.terminal import tui_chat_command
from tui_chat.bench.texts import Writer
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.records import encode, message_record
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation

RUNS = 9
FEW, MANY = 50, 5000
MESSAGES, WORDS = 6, 60
PAGE = 50
WORD = "harbour"
VOCABULARY = [a + b for a in ("ba", "de", "ki", "lo", "mu") for b in ("rin", "sto", "vel", "mar")]
CALLS = 20
"""Calls that one figure is the mean of."""
TARGET = 1.5


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Rows for a page of the list and of hits: in the process, and as whole commands.

    Raises:
        BenchError: a command failed.
    """
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:
        folder = Path(name)
        stores = {count: _filled(folder, count, report) for count in (FEW, MANY)}
        env = os.environ | {"TUI_CHAT_CACHE_DIR": str(folder / "cache")}

        def command(count: int, *arguments: str) -> Callable[[], float]:
            line = [*tui_chat_command(), *arguments, "--data-dir", str(folder / str(count))]
            return lambda: _seconds(line, env)

        def page(count: int) -> Callable[[], float]:
            return lambda: _mean(lambda: stores[count].summaries(PAGE, fresh=False))

        def hits(count: int) -> Callable[[], float]:
            return lambda: _mean(lambda: stores[count].search(WORD, PAGE, fresh=False))

        sides: dict[str, Callable[[int], Callable[[], float]]] = {
            f"list: a page of {PAGE}": page,
            f"search: {PAGE} hits": hits,
            f"tui-chat list --limit {PAGE}": lambda n: command(n, "list", "--limit", str(PAGE)),
            "tui-chat search": lambda n: command(n, "search", WORD),
        }
        for row, side in sides.items():
            found = interleave(
                {f"{row}, {count:,}": side(count) for count in (FEW, MANY)},
                setup.runs or RUNS,
                report,
            )
            note = f"{FEW} against {MANY:,} chats, target {TARGET} at most"
            yield compare(row, *found.values(), unit="s", note=note)


def _filled(folder: Path, count: int, report: Report) -> ConversationStore:
    """A store of `count` conversations, indexed."""
    write_chats(folder / str(count), count)
    store = ConversationStore(folder / str(count), folder / "cache")
    started = time.perf_counter()
    store.search(WORD)
    report(f"index of {count:,} chats: {time.perf_counter() - started:.2f} s")
    store.summaries()
    return store


def write_chats(data_dir: Path, count: int) -> None:
    """Write `count` conversations into a new data folder."""
    chats = data_dir / "chats"
    chats.mkdir(parents=True)
    writer = Writer([*VOCABULARY, WORD])
    for number in range(count):
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
        header = Conversation(f"{moment:%Y%m%d-%H%M%S}-{number:08x}", moment, model="guide")
        tree = MessageTree(header)
        for message in writer.history(MESSAGES, WORDS):
            tree.apply(message_record("msg", message))
        data = b"".join(map(encode, tree.records()))
        (chats / f"{header.id}.jsonl").write_bytes(data)


def _mean(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS


def _seconds(command: list[str], env: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}")
    return time.perf_counter() - started
