"""A reply that is being written: the engine's events on their way to the screen and the log."""

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from itertools import groupby

from tui_chat.chat.reply import DeltaPacer, ReplyCleaner, end_of_sentences
from tui_chat.engine.base import Engine, EngineError, PollSettings
from tui_chat.store.log import ConversationLog, StoreError
from tui_chat.types import (
    EngineEvent,
    EngineNotice,
    FinishReason,
    GenerationFinished,
    GenerationSettings,
    Message,
    Mode,
    PrefillProgress,
    ReplyEvent,
    ReplyFinished,
    ReplyMetrics,
    Status,
    TextDelta,
)

logger = logging.getLogger(__name__)

SAVE_SECONDS = 1.0
"""How often the text of a running reply is written down."""
GetMode = Callable[[], Mode]
SettingsOf = Callable[[Mode], GenerationSettings]
_STATUS: dict[FinishReason, Status] = {"cancelled": "interrupted", "error": "failed"}


class ReplySettings:
    """What the engine asks before each token of one reply: the settings of that moment.

    The length limit, the seed and the stop strings are those of the mode at the start.
    """

    def __init__(self, mode: GetMode, settings: SettingsOf) -> None:
        self._get_mode = mode
        self._settings = settings
        self.mode = mode()
        self._chosen = self._current = settings(self.mode)
        self.is_seeded = self._current.seed is not None
        self.seed = self._current.seed
        if self.seed is None:
            self.seed = secrets.randbelow(2**31)
        self.max_new_tokens = self._current.max_new_tokens
        self._stop_strings = self._current.stop_strings
        self.used: list[Mode] = []
        """The modes that tokens were asked for, in order."""

    @property
    def thinking(self) -> bool | None:
        """Whether the reply is to reason first; that is decided when the prompt is written."""
        return self._current.thinking

    def __call__(self) -> GenerationSettings:
        mode = self._get_mode()
        chosen = self._settings(mode)
        if not self.used or mode is not self.mode:
            self.mode = mode
            self.used.append(mode)
        elif chosen == self._chosen:
            return self._current
        self._chosen = chosen
        self._current = replace(
            chosen,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            stop_strings=self._stop_strings,
        )
        return self._current


