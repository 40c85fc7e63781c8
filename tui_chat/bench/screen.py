"""Decode speed in the app, at two terminal sizes, against the same engine without a screen.

The replies of the random models are Markdown: paragraphs, lists, titles and code.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path

from tui_chat.bench.chat import NEW_CHAT, Chat, running_chat
from tui_chat.bench.harness import BenchError, Measure, Report, Row, Setup, compare, interleave
from tui_chat.bench.models import random_model
from tui_chat.bench.workers import running_worker
from tui_chat.types import Message, Mode

SIZES = ((80, 24), (200, 60))
TOKENS = {"0.5b": 160, "30m": 600}
RUNS = 5
TARGETS = {"0.5b": 0.97, "30m": 0.92}
Prompts = Callable[[], str]


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows for each model: tokens per second headless before, in the app after.

    Raises:
        BenchError: a model cannot be built or loaded, or a reply failed.
    """
    if setup.model:
        yield from _rows(Path(setup.model).name, setup.model, setup, report)
        return
    for shape in setup.shapes:
        folder = setup.kept.get(shape, partial(random_model, shape, report))
        yield from _rows(shape, str(folder), setup, report)


def _rows(name: str, model: str, setup: Setup, report: Report) -> Iterator[Row]:
    tokens = setup.tokens or TOKENS.get(name, 256)
    numbers = count(1)

    def prompt() -> str:
        return f"Tell me story number {next(numbers)}, as long as you can."

    with ExitStack() as stack:
        worker = stack.enter_context(running_worker("our", model))

        def headless() -> float:
            answer = worker.ask(messages=[("user", prompt())], settings={"max_new_tokens": tokens})
            return float(answer["tokens_per_second"])

        measures: dict[str, Measure] = {"headless": headless}
        for columns, lines in SIZES:
            options = ["--model", model, "--mode", str(Mode.SPEED), "--max-new-tokens", str(tokens)]
            chat = stack.enter_context(running_chat(options, columns=columns, lines=lines))
            measures[f"{columns}x{lines}"] = _in_app(chat, prompt)
        found = interleave(
            measures, setup.runs or RUNS, lambda line: report(f"{name} {line} tokens/s")
        )
    target = f", target {TARGETS[name]} at least" if name in TARGETS else ""
    for columns, lines in SIZES:
        size = f"{columns}x{lines}"
        yield compare(
            f"screen {name} {size}",
            found["headless"],
            found[size],
            unit="tokens/s",
            note=f"ratio: after/before{target}; replies of {tokens} tokens of Markdown",
        )


def _in_app(chat: Chat, prompt: Prompts) -> Measure:
    def ask() -> float:
        chat.terminal.type(NEW_CHAT)
        chat.send(prompt())
        return _rate(chat.wait_for_reply())

    return ask


def _rate(message: Message) -> float:
    rate = message.metrics.tokens_per_second if message.metrics else 0.0
    if message.status != "complete" or not rate:
        raise BenchError(f"A reply in the app failed: {message.error or message.status}")
    return rate
