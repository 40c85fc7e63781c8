"""Replies that are hard to show: how long they hold up the event loop, and whether all is shown.

Each is written by the scripted engine into the running app, once at a thousand tokens a second and
once as fast as it comes. A clock in the event loop tells its longest delay. The time in which the
loop was ready to run and others had the processor is taken off, for it says nothing on a machine
that is shared; the delay with it is told beside. In the end the terminal becomes so high that the
whole reply is seen in it, and what is seen must be the text.
"""

import random
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tui_chat.bench.chat import Chat
from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare
from tui_chat.bench.terminal import Terminal, private_environment
from tui_chat.bench.texts import english

RUNS = 1
COLUMNS, LINES = 100, 30
RATES = {"at 1,000 a second": 1000, "at once": 0}
TARGET_MILLISECONDS = 100
SETTLE_SECONDS = 2.0
SHOWN_SECONDS = 60.0
"""How long a page of thousands of rows may take to be drawn."""
_NOT_TEXT = re.compile(r"[\s*•▪◦│┃|▏▎▍▌▐█▕▁▔─-]+")
"""Spaces, marks of items and edges: what the screen may write in another way."""


@dataclass(frozen=True, slots=True)
class Delay:
    """For how long the event loop did not go on."""

    milliseconds: float
    """Without the time in which others had the processor."""
    whole: float
    """With it."""
    own: float
    """Processor time of the loop in it, in milliseconds."""


def replies(size: float = 1.0) -> Mapping[str, str]:
    """The replies, by name; `size` is a share of their full size."""

    def count(full: int) -> int:
        return max(2, int(full * size))

    columns = range(count(20))
    table_rows = [
        "".join(f"| c {row}.{column} " for column in columns) + "|" for row in range(count(300))
    ]
    table_rows.insert(1, "|---" * len(columns) + "|")
    bullets = "\n".join(
        f"- item {number} with **strong** words and `code` in it" for number in range(count(500))
    )
    code = "\n".join(f"value_{number} = call({number}, 'text')" for number in range(count(5000)))
    return {
        "prose": english(count(2000)),
        "a table of 300x20": "\n".join(table_rows),
        "500 bullets": bullets,
        "a fence of 5,000 lines": f"```python\n{code}\n```",
        "a line of 200,000 characters": english(count(45_000)).replace("\n\n", " ")[
            : count(200_000)
        ],
        "a word of 200,000 letters": "".join(
            random.Random(0).choices("abcdefgh", k=count(200_000))
        ),
    }


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """A row for each reply and speed: the longest delay with ordinary prose before, its own after.

    Raises:
        BenchError: the app ended, or showed another text than the reply.
    """
    yield from rows(replies(), setup.runs or RUNS, report)


def rows(texts: Mapping[str, str], runs: int, report: Report) -> Iterator[Row]:
    """See `measure`; the first of `texts` is the ordinary one.

    Raises:
        BenchError: see `measure`.
    """
    for speed, rate in RATES.items():
        ordinary: list[Delay] = []
        for name, text in texts.items():
            found = []
            for number in range(runs):
                delays = delays_of(text, rate)
                found.append(max(delays, key=lambda delay: delay.milliseconds))
                report(f"stalls, {name} {speed}, run {number + 1} of {runs}: " + _told(found[-1]))
            ordinary = ordinary or found
            worst = max(found, key=lambda delay: delay.milliseconds)
            yield compare(
                f"stalls: {name}, {speed}",
                [delay.milliseconds for delay in ordinary],
                [delay.milliseconds for delay in found],
                unit="ms",
                note=f"before: ordinary prose; longest {_told(worst)}; "
                f"target {TARGET_MILLISECONDS} at most; all text was shown",
            )


def _told(delay: Delay) -> str:
    return (
        f"{delay.milliseconds:.0f} ms, of it {delay.own:.0f} ms processor time of the loop; "
        f"{delay.whole:.0f} ms with what others took"
    )


def delays_of(text: str, rate: int, *, reads_it: bool = True) -> list[Delay]:
    """Let the app write `text`; the delays of its event loop until it is at rest, one at least.

    With `reads_it` the whole of it is looked for on a high screen then, which takes a while.

    Raises:
        BenchError: see `measure`.
    """
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:
        home = Path(name)
        script, beats = home / "reply.md", home / "beats"
        script.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "tui_chat.bench.beat_worker", str(beats), "--no-ssh"]
        command += ["--model", f"echo:{script}", "--echo-rate", str(rate)]
        command += ["--max-new-tokens", "100000", "--context", "200000"]
        with Terminal(command, private_environment(home), columns=COLUMNS, lines=LINES) as terminal:
            terminal.wait_for("ready")
            time.sleep(SETTLE_SECONDS)
            begin = time.monotonic()
            chat = Chat(terminal, home)
            chat.send("Go on.")
            reply = chat.wait_for_reply()
            terminal.wait_for("tok/s ·")
            time.sleep(SETTLE_SECONDS)
            end = time.monotonic()
            if reply.content != text:
                raise BenchError(
                    f"What is on disk is not the text of the reply: {reply.finish_reason}, "
                    f"{len(reply.content)} of {len(text)} characters."
                )
            if reads_it:
                _check_shown(terminal, text)
        lines = [
            tuple(map(float, line.split()))
            for line in beats.read_text(encoding="ascii").splitlines()
        ]
    return [
        Delay((late - waited) * 1000, late * 1000, own * 1000)
        for at, late, own, waited in lines
        if begin < at < end
    ] or [Delay(1.0, 1.0, 0.0)]


def _check_shown(terminal: Terminal, text: str) -> None:
    """Make the terminal so high that all is seen, and compare.

    Raises:
        BenchError: something else is shown.
    """
    wanted = _bare("\n".join(line for line in text.splitlines() if not _is_mark(line)))
    rows = len(text) // (COLUMNS - 20) + 2 * len(text.splitlines()) + 100
    terminal.resize(COLUMNS, rows)
    deadline = time.monotonic() + SHOWN_SECONDS
    while wanted not in (shown := _bare(terminal.screen)):
        if time.monotonic() > deadline:
            same = next((n for n in range(len(wanted), 0, -100) if wanted[:n] in shown), 0)
            raise BenchError(
                f"The screen does not show the reply: of {len(wanted)} signs about {same} are "
                f"there, then comes {wanted[same : same + 40]!r} missing."
            )
        time.sleep(0.5)


def _is_mark(line: str) -> bool:
    """Whether a line only opens or closes code."""
    return line.startswith("```")


def _bare(text: str) -> str:
    return _NOT_TEXT.sub("", text).replace("`", "")
