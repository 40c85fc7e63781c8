"""What happens between the model's steps: trim, count, build, tokenize, sample, clean."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tui_chat.bench import plain
from tui_chat.bench.desk import GUIDE, Desk, check_same, desk_of, folder_of
from tui_chat.bench.harness import BenchError, Report, Row, Setup, gain, interleave
from tui_chat.bench.texts import Writer, pieces
from tui_chat.chat.context import plan_context
from tui_chat.chat.reply import ReplyCleaner
from tui_chat.types import Message

RUNS = 7
MESSAGES, WORDS = 200, 40
TURN = 50
WINDOW, RESERVED = 4096, 512
VOCABULARY = 151_936
ZIPF_EXPONENT = 1.3
REPLY_BYTES, REPLY_TOKENS = 4096, 512
SLOW_CALLS, FAST_CALLS = 2, 50
"""Calls that one figure is the mean of, of the plain way and of ours."""
T = TypeVar("T")


def measure_trim(setup: Setup, report: Report) -> Iterator[Row]:
    """Choose what of 200 messages fits a budget when a message has come."""
    desk = desk_of(setup, folder_of(setup.model or GUIDE))
    history = desk.writer.history(MESSAGES, WORDS)
    budget = WINDOW - RESERVED
    desk.chat.count_tokens(history[:-1])
    for message in history:
        desk.chat.count_message(message)

    def ours(new: Message) -> int:
        plan = plan_context(
            [*history, new], WINDOW, RESERVED, desk.chat.count_message, desk.chat.count_tokens
        )
        exact = plan.prompt_tokens
        return exact if plan.kept[-1] is new and exact <= budget else -1

    def counted_questions() -> list[Message]:
        # The meter has counted a question by the time it is sent.
        questions = _questions(desk, FAST_CALLS)
        for question in questions:
            desk.chat.count_message(question)
        return questions

    new = desk.question(WORDS)
    plan = plan_context(
        [*history, new], WINDOW, RESERVED, desk.chat.count_message, desk.chat.count_tokens
    )
    check_same("trim", ours(new), plain.count(desk.hf, plan.kept), "length of the trimmed prompt")
    started = time.perf_counter()
    plain.trim_by_popping(desk.hf, [*history, new], budget)
    popping = time.perf_counter() - started
    found = interleave(
        {
            "plain": lambda: _mean(
                lambda new: plain.trim(desk.hf, [*history, new], budget),
                _questions(desk, SLOW_CALLS),
            ),
            "tui-chat": lambda: _mean(ours, counted_questions()),
        },
        setup.runs or RUNS,
        _for("trim", report),
    )
    note = (
        f"{MESSAGES} messages to {budget:,} tokens; before: re-tokenize each message "
        f"(dropping the oldest and counting all again took {popping * 1000:.0f} ms)"
    )
    yield _row("trim", found, note)


def measure_count(setup: Setup, report: Report) -> Iterator[Row]:
    """The exact length of a prompt of 200 messages, after one new message."""
    desk = desk_of(setup, folder_of(setup.model or GUIDE))
    history = desk.writer.history(MESSAGES, WORDS)
    note = f"{MESSAGES} messages after one new one; before: tokenize all"
    yield _grown(
        "count",
        history,
        desk,
        setup,
        report,
        before=lambda prompt: plain.count(desk.hf, prompt),
        after=desk.chat.count_tokens,
        note=note,
    )


def measure_build(setup: Setup, report: Report) -> Iterator[Row]:
    """The text of the prompt of turn 50."""
    desk = desk_of(setup, folder_of(setup.model or GUIDE))
    history = desk.writer.history(2 * TURN - 2, WORDS)
    yield _grown(
        "build-prompt",
        history,
        desk,
        setup,
        report,
        before=lambda prompt: plain.build_prompt(desk.hf, prompt),
        after=desk.chat.render,
        note=f"turn {TURN}; before: apply_chat_template over everything",
    )


def measure_tokenize(setup: Setup, report: Report) -> Iterator[Row]:
    """The token ids of the prompt of turn 50."""
    desk = desk_of(setup, folder_of(setup.model or GUIDE))
    history = desk.writer.history(2 * TURN - 2, WORDS)
    yield _grown(
        "tokenize",
        history,
        desk,
        setup,
        report,
        before=lambda prompt: plain.tokenize(desk.hf, plain.build_prompt(desk.hf, prompt)),
        after=lambda prompt: list(desk.chat.encode(prompt).token_ids),
        note=f"turn {TURN}; before: render and tokenize everything",
    )


def measure_sample(setup: Setup, report: Report) -> Iterator[Row]:
    """Draw a token with temperature and top-p from a vocabulary of 152,000."""
    import torch

    from tui_chat.engine.sampling import Sampler, SamplingSettings

    settings = SamplingSettings(do_sample=True, temperature=0.7, top_p=0.9, seed=0)
    generator = torch.Generator().manual_seed(0)
    ranks = torch.arange(1, VOCABULARY + 1, dtype=torch.float32)
    logits = (-ZIPF_EXPONENT * ranks.log())[torch.randperm(VOCABULARY, generator=generator)]
    sampler = Sampler(settings, "cpu", lambda token_id: False)
    warp = plain.processors(settings)
    prompt_ids = torch.zeros((1, 1), dtype=torch.long)
    expected = plain.probabilities(warp, prompt_ids, logits)[0]
    difference = float((sampler.probabilities(logits) - expected).abs().max())
    if difference > 1e-5:
        raise BenchError(f"The two distributions differ by {difference:.2g}.")
    threads = torch.get_num_threads()
    # Waiting for a second thread on a busy machine would be most of what is measured.
    torch.set_num_threads(1)
    found = interleave(
        {
            "plain": lambda: _mean(
                lambda _: plain.sample(warp, prompt_ids, logits), range(SLOW_CALLS * 4)
            ),
            "tui-chat": lambda: _mean(lambda _: sampler.sample(logits), range(FAST_CALLS * 4)),
        },
        setup.runs or RUNS,
        _for("sample", report),
    )
    torch.set_num_threads(threads)
    note = (
        f"temperature 0.7, top-p 0.9, {VOCABULARY:,} tokens of Zipf frequencies (exponent "
        f"{ZIPF_EXPONENT}), one thread; before: transformers' processors, softmax, multinomial"
    )
    yield _row("sample", found, note)


def measure_clean(setup: Setup, report: Report) -> Iterator[Row]:
    """Clean a reply of 4 kB that comes in 512 tokens."""
    writer = Writer(("reply", "window", "model", "terminal", "answer", "of", "the"))
    text = writer.prose(REPLY_BYTES // 6)[:REPLY_BYTES].strip()
    parts = list(pieces(f"assistant\n{text}<|im_end|>\n", REPLY_TOKENS))

    def ours() -> str:
        cleaner = ReplyCleaner()
        return "".join([cleaner.feed(part) for part in parts]) + cleaner.finish()

    check_same("clean", ours(), plain.clean_while_streaming(parts), "cleaned text")
    found = interleave(
        {
            "plain": lambda: _mean(lambda _: plain.clean_while_streaming(parts), range(SLOW_CALLS)),
            "tui-chat": lambda: _mean(lambda _: ours(), range(FAST_CALLS)),
        },
        setup.runs or RUNS,
        _for("clean", report),
    )
    note = f"{len(text):,} characters in {len(parts)} tokens; before: clean all so far per token"
    yield _row("clean", found, note)


def _grown(
    name: str,
    history: Sequence[Message],
    desk: Desk,
    setup: Setup,
    report: Report,
    *,
    before: Callable[[Sequence[Message]], object],
    after: Callable[[Sequence[Message]], object],
    note: str,
) -> Row:
    """The row of what is done to a known history with one new question behind it."""

    def prompts(count: int) -> list[list[Message]]:
        return [[*history, question] for question in _questions(desk, count)]

    # What ours knows by then: the prompt of the turn before.
    after(history[:-1])
    (prompt,) = prompts(1)
    check_same(name, after(prompt), before(prompt), "result")
    found = interleave(
        {
            "plain": lambda: _mean(before, prompts(SLOW_CALLS)),
            "tui-chat": lambda: _mean(after, prompts(FAST_CALLS)),
        },
        setup.runs or RUNS,
        _for(name, report),
    )
    return _row(name, found, note)


def _questions(desk: Desk, count: int) -> list[Message]:
    return [desk.question(WORDS) for _ in range(count)]


def _mean(call: Callable[[T], object], inputs: Sequence[T]) -> float:
    """Milliseconds of one call, over `inputs`."""
    started = time.perf_counter()
    for value in inputs:
        call(value)
    return (time.perf_counter() - started) * 1000 / len(inputs)


def _for(name: str, report: Report) -> Report:
    return lambda line: report(f"{name}, {line} ms")


def _row(name: str, found: dict[str, list[float]], note: str) -> Row:
    return gain(name, found["plain"], found["tui-chat"], unit="ms", note=note)
