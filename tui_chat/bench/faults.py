"""Faults thrown at the running program: does it end in time, well, and with nothing lost?

Each fault starts tui-chat in a terminal of its own, lets it start, load, read a prompt, write a
reply or save it, and then sends a signal, closes the terminal or lets it hang. What was on disk
before must be there after; of a reply at most the last two seconds may be missing.
"""

import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tui_chat.bench.chat import FIRST_SCREEN
from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare
from tui_chat.bench.terminal import Terminal, login_command, private_environment, tui_chat_command
from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.types import Message, Role

RUNS = 40
MOST_SECONDS = 6.0
"""How long the program may take to be gone."""
LOST_SECONDS = 2.0
"""How much of a reply a kill may cost."""
CLOCK_SECONDS = 0.5
"""How late a busy machine may be with what is compared to the clock."""
RATE = 100
WORDS = tuple(f"w{number:05}" for number in range(20_000))
QUIT = "\x11"
PHASES = ("start", "load", "prefill", "decode", "save")
SIGNALS = {
    "SIGTERM": signal.SIGTERM,
    "SIGHUP": signal.SIGHUP,
    "SIGINT": signal.SIGINT,
    "SIGKILL": signal.SIGKILL,
}
# Before our first line the interpreter itself may tell where it was when it was interrupted.
TRACEBACK = re.compile(rb'Traceback(?s:.)*?File "[^"]*tui_chat/(?!__main__)')
FAULTS = (*SIGNALS, "storm", "hang-up", "hang-up, SIGHUP ignored", "stalled terminal")


