"""Decode speed against llama.cpp on the same weights, where `llama-cpp-python` is installed."""

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tui_chat.bench.desk import Subject, desk_of, subject_of, worker_of
from tui_chat.bench.generation import CONTEXTS, DECODE_RUNS, DECODE_TOKENS, GREEDY, agreement
from tui_chat.bench.gguf_file import write_gguf
from tui_chat.bench.harness import BenchError, Report, Row, Setup, gain, interleave
from tui_chat.bench.workers import Worker

PACKAGES = ("llama_cpp", "gguf")


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Tokens per second of llama.cpp before and ours after, greedy, at two lengths of context.

    Without its packages a line says so and there is no row.

    Raises:
        BenchError: the model cannot be converted, or a side failed.
    """
    if any(importlib.util.find_spec(package) is None for package in PACKAGES):
        report('llama.cpp is left out: pip install "tui-chat[bench]" brings it.')
        return
    subject = subject_of(setup, report)
    ours = worker_of(setup, "our", subject.folder)
    tokens = setup.tokens or DECODE_TOKENS
    window = ours.ask(window=True)["window"]
    contexts = [size for size in CONTEXTS if size + tokens <= window]
    if not contexts:
        raise BenchError(
            f"The context window of {subject.name} is smaller than {CONTEXTS[0]} tokens."
        )
    gguf = setup.kept.get(("gguf", subject.folder), partial(_converted, subject, report))
    for size in contexts:
        yield _row(size, tokens, gguf, ours, subject, setup, report)


def _row(
    size: int,
    tokens: int,
    gguf: Path,
    ours: Worker,
    subject: Subject,
    setup: Setup,
    report: Report,
) -> Row:
    prompt = [("user", desk_of(setup, subject.folder).prompt_for(size))]
    settings = {**GREEDY, "speculation": False, "max_new_tokens": tokens}
    answers: dict[str, dict[str, Any]] = {}

    def our_rate() -> float:
        answers["our"] = ours.ask(messages=prompt, settings=settings)
        return float(answers["our"]["tokens_per_second"])

    our_rate()
    ids, threads = answers["our"]["prompt_ids"], answers["our"]["threads"]
    llama = worker_of(setup, "llama", f"{gguf}:{threads}")

    def their_rate() -> float:
        answers["llama"] = llama.ask(prompt_ids=ids, tokens=tokens)
        return float(answers["llama"]["tokens_per_second"])

    found = interleave(
        {"llama.cpp": their_rate, "tui-chat": our_rate},
        setup.runs or DECODE_RUNS,
        lambda line: report(f"llama.cpp at {size}: {line}"),
    )
    same = agreement("llama.cpp", answers["our"]["new_ids"], answers["llama"]["new_ids"], subject)
    note = (
        f"{subject.name}, {tokens} greedy tokens, {threads} threads each; before: llama.cpp; {same}"
    )
    return gain(
        f"llama.cpp {size}", found["llama.cpp"], found["tui-chat"], unit="tokens/s", note=note
    )


@contextmanager
def _converted(subject: Subject, report: Report) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:
        report(f"writing {subject.name} as GGUF for llama.cpp")
        path = Path(name) / "model.gguf"
        write_gguf(Path(subject.folder), path)
        yield path
