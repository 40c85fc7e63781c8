"""From a key press to its letter on the screen: while a reply is generated, against idle.

Letters are typed into the box one by one at a real terminal, at irregular moments, first at rest
and then while the model writes as fast as it can; each waits for the one before.
"""

import random
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

from tui_chat.bench.chat import NEW_CHAT, STOP, Chat, running_chat
from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare, interleave
from tui_chat.bench.models import random_model
from tui_chat.types import Mode

RUNS = 3
KEYS = 120
"""Of each side in one round."""
COLUMNS, LINES = 100, 30
PAUSE_SECONDS = (0.05, 0.25)
"""Between two keys: no frame and no token keeps the same time."""
SETTLE_SECONDS = 1.0
ERASED_SECONDS = 30.0
BACKSPACE = "\x7f"
_START = "qzqx"
"""Begins what is typed, so that it is found nowhere else on the screen."""
LETTERS = "jvkwxzyqjkvzwxqy"
TOKENS = 3_500
SHARES = {"p50": (0.50, 1.5), "p99": (0.99, 3.0)}
"""What of all key presses is looked at, and how many times that of the idle app it may be."""
MOST_MILLISECONDS = 100


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows for each model: the median, and what one key press in a hundred takes longer than.

    Raises:
        BenchError: the app ended, has no model or showed nothing.
    """
    keys, runs = setup.tokens or KEYS, setup.runs or RUNS
    if setup.model:
        yield from rows(Path(setup.model).name, ["--model", setup.model], keys, runs, report)
        return
    for shape in setup.shapes:
        folder = setup.kept.get(shape, partial(random_model, shape, report))
        yield from rows(shape, ["--model", str(folder)], keys, runs, report)


def rows(name: str, options: Sequence[str], keys: int, runs: int, report: Report) -> Iterator[Row]:
    """See `measure`; `options` are those of tui-chat.

    Raises:
        BenchError: see `measure`.
    """
    options = [*options, "--mode", str(Mode.SPEED), "--max-new-tokens", str(TOKENS)]
    pressed: dict[str, list[float]] = {"idle": [], "generating": []}
    with running_chat(options, columns=COLUMNS, lines=LINES) as chat:
        chat.send("Tell me a story, as long as you can.")
        chat.terminal.wait_for("tok/s")
        _stop(chat)

        def idle() -> float:
            times = list(islice(_at_rest(chat), keys))
            pressed["idle"] += times
            return _share(times, 0.5)

        def generating() -> float:
            times = list(islice(_while_generating(chat), keys))
            _stop(chat)
            pressed["generating"] += times
            return _share(times, 0.5)

        medians = interleave(
            {"idle": idle, "generating": generating},
            runs,
            lambda line: report(f"key-echo {name}, {line} ms"),
        )
    for side in pressed:
        del pressed[side][: -keys * len(medians["idle"])]  # the warm-up
    for which, (share, most) in SHARES.items():
        before, after = (
            medians.values()
            if which == "p50"
            else ([_share(pressed[side], share)] for side in pressed)
        )
        note = f"{name}, {len(pressed['idle'])} keys of each side, ratio {most} at most"
        if which == "p99":
            slowest = max(pressed["generating"])
            note += f", after {MOST_MILLISECONDS} ms at most; the slowest of all {slowest:.0f} ms"
        yield compare(f"key-echo {name} {which}", before, after, unit="ms", note=note)


def _at_rest(chat: Chat) -> Iterator[float]:
    while True:
        yield from _typed(chat)


def _while_generating(chat: Chat) -> Iterator[float]:
    """Times of keys that were all pressed while a reply came."""
    while True:
        chat.new_replies()
        chat.terminal.type(NEW_CHAT)
        chat.send("Tell me another story, as long as you can.")
        chat.terminal.wait_for("tok/s")
        time.sleep(SETTLE_SECONDS)
        while not chat.new_replies():
            times = list(_typed(chat))
            if not chat.new_replies():
                yield from times
                continue
            break


def _typed(chat: Chat) -> Iterator[float]:
    """Type some letters and take them away again; milliseconds until each was shown.

    Raises:
        BenchError: the app ended, or does not take them.
    """
    terminal = chat.terminal
    chance = random.Random(terminal.received)
    terminal.type(_START)
    terminal.wait_for(_START)
    shown = _START
    for letter in LETTERS:
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        shown += letter
        pressed = terminal.type(letter)
        yield (terminal.wait_for(shown) - pressed) * 1000
    terminal.type(BACKSPACE * len(shown))
    deadline = time.monotonic() + ERASED_SECONDS
    while _START in terminal.screen:
        if time.monotonic() > deadline:
            raise BenchError(f"Letters cannot be taken away: {terminal.tail()}")
        time.sleep(PAUSE_SECONDS[0])


def _stop(chat: Chat) -> None:
    """End the reply and wait until the app is at rest.

    Raises:
        BenchError: it does not end.
    """
    chat.terminal.type(STOP)
    if not chat.new_replies():
        chat.wait_for_reply(timeout=30.0)
    time.sleep(SETTLE_SECONDS)


def _share(times: list[float], share: float) -> float:
    """What `share` of the times do not exceed.

    Raises:
        BenchError: there are none.
    """
    if not times:
        raise BenchError("No key was pressed.")
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
