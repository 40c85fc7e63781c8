"""What a streamed token costs beside its computing: bytes to the terminal and processor time.

Prose at 40 tokens a second from the scripted engine, in a terminal of 100x30, with the settings
for SSH and with those for a terminal on this machine. Bytes are all that the program sends from
the key that asks until the screen is still again, the figures under the reply with them. The time
of the screen is the processor time of the whole program over that while, less what `tui-chat ask`
takes for the same reply when its start is taken off.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tui_chat.bench.chat import Chat, running_chat
from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare, interleave
from tui_chat.bench.terminal import private_environment, tui_chat_command
from tui_chat.bench.texts import english

RUNS = 3
TOKENS = 600
RATE = 40
COLUMNS, LINES = 100, 30
STILL_SECONDS = 1.5
"""A screen that gets nothing for this long is still."""
PROFILES = {"ssh": ("--ssh", 100), "default": ("--no-ssh", 400)}
"""The flag of each, and how many bytes a token may take at most."""
MOST_MILLISECONDS = 1.5


@dataclass(slots=True)
class _Profile:
    """A running app, and what its replies took."""

    chat: Chat
    tokens: int
    sent: list[float] = field(default_factory=list)
    """Bytes a token, one figure for each reply."""

    def milliseconds(self) -> float:
        """Processor time of the program for each token of one reply.

        Raises:
            BenchError: the reply failed or was cut.
        """
        terminal = self.chat.terminal
        process = psutil.Process(terminal.process.pid)
        used, sent = _cpu_seconds(process), terminal.received
        self.chat.send("Go on.")
        reply = self.chat.wait_for_reply()
        if reply.status != "complete" or reply.token_count != self.tokens:
            raise BenchError(f"A reply failed: {reply.error or reply.finish_reason}")
        _wait_until_still(self.chat)
        self.sent.append((terminal.received - sent) / self.tokens)
        return (_cpu_seconds(process) - used) * 1000 / self.tokens


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows for each profile: bytes, and processor time of the screen.

    Raises:
        BenchError: the app ended, or a reply failed.
    """
    tokens = setup.tokens or TOKENS
    runs = setup.runs or RUNS
    text = english(tokens)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tui-chat-bench-")))
        script = home / "reply.md"
        script.write_text(text, encoding="utf-8")
        model = ["--model", f"echo:{script}", "--echo-rate", str(RATE)]
        model += ["--max-new-tokens", str(2 * tokens)]
        profiles = {
            name: _Profile(
                stack.enter_context(running_chat([*model, flag], columns=COLUMNS, lines=LINES)),
                tokens,
            )
            for name, (flag, _) in PROFILES.items()
        }
        for profile in profiles.values():
            profile.chat.terminal.wait_for("ready")
        start = _ask_milliseconds(home, model, 1)
        found = interleave(
            {
                "headless": lambda: _ask_milliseconds(home, model, 2 * tokens) - start,
                **{name: profile.milliseconds for name, profile in profiles.items()},
            },
            runs,
            lambda line: report(f"wire, {line} ms"),
        )
    plain = [len(text.encode()) / tokens] * runs
    headless = [max(total / tokens, 0.001) for total in found["headless"]]
    for name, profile in profiles.items():
        sent = profile.sent[-runs:]
        of = f"{tokens} tokens of prose at {RATE} a second, {COLUMNS}x{LINES}"
        note = f"{of}; before: the text alone; target {PROFILES[name][1]} at most"
        yield compare(f"wire {name}: bytes", plain, sent, unit="bytes/token", note=note)
        screen = [max(app - own, 0.001) for app, own in zip(found[name], headless, strict=True)]
        note = (
            f"{of}; before: headless; after: the app less headless; "
            f"target {MOST_MILLISECONDS} at most"
        )
        yield compare(f"wire {name}: screen CPU", headless, screen, unit="ms/token", note=note)


def _ask_milliseconds(home: Path, model: list[str], limit: int) -> float:
    """Processor time of the whole program for one reply of `limit` tokens without a screen.

    Raises:
        BenchError: it failed.
    """
    command = [*tui_chat_command(), *model[:-1], str(limit), "ask", "--save", "Go on."]
    nowhere = os.open(os.devnull, os.O_RDWR)
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            private_environment(home),
            file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, number) for number in (0, 1, 2)],
        )
        _, status, used = os.wait4(pid, 0)
    finally:
        os.close(nowhere)
    if status:
        raise BenchError(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return (used.ru_utime + used.ru_stime) * 1000


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _wait_until_still(chat: Chat) -> None:
    last = -1
    while last != chat.terminal.received:
        last = chat.terminal.received
        time.sleep(STILL_SECONDS)
