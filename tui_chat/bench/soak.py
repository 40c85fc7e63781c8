"""Prompts one after another for minutes: is memory flat, is every thread gone, is the end clean?"""

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import psutil

from tui_chat.bench.chat import MODE, NEW_CHAT, QUIT, STOP, Chat, running_chat
from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare
from tui_chat.types import Message

SAMPLE_SECONDS = 2.0
KEY_SECONDS = 0.3
WARM_UP_SHARE = 0.2
WINDOW_SHARE = 0.1
"""Share of the time that a figure is the median of, after the warm-up and at the end."""
PROMPTS = (
    "What can you do?",
    "How do I start a new chat?",
    "How do I copy a code block over SSH?",
    "Which key stops a reply?",
    "How do I load a bigger model?",
    "What is the difference between speed and accuracy?",
    "Where are my conversations stored?",
    "How do I search my earlier chats?",
    "How do I change the theme?",
    "What happens when the context window is full?",
    "Does anything I type leave this machine?",
    "How do I rename this chat?",
    "Can I get a deleted chat back?",
    "What do the numbers in the status bar mean?",
    "How do I write a prompt of several lines?",
    "How do I quit?",
)
SIZES = ((80, 24), (200, 60), (60, 20), (120, 40))


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process held at one moment."""

    seconds: float
    """Since the first reply."""
    rss_bytes: int
    threads: int


@dataclass(slots=True)
class _Soak:
    """What is known of a soak so far."""

    chat: Chat
    process: psutil.Process
    seconds: float
    started: float
    samples: list[Sample] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def sample(self) -> None:
        """Look at the process, every two seconds at most."""
        last = self.samples[-1].seconds if self.samples else -math.inf
        # A short soak needs some samples in each of its windows too.
        if self.elapsed - last < min(SAMPLE_SECONDS, self.seconds * WINDOW_SHARE / 2):
            return
        try:
            with self.process.oneshot():
                rss, threads = self.process.memory_info().rss, self.process.num_threads()
        except psutil.Error:
            return
        self.samples.append(Sample(self.elapsed, rss, threads))

    def turn(self, number: int) -> None:
        """One prompt and its reply, with what a user does now and then in between."""
        terminal = self.chat.terminal
        if number % 7 == 0:
            terminal.type(MODE)
        if number % 10 == 0:
            terminal.type(NEW_CHAT)
        if number % 6 == 0:
            terminal.resize(*SIZES[number // 6 % len(SIZES)])
        self.chat.send(PROMPTS[number % len(PROMPTS)])
        if number % 9 == 0:
            time.sleep(KEY_SECONDS)
            terminal.type(STOP)
            # What follows an escape character at once is read as a key with Alt.
            time.sleep(KEY_SECONDS)
        self.replies.append(self.chat.wait_for_reply(self.sample))
        self.sample()


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows, memory and threads: after the warm-up before, at the end after.

    Raises:
        BenchError: the app failed, hung, or did not end with exit code 0 and a clean log.
    """
    options = ["--model", setup.model] if setup.model else []
    with running_chat(options) as chat:
        soak = _run(chat, setup.minutes * 60, report)
        chat.terminal.type(QUIT)
        code = chat.terminal.exit_code()
        log = chat.log.read_text(encoding="utf-8", errors="replace") if chat.log.exists() else ""
    tracebacks = log.count("Traceback (most recent call last)")
    failed = sum(reply.status == "failed" for reply in soak.replies)
    facts = (
        f"{len(soak.replies)} replies in {setup.minutes:g} minutes, {failed} failed, "
        f"{sum(reply.status == 'interrupted' for reply in soak.replies)} stopped; "
        f"exit code {'none' if code is None else code}, {tracebacks} tracebacks in the log"
    )
    yield from rows_of(soak.samples, soak.seconds, facts)
    if code != 0 or tracebacks or failed:
        raise BenchError(f"The soak did not end well: {facts}.")


def _run(chat: Chat, seconds: float, report: Report) -> _Soak:
    """Send prompts for `seconds`, from the first reply on."""
    chat.send(PROMPTS[0])
    chat.wait_for_reply()
    process = psutil.Process(chat.terminal.process.pid)
    soak = _Soak(chat, process, seconds, time.monotonic())
    told = 0.0
    for number in count(1):
        soak.turn(number)
        if soak.elapsed >= seconds:
            return soak
        if soak.elapsed - told >= max(10.0, seconds / 20):
            told = soak.elapsed
            rss = soak.samples[-1].rss_bytes / 1e6
            report(f"soak, {told:.0f} s: {len(soak.replies)} replies, {rss:.1f} MB")
    raise BenchError("The soak ended early.")


def rows_of(samples: Sequence[Sample], seconds: float, facts: str) -> Iterator[Row]:
    """Compare the window after the warm-up with the one at the end of `seconds`.

    Raises:
        BenchError: there are no samples in one of the two.
    """
    width = seconds * WINDOW_SHARE
    begin = seconds * WARM_UP_SHARE
    early = [sample for sample in samples if begin <= sample.seconds < begin + width]
    late = [sample for sample in samples if sample.seconds >= seconds - width]
    if not early or not late:
        raise BenchError("The soak was too short to compare its beginning and end.")
    peak = max(sample.rss_bytes for sample in samples) / 1e6
    yield compare(
        "soak memory",
        [statistics.median(sample.rss_bytes for sample in early) / 1e6],
        [statistics.median(sample.rss_bytes for sample in late) / 1e6],
        unit="MB",
        note=f"target: flat, a ratio near 1; peak {peak:.1f} MB; {facts}",
    )
    yield compare(
        "soak threads",
        [statistics.median(sample.threads for sample in early)],
        [statistics.median(sample.threads for sample in late)],
        unit="threads",
        note="target: a ratio of 1",
    )
