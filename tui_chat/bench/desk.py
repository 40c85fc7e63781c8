"""What the benchmarks of one run share: the model's folder, its tokenizers, its workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

from tui_chat.bench import plain
from tui_chat.bench.harness import BenchError, Report, Setup
from tui_chat.bench.models import random_model
from tui_chat.bench.texts import Writer, words_of
from tui_chat.bench.workers import Side, Worker, running_worker
from tui_chat.engine.base import EngineError
from tui_chat.engine.hub import resolve_model
from tui_chat.engine.tokenizer import ChatTokenizer
from tui_chat.types import Message, ModelSpec, Role

GUIDE = "guide"


class Desk:
    """A tokenizer, plain and ours, and prose for it."""

    def __init__(self, folder: str) -> None:
        """Read the tokenizer in `folder`, twice: ours sets up the one that it is given."""
        from transformers import AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        self.hf: Any = AutoTokenizer.from_pretrained(folder)
        self.chat = ChatTokenizer(AutoTokenizer.from_pretrained(folder))
        self.writer = Writer(words_of(self.hf))
        self.overhead = plain.count(self.hf, [self.writer.message(Role.USER, "")])
        """Tokens of a prompt whose only message is empty."""

    def question(self, words: int) -> Message:
        """A user message that was never seen before."""
        return self.writer.message(Role.USER, self.writer.prose(words))

    def text_for(self, tokens: int) -> str:
        """Prose of about `tokens` tokens, never more."""
        return self.writer.prose_of(tokens, lambda text: len(plain.tokenize(self.hf, text)))

    def prompt_for(self, tokens: int) -> str:
        """A first message whose prompt has about `tokens` tokens, never more."""
        return self.text_for(max(1, tokens - self.overhead))


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that a run measures."""

    name: str
    """`--model`, or a name of `models.SHAPES`."""
    folder: str
    is_random: bool


def subject_of(setup: Setup, report: Report) -> Subject:
    """The model that the command line names, or the first of its random ones.

    Raises:
        BenchError: it is not there, or cannot be built.
    """
    if setup.model:
        return Subject(setup.model, folder_of(setup.model), False)
    shape = setup.shapes[0]
    folder = setup.kept.get(shape, partial(random_model, shape, report))
    return Subject(shape, str(folder), True)


def folder_of(model: str) -> str:
    """Where the files of `model` are.

    Raises:
        BenchError: nowhere on this machine.
    """
    try:
        return str(resolve_model(ModelSpec(model), lambda progress: None, Event()))
    except EngineError as error:
        raise BenchError(str(error)) from None


def desk_of(setup: Setup, folder: str) -> Desk:
    """The desk for the tokenizer in `folder`, one in a run."""

    @contextmanager
    def opened() -> Iterator[Desk]:
        yield Desk(folder)

    return setup.kept.get(("desk", folder), opened)


def worker_of(setup: Setup, side: Side, model: str) -> Worker:
    """The worker of `side` for `model`, one in a run."""
    return setup.kept.get(("worker", side, model), partial(running_worker, side, model))


def check_same(row: str, ours: object, plain: object, what: str) -> None:
    """Fail the row where our result is not that of the plain way.

    Raises:
        BenchError: it is not.
    """
    if ours != plain:
        raise BenchError(f"The {what} of {row} differs from that of the plain way.")
