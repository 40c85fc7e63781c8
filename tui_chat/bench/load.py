"""A fresh process to its first token: our load against the plain imports and from_pretrained."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tui_chat.bench.desk import GUIDE, Subject, folder_of, subject_of
from tui_chat.bench.harness import Report, Row, Setup, gain, interleave
from tui_chat.bench.workers import Side, running_worker

RUNS = 3


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """A row for the guide and one for the model, or only for the model that `--model` names.

    Raises:
        BenchError: a model does not load.
    """
    subjects = [subject_of(setup, report)]
    if not setup.model:
        subjects.insert(0, Subject(GUIDE, folder_of(GUIDE), False))
    for subject in subjects:
        yield _row(subject, setup, report)


def _row(subject: Subject, setup: Setup, report: Report) -> Row:
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:

        def seconds(side: Side) -> float:
            # One home for all rounds: what the first start finds out is kept, as for a user.
            with running_worker(side, subject.folder, Path(name)) as worker:
                worker.ask(
                    messages=[("user", "Hello")],
                    settings={"max_new_tokens": 1, "do_sample": False},
                )
                return time.perf_counter() - worker.started

        found = interleave(
            {"transformers": lambda: seconds("plain"), "tui-chat": lambda: seconds("our")},
            setup.runs or RUNS,
            lambda line: report(f"load {subject.name}: {line} s"),
            # A single round is a quick look.
            warm_up=setup.runs != 1,
        )
    return gain(
        f"load {subject.name}",
        found["transformers"],
        found["tui-chat"],
        unit="s",
        note="a fresh process to its first token; before: AutoModelForCausalLM.from_pretrained",
    )
