"""Our client of a server against a bare one: CPU time of a reply, and how soon its begin is told.

The bare one is a loop over httpx2's own events that parses each as JSON. Both read the same
reply of the same server, which is a process of its own; CPU time is that of all our threads.
"""

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare, interleave
from tui_chat.bench.stream_server import MODEL, TOKENS
from tui_chat.chat.session import Session
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine
from tui_chat.servers import model_name, server_at
from tui_chat.store.log import MemoryLog
from tui_chat.types import (
    GenerationSettings,
    Message,
    Mode,
    ModelSpec,
    ReplyFinished,
    Role,
    TextDelta,
)

if TYPE_CHECKING:
    import httpx2

RUNS = 15
MOST_RATIO, MOST_MILLISECONDS = 1.10, 30
SETTINGS = GenerationSettings(max_new_tokens=TOKENS)
QUESTION = "Why is the sky blue?"
BODY: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": QUESTION}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
Texts = Callable[[], Iterator[str]]


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows: CPU time of a reply of 2,000 tokens, and the way of its first token.

    Raises:
        BenchError: the server did not start, or a side lost a token.
    """
    with _sides() as sides:
        runs = setup.runs or RUNS
        cpu = {
            "bare": _cpu(sides.bare),
            "tui-chat": _cpu(sides.ours),
            "bytes": _cpu(sides.bytes_alone, tokens=0),
        }
        found = interleave(cpu, runs, lambda line: report(f"server, {line} ms"))
        alone = statistics.median(found["bytes"])
        yield compare(
            f"server: CPU, {TOKENS:,} tokens",
            found["bare"],
            found["tui-chat"],
            unit="ms",
            note=f"ratio: after/before, target {MOST_RATIO:.2f} at most; before: httpx2's events, "
            f"each parsed; to read the bytes alone took {alone:.1f} ms; no token was lost",
        )
        first = {"bare": _first(sides.bare), "tui-chat": _first(sides.session)}
        found = interleave(first, runs, lambda line: report(f"server, first token, {line} ms"))
        yield compare(
            "server: first token",
            found["bare"],
            found["tui-chat"],
            unit="ms",
            note="from the server's write to the event for the screen, target "
            f"{MOST_MILLISECONDS} ms at most; the longest took {max(found['tui-chat']):.1f} ms",
        )


@dataclass(frozen=True, slots=True)
class _Sides:
    """The ways to the texts of one reply."""

    http: "httpx2.Client"
    url: str
    engine: Engine

    def bare(self) -> Iterator[str]:
        """What httpx2 gives, each event parsed."""
        import httpx2

        with self.http.stream("POST", self.url, json=BODY) as response:
            for event in httpx2.EventSource(response):
                if event.data == "[DONE]":
                    break
                for choice in json.loads(event.data)["choices"]:
                    if text := choice["delta"].get("content"):
                        yield text

    def bytes_alone(self) -> Iterator[str]:
        """Nothing: the bytes are read and dropped."""
        with self.http.stream("POST", self.url, json=BODY) as response:
            for _ in response.iter_raw():
                pass
        yield from ()

    def ours(self) -> Iterator[str]:
        """What the engine gives."""
        question = [Message("1", Role.USER, QUESTION, datetime.now(UTC))]
        for event in self.engine.stream(question, lambda: SETTINGS, threading.Event()):
            if isinstance(event, TextDelta):
                yield event.text

    def session(self) -> Iterator[str]:
        """What the session gives to the screen."""
        events = Session(self.engine, MemoryLog()).reply(
            QUESTION,
            mode=lambda: Mode.SPEED,
            settings=lambda _: SETTINGS,
            cancel=threading.Event(),
        )
        for event in events:
            if isinstance(event, TextDelta):
                yield event.text
            elif isinstance(event, ReplyFinished) and event.message.error:
                raise BenchError(event.message.error)


def _cpu(side: Texts, *, tokens: int = TOKENS) -> Callable[[], float]:
    """CPU milliseconds of all threads of this process for one reply."""

    def run() -> float:
        started = time.process_time()
        came = sum(1 for _ in side())
        spent = time.process_time() - started
        if came != tokens:
            raise BenchError(f"{came:,} of {tokens:,} tokens came.")
        return spent * 1000

    return run


def _first(side: Texts) -> Callable[[], float]:
    """Milliseconds from the moment that the first text names to its coming out here."""

    def run() -> float:
        texts = side()
        text = next(texts)
        came = time.monotonic_ns()
        for _ in texts:
            pass
        return (came - int(text.split(" ")[0])) / 1e6

    return run


@contextmanager
def _sides() -> Iterator[_Sides]:
    """Both clients of a server that streams, in a process of its own."""
    import httpx2

    server = subprocess.Popen(
        [sys.executable, "-m", "tui_chat.bench.stream_server"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port:
            raise BenchError("The server of the benchmark did not start; its error is above.")
        spec = server_at(f"http://127.0.0.1:{port}")
        named = ModelSpec(model_name(spec), server=spec)
        engine = open_engine(named, lambda _: None, threading.Event())
        with httpx2.Client(timeout=60) as http:
            yield _Sides(http, f"{spec.url}/chat/completions", engine)
        engine.close()
    finally:
        server.kill()
        server.communicate()