class ReplyStream:
    """One reply, new or continued: whatever happens, its text ends in the log."""

    def __init__(
        self,
        log: ConversationLog,
        message: Message,
        settings: ReplySettings,
        clock: Callable[[], float],
        *,
        trim_incomplete: bool = False,
        continues: Message | None = None,
    ) -> None:
        """`continues` is the reply that goes on, of which `message` has the whole raw text.

        The cleaner reads that text again, so that there is no seam: what it holds back of it
        may turn out to be the end of the reply only now. What the user wrote into a reply stays
        as it is.
        """
        self._log = log
        self._message = message
        self._settings = settings
        self._clock = clock
        self._trim_incomplete = trim_incomplete
        self._continues = continues
        shown = continues.content if continues else ""
        if message.edited:
            self._cleaner = ReplyCleaner.behind(shown)
            self._content = [shown + self._cleaner.feed(message.content[len(shown) :])]
        else:
            self._cleaner = ReplyCleaner()
            self._content = [self._cleaner.feed(message.content)]
        self._pacer = DeltaPacer(clock=clock)
        self._reasoning = [message.reasoning]
        self._seen = shown[len(self._content[0]) :]
        """What is on the screen but held back again."""
        self._unseen = self._content[0][len(shown) :]
        """What is certain but was trimmed from the screen."""
        self._saved_at = clock()
        self._figures = (0, 0.0, False)
        self._ended = False

    def __enter__(self) -> "ReplyStream":
        try:
            self._log.begin(self._message)
        except StoreError as error:
            logger.warning("%s", error)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            self._content.append(self._cleaner.finish())
            self._end("cancelled")

    @property
    def message_id(self) -> str:
        """Id of the reply."""
        return self._message.id

    def failed(self, error: str) -> ReplyFinished:
        """Store that there is no reply, and why."""
        with self:
            return self._end("error", error=error)

    def run(
        self, engine: Engine, messages: Sequence[Message], cancel: threading.Event
    ) -> Generator[ReplyEvent, None, None]:
        """Pass the engine's events on, cleaned, paced and saved, up to `ReplyFinished`."""
        finished: GenerationFinished | None = None
        error = "The model ended the reply without a reason; ask again."
        with contextlib.closing(_events(engine, messages, self._settings, cancel)) as events:
            try:
                for event in events:
                    match event:
                        case TextDelta():
                            yield from self._take(event)
                        case PrefillProgress() | EngineNotice():
                            yield event
                        case GenerationFinished():
                            finished = event
            except EngineError as fault:
                error = str(fault)
            except Exception as fault:
                logger.exception("The engine broke its contract")
                error = f"The model failed ({type(fault).__name__}); ask again or load it anew."
        rest = self._cleaner.finish()
        self._content.append(rest)
        if finished is None:
            end = self._end("error", error=error)
        else:
            reason = finished.finish_reason
            end = self._end(reason, finished, error if reason == "error" else "")
        yield from self._pacer.push(TextDelta(self._to_show(rest), "content", *self._figures))
        yield from self._pacer.flush()
        yield end

    def _take(self, delta: TextDelta) -> list[TextDelta]:
        self._figures = (delta.completion_tokens, delta.decode_seconds, delta.approximate)
        if delta.kind == "content":
            text = self._cleaner.feed(delta.text)
            self._content.append(text)
            delta = replace(delta, text=self._to_show(text))
        else:
            self._reasoning.append(delta.text)
        now = self._clock()
        if now - self._saved_at >= SAVE_SECONDS:
            self._saved_at = now
            try:
                self._log.save_partial(
                    self._message.id, "".join(self._content), "".join(self._reasoning)
                )
            except StoreError as error:
                logger.warning("%s", error)
        return self._pacer.push(delta)

    def _to_show(self, text: str) -> str:
        """What of the next certain `text` is not on the screen from before a continuation."""
        if self._seen.startswith(text):
            self._seen = self._seen[len(text) :]
            return ""
        text, self._seen = text.removeprefix(self._seen), ""
        text, self._unseen = self._unseen + text, ""
        return text

    def _end(
        self, reason: FinishReason, finished: GenerationFinished | None = None, error: str = ""
    ) -> ReplyFinished:
        """Write the reply as it stands; text is never lost to a disk that refuses it."""
        self._ended = True
        message = self._ended_message(reason, finished, error)
        unsaved = ""
        try:
            self._log.end(message)
        except StoreError as refused:
            unsaved = str(refused)
        if finished is None:
            return ReplyFinished(message, reason, unsaved=unsaved)
        return ReplyFinished(
            message,
            reason,
            finished.prompt_ids,
            finished.new_ids,
            unsaved,
            finished.out_of_memory,
        )

    def _ended_message(
        self, reason: FinishReason, finished: GenerationFinished | None, error: str
    ) -> Message:
        cut, tokens = self._continues, finished.metrics.completion_tokens if finished else None
        if cut and reason == "cancelled" and not tokens:
            return cut
        content, tail = "".join(self._content), ""
        if reason in ("length", "cancelled", "error"):
            tail = self._cleaner.tail
        if reason == "length" and self._trim_incomplete:
            end = end_of_sentences(content)
            if cut and cut.edited:
                end = max(end, len(cut.content))
            content, tail = content[:end], content[end:] + tail
        modes = list(self._settings.used)
        if cut:
            modes = [*(cut.modes or ([cut.mode] if cut.mode else [])), *modes]
            known = cut.token_count is not None and tokens is not None
            tokens = (cut.token_count or 0) + (tokens or 0) if known else None
        modes = [mode for mode, _ in groupby(modes)]
        return replace(
            self._message,
            content=content,
            cut_tail=tail,
            reasoning="".join(self._reasoning),
            status=_STATUS.get(reason, "complete"),
            finish_reason=reason,
            error=(finished and finished.error) or error,
            mode=self._settings.mode,
            modes=tuple(modes) if len(modes) > 1 else (),
            token_count=tokens,
            metrics=_with_doubt_of(cut, finished.metrics) if finished else None,
        )


def _with_doubt_of(cut: Message | None, metrics: ReplyMetrics) -> ReplyMetrics:
    """The figures of the last part, marked as estimates where those before it were."""
    doubtful = cut is not None and cut.metrics is not None and cut.metrics.approximate
    return replace(metrics, approximate=True) if doubtful else metrics


def _events(
    engine: Engine, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
) -> Generator[EngineEvent, None, None]:
    """The engine's events as a generator, so that a dropped reply closes the engine's too."""
    yield from engine.stream(messages, settings, cancel)
