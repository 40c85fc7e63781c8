"""What the model's steps cost: decode in both modes, speculation, the first token, whole turns."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tui_chat.bench.desk import Desk, Subject, check_same, desk_of, subject_of, worker_of
from tui_chat.bench.harness import BenchError, Measure, Report, Row, Setup, gain, interleave
from tui_chat.bench.models import passages
from tui_chat.bench.workers import Answer, Side

SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0}
SPEED = {**SAMPLING, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
ACCURACY = {**SAMPLING, "repetition_penalty": 1.1, "no_repeat_ngram_size": 3}
GREEDY = {"do_sample": False, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
CONTEXTS = (1024, 3500)
DECODE_RUNS, DECODE_TOKENS = 3, 24
IDENTITY_TOKENS = 8
DECODE_ROWS = ("decode-speed", "decode-accuracy", "mode")

SPECULATION_RUNS, SPECULATION_TOKENS = 4, 64
PASSAGE_WORDS = 72
MISLEADING_WORDS, MISLEADING_STRIDE = 3, 9
LISTED = "The list below is to be copied, word for word."

TTFT_RUNS, TTFT_TURNS, TTFT_PLAIN_TURNS = 2, 10, (2, 5, 10)
TTFT_TOKENS, TTFT_REPLY = 2700, 40

TURNS_RUNS, TURNS, TURN_TOKENS, TURN_REPLY = 2, 4, 160, 32


def measure_decode(setup: Setup, report: Report) -> Iterator[Row]:
    """Tokens per second in both modes at two lengths of context; ours and plain `generate`."""
    subject = subject_of(setup, report)
    desk = desk_of(setup, subject.folder)
    tokens = setup.tokens or DECODE_TOKENS
    contexts = [size for size in CONTEXTS if size + tokens <= _window(setup, subject)]
    if not contexts:
        raise BenchError(
            f"The context window of {subject.name} is smaller than {CONTEXTS[0]} tokens."
        )
    for size in contexts:
        yield from _decode_at(size, desk, subject, tokens, setup, report)


def _decode_at(
    size: int, desk: Desk, subject: Subject, tokens: int, setup: Setup, report: Report
) -> Iterator[Row]:
    messages = [("user", desk.prompt_for(size))]

    def rate(side: Side, settings: Mapping[str, Any], **more: Any) -> float:
        answer = _ask(setup, subject, side, messages, settings, tokens, **more)
        return float(answer["tokens_per_second"])

    same = _same_replies(setup, subject, messages)
    drafts = {"speculation": True}
    wanted: dict[str, Measure] = {}
    if "decode-speed" in setup.rows:
        wanted["transformers, speed"] = lambda: rate("plain", SPEED)
        wanted["tui-chat, speed"] = lambda: rate("our", SPEED | drafts, mode="speed")
    if "decode-accuracy" in setup.rows:
        wanted["transformers, accuracy"] = lambda: rate("plain", ACCURACY)
    if {"decode-accuracy", "mode"} & setup.rows:
        wanted["tui-chat, accuracy"] = lambda: rate("our", ACCURACY, mode="accuracy")
    if "mode" in setup.rows:
        wanted["no drafts"] = lambda: rate("our", SPEED | {"speculation": False}, mode="speed")
    found = interleave(wanted, setup.runs or DECODE_RUNS, _for(f"decode at {size}", report))
    for mode in ("speed", "accuracy"):
        if f"decode-{mode}" in setup.rows:
            yield gain(
                f"decode-{mode} {size}",
                found[f"transformers, {mode}"],
                found[f"tui-chat, {mode}"],
                unit="tokens/s",
                note=f"{subject.name}, {tokens} tokens by top-p; before: generate; {same}",
            )
    if "mode" in setup.rows:
        yield gain(
            f"mode {size}",
            found["no drafts"],
            found["tui-chat, accuracy"],
            unit="tokens/s",
            note=f"{subject.name}; before: speed mode without speculation; after: accuracy mode",
        )


def _same_replies(setup: Setup, subject: Subject, messages: Sequence[tuple[str, str]]) -> str:
    """What is the same of two greedy replies; for random weights everything must be."""
    ours, plain = (
        _ask(setup, subject, side, messages, GREEDY, IDENTITY_TOKENS) for side in ("our", "plain")
    )
    check_same("decode", ours["prompt_ids"], plain["prompt_ids"], "prompt")
    return agreement("decode", ours["new_ids"], plain["new_ids"], subject)


def agreement(row: str, ours: Sequence[int], plain: Sequence[int], subject: Subject) -> str:
    """How far two greedy replies are the same, for the reader; rounding may part those of a model.

    Raises:
        BenchError: they differ, though random weights leave no ties that rounding could break.
    """
    if subject.is_random:
        check_same(row, ours, plain, "greedy reply")
    pairs = zip(ours, plain, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(plain)))
    if same == len(ours) == len(plain):
        return "greedy replies identical"
    return f"the first {same} of {len(plain)} greedy tokens identical"


def measure_speculation(setup: Setup, report: Report) -> Iterator[Row]:
    """Speed mode with and without speculation, on a reply that copies and on one that does not."""
    subject = subject_of(setup, report)
    tokens = setup.tokens or SPECULATION_TOKENS
    prompts = {"copying": _copying(subject), "other": _other(subject)}
    for kind, prompt in prompts.items():
        yield _speculated(kind, prompt, subject, tokens, setup, report)


def _speculated(
    kind: str, prompt: str, subject: Subject, tokens: int, setup: Setup, report: Report
) -> Row:
    replies: dict[bool, list[int]] = {}

    def rate(speculation: bool) -> float:
        settings = GREEDY | {"speculation": speculation}
        answer = _ask(setup, subject, "our", [("user", prompt)], settings, tokens)
        replies[speculation] = answer["new_ids"]
        return float(answer["tokens_per_second"])

    found = interleave(
        {"without": lambda: rate(False), "with": lambda: rate(True)},
        setup.runs or SPECULATION_RUNS,
        _for(f"speculation {kind}", report),
    )
    same = agreement("speculation", replies[True], replies[False], subject)
    return gain(
        f"speculation {kind}",
        found["without"],
        found["with"],
        unit="tokens/s",
        note=f"{subject.name}, {tokens} greedy tokens; before: without speculation; {same}",
    )


def _copying(subject: Subject) -> str:
    """A prompt whose reply stands in it."""
    if subject.is_random:
        return f"{LISTED} {' '.join(passages(subject.name, PASSAGE_WORDS))}"
    return f"Repeat this text word for word and write nothing else:\n\n{_TEXT}"


def _other(subject: Subject) -> str:
    """A prompt that has some words of its reply, never more than three in a row."""
    if not subject.is_random:
        return f"{_TEXT}\n\nWrite a long story about something else."
    words = [passage.split(" ") for passage in passages(subject.name, PASSAGE_WORDS)]
    starts = range(1, PASSAGE_WORDS - MISLEADING_WORDS, MISLEADING_STRIDE)
    # Passages in turn, so that another word follows than in the reply.
    parts = [" ".join(w[at : at + MISLEADING_WORDS]) for at in starts for w in words]
    return f"{LISTED} {' '.join(parts)}"


_TEXT = (
    "The old harbour lies behind the mill, where three boats wait for the evening tide. A narrow "
    "path leads past the nets to the lighthouse, whose keeper writes down every ship that passes. "
    "On clear nights he counts the lanterns along the coast, and in the morning he carries his "
    "book to the village, so that the baker knows how many loaves the crews will buy."
)


def measure_ttft(setup: Setup, report: Report) -> Iterator[Row]:
    """Seconds to the first token at some turns of one chat."""
    subject = subject_of(setup, report)
    desk = desk_of(setup, subject.folder)
    total = min(TTFT_TOKENS, _window(setup, subject) * 2 // 3)
    reply = min(setup.tokens or TTFT_REPLY, TTFT_REPLY)
    question = total // TTFT_TURNS - reply - desk.overhead
    history: list[tuple[str, str]] = []
    for turn in range(1, TTFT_TURNS + 1):
        if turn in TTFT_PLAIN_TURNS:
            yield _first_token(turn, history, question, desk, subject, setup, report)
        messages = [*history, ("user", desk.text_for(question))]
        answer = _ask(setup, subject, "our", messages, GREEDY, reply)
        history = [*messages, ("assistant", answer["text"])]


def _first_token(
    turn: int,
    history: Sequence[tuple[str, str]],
    question: int,
    desk: Desk,
    subject: Subject,
    setup: Setup,
    report: Report,
) -> Row:
    """Each round asks another last question, so that ours has the same part to read each time."""
    runs = setup.runs or TTFT_RUNS
    asked = [[*history, ("user", desk.text_for(question))] for _ in range(runs)]
    answers: dict[Side, list[Answer]] = {"plain": [], "our": []}

    def seconds(side: Side) -> float:
        found = answers[side]
        found.append(_ask(setup, subject, side, asked[len(found)], GREEDY, 1, keep=False))
        return float(found[-1]["first_seconds"])

    found = interleave(
        {"transformers": lambda: seconds("plain"), "tui-chat": lambda: seconds("our")},
        runs,
        _for(f"ttft turn {turn}", report),
        warm_up=False,
    )
    for plain, ours in zip(answers["plain"], answers["our"], strict=True):
        check_same("ttft", ours["prompt_ids"], plain["prompt_ids"], "prompt")
        if subject.is_random:
            check_same("ttft", ours["new_ids"], plain["new_ids"], "first token")
    metrics = answers["our"][-1]["metrics"]
    return gain(
        f"ttft turn {turn}",
        found["transformers"],
        found["tui-chat"],
        unit="s",
        note=f"{subject.name}, reused {metrics['cached_tokens']:,} of "
        f"{metrics['prompt_tokens']:,} tokens; before: render, tokenize and read everything",
    )


def measure_turns(setup: Setup, report: Report) -> Iterator[Row]:
    """Seconds of whole turns of a chat, from the text typed to the reply stored."""
    subject = subject_of(setup, report)
    desk = desk_of(setup, subject.folder)
    tokens = setup.tokens or TURN_REPLY
    chats = iter(range(1, 10_000))

    def seconds(side: Side, settings: Mapping[str, Any]) -> float:
        worker = worker_of(setup, side, subject.folder)
        seed = next(chats)
        total = 0.0
        for turn in range(TURNS):
            answer = worker.ask(
                turn=desk.text_for(TURN_TOKENS),
                new_chat=turn == 0,
                settings={**settings, "max_new_tokens": tokens, "seed": seed + turn},
            )
            total += answer["seconds"]
        return total

    found = interleave(
        {
            "transformers": lambda: seconds("plain", SPEED),
            "tui-chat": lambda: seconds("our", SPEED | {"speculation": True}),
        },
        setup.runs or TURNS_RUNS,
        _for("turns", report),
        warm_up=False,
    )
    yield gain(
        "turns",
        found["transformers"],
        found["tui-chat"],
        unit="s",
        note=f"{subject.name}, {TURNS} turns of {TURN_TOKENS} tokens typed and {tokens} replied; "
        "before: template over everything, generate with TextIteratorStreamer",
    )


def _ask(
    setup: Setup,
    subject: Subject,
    side: Side,
    messages: Sequence[tuple[str, str]],
    settings: Mapping[str, Any],
    tokens: int,
    *,
    mode: str = "speed",
    keep: bool = True,
) -> Answer:
    return worker_of(setup, side, subject.folder).ask(
        messages=list(messages),
        settings={**settings, "max_new_tokens": tokens},
        mode=mode,
        keep=keep,
    )


def _window(setup: Setup, subject: Subject) -> int:
    return int(worker_of(setup, "our", subject.folder).ask(window=True)["window"])


def _for(name: str, report: Report) -> Report:
    return lambda line: report(f"{name}: {line}")