@dataclass(slots=True)
class Outcome:
    """What one fault came to."""

    seed: int
    phase: str
    fault: str
    seconds: float = 0.0
    """Until the process was gone."""
    lost_seconds: float = 0.0
    """Of the reply, that are not on disk."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        what = "; ".join(self.problems) or "well"
        return f"{self.fault} during {self.phase} (seed {self.seed}): {what}"


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """One row: the faults that were thrown and those that were survived.

    Raises:
        BenchError: a fault was not survived; the sentence names it and its seed.
    """
    outcomes = []
    for number in range(setup.runs or RUNS):
        outcome = throw_fault(setup.seed + number)
        report(f"fault {number + 1}: {outcome}, gone after {outcome.seconds:.1f} s")
        outcomes.append(outcome)
    bad = [outcome for outcome in outcomes if outcome.problems]
    kinds = Counter(outcome.phase for outcome in outcomes)
    phases = ", ".join(f"{count} during {phase}" for phase, count in sorted(kinds.items()))
    slowest = max(outcome.seconds for outcome in outcomes)
    lost = max(outcome.lost_seconds for outcome in outcomes)
    note = f"{phases}; slowest end {slowest:.1f} s, most text lost {lost:.1f} s; seed {setup.seed}"
    survived = len(outcomes) - len(bad)
    if survived:
        yield compare("faults", [len(outcomes)], [survived], unit="faults", note=note)
    if bad:
        raise BenchError("Not survived: " + " | ".join(map(str, bad)))


def throw_fault(seed: int) -> Outcome:
    """Start the program, do to it what `seed` decides, and look at what is left."""
    chance = Random(seed)
    outcome = Outcome(seed, chance.choice(PHASES), chance.choice(FAULTS))
    with tempfile.TemporaryDirectory(prefix="tui-chat-faults-") as name:
        home = Path(name)
        words = WORDS if outcome.phase == "decode" else WORDS[:40]
        script = home / "reply.txt"
        script.write_text(" ".join(words), encoding="utf-8")
        scripted = outcome.phase in ("decode", "save")
        model = f"echo:{script}" if scripted else "guide"
        options = ["--model", model, "--echo-rate", str(RATE)]
        command = login_command(
            [*tui_chat_command(), *options], ignores_hang_up=outcome.fault.endswith("ignored")
        )
        with Terminal(command, private_environment(home)) as terminal:
            try:
                begun = _reach(outcome.phase, terminal, home, chance)
                _throw(outcome, terminal, home, script.read_text(encoding="utf-8"), begun)
            except BenchError as error:
                outcome.problems.append(str(error))
    return outcome


def _reach(phase: str, terminal: Terminal, home: Path, chance: Random) -> float:
    """Bring the program into `phase`; the moment its reply began, 0.0 where there is none.

    Raises:
        BenchError: it did not come so far.
    """
    if phase == "start":
        time.sleep(chance.uniform(0.0, 0.6))
        return 0.0
    if phase == "load":
        terminal.wait_for(FIRST_SCREEN)
        time.sleep(chance.uniform(0.0, 1.5))
        return 0.0
    terminal.wait_for("· cpu ·")
    prompt = "hello" if phase != "prefill" else "Tell me how to load a model. " * 60
    terminal.type(f"{prompt}\r")
    if phase == "prefill":
        time.sleep(chance.uniform(0.0, 0.3))
        return 0.0
    _wait_for_record(home, b'{"t":"begin"')
    begun = time.monotonic()
    middle = chance.uniform(0.0, 4.0) if phase == "decode" else chance.uniform(0.3, 0.6)
    time.sleep(middle)
    return begun


def _wait_for_record(home: Path, start: bytes) -> None:
    deadline = time.monotonic() + 30.0
    while start not in _stored(home):
        if time.monotonic() > deadline:
            raise BenchError("no reply was begun within half a minute")
        time.sleep(0.005)


def _stored(home: Path) -> bytes:
    """The conversation file as it is now; empty while there is none."""
    chats = sorted((home / "data" / "chats").glob("*.jsonl"))
    return chats[0].read_bytes() if chats else b""


def _throw(outcome: Outcome, terminal: Terminal, home: Path, script: str, begun: float) -> None:
    before = _stored(home)
    shown = terminal.output
    thrown = time.monotonic()
    number = SIGNALS.get(outcome.fault, signal.SIGTERM)
    match outcome.fault:
        case "hang-up" | "hang-up, SIGHUP ignored":
            number = signal.SIGHUP
            terminal.hang_up()
        case "stalled terminal":
            terminal.stall()
            terminal.type("x" * 200)
            time.sleep(0.5)
            thrown = time.monotonic()
            terminal.process.send_signal(number)
        case "storm":
            for _ in range(50):
                if terminal.is_running:
                    terminal.process.send_signal(number)
        case _:
            terminal.process.send_signal(number)
    code = terminal.exit_code(3 * MOST_SECONDS)
    outcome.seconds = time.monotonic() - thrown
    _judge_end(outcome, code, number)
    if TRACEBACK.search(terminal.output):
        outcome.problems.append("a traceback is on the screen")
    closed = outcome.fault.startswith(("hang-up", "stalled"))
    if not closed and b"\x1b[?1049h" in shown + terminal.output:
        _judge_terminal(outcome, terminal)
    _judge_files(outcome, home, before, script, thrown - begun if begun else 0.0)


def _judge_end(outcome: Outcome, code: int | None, number: int) -> None:
    if code is None:
        outcome.problems.append("it never ended")
        return
    if outcome.seconds > MOST_SECONDS:
        outcome.problems.append(f"it took {outcome.seconds:.1f} s to end")
    if outcome.phase == "start" and code != 0 and (code != 1 or number == signal.SIGHUP):
        return  # before the screen is up a signal may do what it does to any program
    expected = -number if number == signal.SIGKILL else 128 + number
    if code != expected:
        outcome.problems.append(f"exit code {code} and not {expected}")


def _judge_terminal(outcome: Outcome, terminal: Terminal) -> None:
    deadline = time.monotonic() + 5.0
    modes = (b"1049", b"1003", b"2004")
    while time.monotonic() < deadline:
        output = terminal.output
        left_on = [m for m in modes if output.rfind(b"?%sh" % m) > output.rfind(b"?%sl" % m)]
        if not left_on:
            break
        time.sleep(0.05)
    if left_on:
        outcome.problems.append(f"terminal modes left on: {b' '.join(left_on).decode()}")


def _judge_files(outcome: Outcome, home: Path, before: bytes, script: str, elapsed: float) -> None:
    after = _stored(home)
    acknowledged = before[: before.rfind(b"\n") + 1]
    if not after.startswith(acknowledged):
        outcome.problems.append("something that was on disk is gone")
    messages = _messages(outcome, home)
    prompts = [message for message in messages if message.role is Role.USER]
    if b'"role":"user"' in acknowledged and not prompts:
        outcome.problems.append("the prompt is lost")
    replies = [message for message in messages if message.role is Role.ASSISTANT]
    if not elapsed:
        return
    if not replies:
        outcome.problems.append("the reply is lost")
        return
    reply = replies[-1]
    if not script.startswith(reply.content.rstrip()):
        outcome.problems.append("the reply is not what the model wrote")
    if reply.status == "complete":
        return
    wrote = len(reply.content.split()) / RATE
    outcome.lost_seconds = max(0.0, min(elapsed, len(script.split()) / RATE) - wrote)
    if outcome.lost_seconds > LOST_SECONDS + CLOCK_SECONDS:
        outcome.problems.append(f"{outcome.lost_seconds:.1f} s of the reply are lost")


def _messages(outcome: Outcome, home: Path) -> tuple[Message, ...]:
    store = ConversationStore(home / "data", home / "index")
    ids = sorted(path.stem for path in (home / "data" / "chats").glob("*.jsonl"))
    if not ids:
        return ()
    try:
        log = store.open(ids[0])
    except StoreError as error:
        outcome.problems.append(f"the chat cannot be opened: {error}")
        return ()
    if log.read_only:
        outcome.problems.append(f"the chat is read-only: {log.read_only_reason}")
    if log.damaged > (outcome.fault == "SIGKILL"):
        outcome.problems.append(f"{log.damaged} damaged records")
    conversation = log.conversation
    log.close()
    return conversation.messages
