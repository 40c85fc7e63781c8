"""A key press: the exact size of the next prompt with one more letter in the draft."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from tui_chat.bench import plain
from tui_chat.bench.desk import GUIDE, Desk, check_same, desk_of, folder_of
from tui_chat.bench.harness import BenchError, Report, Row, Setup, gain, interleave
from tui_chat.chat.draft_meter import DraftMeter
from tui_chat.chat.session import Session
from tui_chat.engine.base import Engine
from tui_chat.engine.tokenizer import ChatTokenizer
from tui_chat.store.log import MemoryLog
from tui_chat.types import Message, Role

RUNS = 7
TOKENS = 3500
WORDS = 40
"""Of a message, and of a draft when its last letters are typed."""
PRESSES = 10
"""Key presses that one figure is the mean of."""
SLOW_PRESSES = 2
_MOST_MESSAGES = 1000


class _Counter:
    """As much of an engine as counts."""

    context_window = 2 * TOKENS
    exact_counts = counts_here = True

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        return self._tokenizer.count_tokens(messages, thinking)

    def count_message(self, message: Message) -> int:
        return self._tokenizer.count_message(message)


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Count a draft behind a chat of 3,500 tokens anew for each letter that is typed.

    Raises:
        BenchError: a count is not that of the tokenizer, or the model cannot be read.
    """
    desk = desk_of(setup, folder_of(setup.model or GUIDE))
    history, tokens = _history(desk)
    log = MemoryLog()
    for message in history:
        log.append(message)
    # Counted by itself however long it takes, so that a busy machine changes no side.
    meter = DraftMeter(Session(cast(Engine, _Counter(desk.chat)), log), clock=lambda: 0.0)
    meter.measure("")

    def prompt(draft: str) -> list[Message]:
        return [*history, Message("draft", Role.USER, draft, history[0].created_at)]

    def ours(draft: str) -> int:
        size = meter.recount(draft)
        if size is None:
            raise BenchError("A key press was not counted by itself.")
        return size.plan.prompt_tokens

    for draft in _typed(desk):
        check_same("keystroke", ours(draft), plain.count(desk.hf, prompt(draft)), "count")

    def tokenized() -> float:
        texts = [plain.build_prompt(desk.hf, prompt(d)) for d in _typed(desk)[:SLOW_PRESSES]]
        started = time.perf_counter()
        for text in texts:
            len(plain.tokenize(desk.hf, text))
        return (time.perf_counter() - started) * 1000 / len(texts)

    def recounted() -> float:
        known, *drafts = _typed(desk)
        ours(known)  # the key press before
        started = time.perf_counter()
        for draft in drafts:
            ours(draft)
        return (time.perf_counter() - started) * 1000 / len(drafts)

    found = interleave(
        {"plain": tokenized, "tui-chat": recounted},
        setup.runs or RUNS,
        lambda line: report(f"keystroke, {line} ms"),
    )
    note = (
        f"a letter more in a draft of {WORDS} words behind {len(history)} messages of "
        f"{tokens:,} tokens; before: tokenize the rendered prompt (rendering it not counted)"
    )
    yield gain("keystroke", found["plain"], found["tui-chat"], unit="ms", note=note)


def _history(desk: Desk) -> tuple[list[Message], int]:
    """Messages whose prompt has about `TOKENS` tokens, the last one a reply."""
    messages = desk.writer.history(_MOST_MESSAGES, WORDS)
    low, high = 1, _MOST_MESSAGES // 2
    while low < high:
        middle = (low + high) // 2
        if plain.count(desk.hf, messages[: 2 * middle]) < TOKENS:
            low = middle + 1
        else:
            high = middle
    before = [None, *(message.id for message in messages)]
    pairs = zip(messages[: 2 * low], before, strict=False)
    history = [replace(message, parent_id=parent) for message, parent in pairs]
    return history, plain.count(desk.hf, history)


def _typed(desk: Desk) -> list[str]:
    """A draft that was never seen before, and as each of its last letters is typed."""
    text = desk.writer.prose(WORDS)
    return [text[: len(text) - PRESSES + press] for press in range(PRESSES + 1)]
