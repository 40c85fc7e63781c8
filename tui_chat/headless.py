"""The front end without a screen: `tui-chat ask`, for pipes and machines."""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from tui_chat import files
from tui_chat.chat.context import PromptTooLong
from tui_chat.chat.sanitize import one_line
from tui_chat.chat.session import TITLE_LENGTH, Session
from tui_chat.config import LoadedConfig, Options, Resume, model_spec
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine, EngineError, OnProgress
from tui_chat.output import UsageError, complain, write
from tui_chat.presets import effective_config, new_chat
from tui_chat.settings import overlaid
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.exchange import to_json
from tui_chat.store.log import ConversationLog, MemoryLog, StoreError
from tui_chat.store.resume import find_chat, last_used
from tui_chat.types import (
    EngineNotice,
    GenerationSettings,
    LoadProgress,
    Mode,
    ModelSpec,
    ReplyFinished,
    ReplyMetrics,
    TextDelta,
)

MAX_INPUT_BYTES = 16 * 1024 * 1024
_METRIC_PROPERTIES = (
    "generate_seconds",
    "total_seconds",
    "tokens_per_second",
    "prompt_tokens_per_second",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """What `tui-chat ask` was asked to do."""

    question: str = ""
    turns: Path | None = None
    """A file whose non-empty lines are the prompts of one conversation."""
    as_json: bool = False
    dump_ids: bool = False
    greedy: bool = False
    save: bool = False


OpenEngine = Callable[[ModelSpec, OnProgress, threading.Event], Engine]


def run_ask(ask: Ask, options: Options, open_model: OpenEngine = open_engine) -> int:
    """Answer the prompts of `ask` on standard output; returns the exit code.

    0 when every reply came and was saved where that was asked for, 1 when the model could not
    be loaded or a reply failed, 128 + n when signal n stopped it.

    Raises:
        UsageError: there is nothing to ask, or the file of turns cannot be read.
        PresetError: the command line names a preset that cannot be used.
        OutputError: standard output cannot be written, because the disk is full for example.
        BrokenPipeError: the reader of standard output went away.
    """
    prompts = _prompts(ask)
    loaded = effective_config(options)
    for problem in loaded.problems:
        complain(problem)
    config = loaded.config
    printer = _Printer(sys.stdout, as_json=ask.as_json, dump_ids=ask.dump_ids)
    with _stoppable() as stop, contextlib.ExitStack() as held:
        resumed = None
        try:
            if options.resume is not None:
                resumed = _resume(options.resume, options)
                held.callback(resumed.close)
            engine = _load(open_model, model_spec(config, options.echo_rate), stop)
        except (EngineError, StoreError) as error:
            if stop.exit_code:
                return stop.exit_code
            printer.error(str(error), config.model)
            return 1
        with contextlib.closing(engine):
            if stop.exit_code:
                return stop.exit_code
            log = resumed or _new_log(ask, options, loaded, engine)
            session = Session(
                engine,
                log,
                reserved_tokens=config.reserved_tokens,
                context_budget=config.context_budget,
                trim_incomplete=config.trim_incomplete,
            )
            own = log.conversation.settings

            def settings(mode: Mode) -> GenerationSettings:
                chosen = overlaid(config.settings(mode), own, mode)
                return _greedy(chosen) if ask.greedy else chosen

            good = _answer(session, prompts, own.mode or config.mode, settings, printer, stop)
            try:
                log.close()
            except StoreError as error:
                complain(str(error))
                good = False
    return stop.exit_code or (0 if good else 1)


def _answer(
    session: Session,
    prompts: Sequence[str],
    mode: Mode,
    settings: Callable[[Mode], GenerationSettings],
    printer: "_Printer",
    stop: "_Stop",
) -> bool:
    """Hold the conversation; False as soon as a reply fails."""
    engine = session.engine
    if engine is None:
        raise ValueError("a session without an engine cannot answer")
    for prompt in prompts:
        events = session.reply(prompt, mode=lambda: mode, settings=settings, cancel=stop.cancel)
        # Closed at once when the reader of our output goes away, so that the reply is ended.
        try:
            with contextlib.closing(events):
                for event in events:
                    match event:
                        case EngineNotice(text):
                            complain(text)
                        case TextDelta(kind="content"):
                            printer.text(event.text)
                        case ReplyFinished():
                            printer.finished(event, engine)
                            if event.unsaved:
                                complain(event.unsaved)
                            if event.message.status == "failed":
                                return False
        except PromptTooLong as error:
            printer.error(str(error), engine.name)
            return False
        if stop.exit_code:
            return True
    return True


def _greedy(settings: GenerationSettings) -> GenerationSettings:
    # The penalties would change what greedy picks.
    return replace(settings, do_sample=False, repetition_penalty=1.0, no_repeat_ngram_size=0)


def _resume(resume: Resume, options: Options) -> ConversationLog:
    """The stored conversation to go on with.

    Raises:
        StoreError: there is not exactly one that is meant, or it cannot be written.
    """
    store = ConversationStore(options.data_dir or files.data_dir())
    text = resume.text
    log = store.open(last_used(store) if text is None else find_chat(store, text))
    if log.read_only:
        raise StoreError(log.read_only_reason)
    return log


def _new_log(ask: Ask, options: Options, loaded: LoadedConfig, engine: Engine) -> ConversationLog:
    system_prompt, settings = new_chat(loaded)
    if not ask.save:
        return MemoryLog(system_prompt=system_prompt, settings=settings)
    return ConversationStore(options.data_dir or files.data_dir()).create(
        # The question and not what was piped in before it; the session names an untitled one.
        title=one_line(ask.question, TITLE_LENGTH),
        title_by="prompt",
        model=engine.name,
        tokenizer_id=engine.tokenizer_id,
        system_prompt=system_prompt,
        settings=settings,
    )


# What is asked ------------------------------------------------------------------------------


def _prompts(ask: Ask) -> list[str]:
    if ask.turns is not None:
        if ask.question:
            raise UsageError("Give either a question or --turns FILE, not both.")
        try:
            text = ask.turns.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise UsageError(f"{ask.turns} cannot be read ({error.strerror}).") from error
        prompts = [line.rstrip("\r") for line in text.split("\n") if line.strip()]
        if not prompts:
            raise UsageError(f"{ask.turns} has no line to ask.")
        return prompts
    piped = _piped_text()
    if ask.question.strip() and piped:
        return [f"<context>\n{piped}\n</context>\n\n{ask.question}"]
    if prompt := (ask.question.strip() and ask.question) or piped:
        return [prompt]
    raise UsageError('There is no question: tui-chat ask "…", or pipe one in.')


def _piped_text() -> str:
    """What was piped into standard input; empty for a terminal, a closed or an empty input."""
    if sys.stdin is None:
        return ""
    try:
        if sys.stdin.isatty():
            return ""
        data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    except (OSError, ValueError):
        return ""
    if len(data) > MAX_INPUT_BYTES:
        raise UsageError("More than 16 MB were piped in; pass a part of it.")
    return data.decode("utf-8", "replace").strip("\r\n")


# Stopping and loading -----------------------------------------------------------------------


class _Stop:
    """Set by SIGINT and SIGTERM: the reply ends, its text is kept, the exit code says why."""

    def __init__(self) -> None:
        self.cancel = threading.Event()
        self.exit_code = 0

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.exit_code:
            # The second time the user means it: something does not look at `cancel`.
            os._exit(128 + number)
        self.exit_code = 128 + number
        self.cancel.set()


@contextlib.contextmanager
def _stoppable() -> Iterator[_Stop]:
    stop = _Stop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, stop.on_signal) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _load(open_model: OpenEngine, spec: ModelSpec, stop: _Stop) -> Engine:
    show = sys.stderr is not None and sys.stderr.isatty()
    width = shutil.get_terminal_size().columns - 1

    def on_progress(progress: LoadProgress) -> None:
        share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
        line = one_line(f"{progress.stage}{share} {progress.detail}", max(20, width))
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def silent(_: LoadProgress) -> None: ...

    try:
        return open_model(spec, on_progress if show else silent, stop.cancel)
    finally:
        if show:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# What is printed ----------------------------------------------------------------------------


class _Printer:
    """Writes replies to standard output: as text while they stream, or as JSON objects."""

    def __init__(self, out: TextIO, *, as_json: bool, dump_ids: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._dump_ids = dump_ids
        self._open_line = False
        self._replies = 0

    def text(self, text: str) -> None:
        if self._as_json or not text:
            return
        if self._replies and not self._open_line:
            self._write("\n")
        self._write(text)
        self._open_line = True

    def finished(self, event: ReplyFinished, engine: Engine) -> None:
        message = event.message
        if self._as_json:
            self._write_json(reply_object(event, engine, dump_ids=self._dump_ids))
        elif self._open_line and not message.content.endswith("\n"):
            self._write("\n")
        self._open_line = False
        self._replies += 1
        if message.error:
            complain(message.error)
        elif event.finish_reason == "length" and sys.stderr is not None and sys.stderr.isatty():
            complain("The reply was cut at the length limit; --max-new-tokens raises it.")

    def error(self, sentence: str, model: str) -> None:
        """Say that there will be no reply at all."""
        if self._as_json:
            self._write_json({"error": sentence, "model": model})
        complain(sentence)

    def _write_json(self, data: dict[str, Any]) -> None:
        self._write(to_json(data) + "\n")

    def _write(self, text: str) -> None:
        write(text, self._out)


def reply_object(event: ReplyFinished, engine: Engine, *, dump_ids: bool) -> dict[str, Any]:
    """A reply as the JSON object of `--json`: the metrics stand at the top level."""
    message = event.message
    metrics = message.metrics or ReplyMetrics()
    data: dict[str, Any] = {"text": message.content}
    if message.cut_tail:
        data["cut_tail"] = message.cut_tail
    if message.reasoning:
        data["reasoning"] = message.reasoning
    if message.error:
        data["error"] = message.error
    data |= {
        "finish_reason": event.finish_reason,
        "model": message.model,
        "mode": message.mode,
        "device": engine.device,
        "seed": message.seed,
    }
    data |= {item.name: getattr(metrics, item.name) for item in fields(ReplyMetrics)}
    data |= {name: getattr(metrics, name) for name in _METRIC_PROPERTIES}
    data["precision"] = metrics.precision or engine.precision
    if event.unsaved:
        data["unsaved"] = event.unsaved
    if dump_ids:
        data |= {"prompt_ids": list(event.prompt_ids), "new_ids": list(event.new_ids)}
    return data
