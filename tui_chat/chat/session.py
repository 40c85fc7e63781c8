"""One conversation with one engine: a prompt goes in, saved reply events come out."""

import contextlib
import logging
import secrets
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from tui_chat.chat.context import PromptTooLong, plan_context, sendable, split_turns
from tui_chat.chat.reply import DeltaPacer, ReplyCleaner
from tui_chat.chat.sanitize import one_line
from tui_chat.engine.base import Engine, EngineError, PollSettings
from tui_chat.store.log import ConversationLog, StoreError
from tui_chat.types import (
    ContextPlan,
    Conversation,
    EngineEvent,
    FinishReason,
    GenerationFinished,
    GenerationSettings,
    Message,
    Mode,
    PrefillProgress,
    ReplyEvent,
    ReplyFinished,
    ReplyStarted,
    Role,
    Status,
    TextDelta,
)

logger = logging.getLogger(__name__)

SAVE_SECONDS = 1.0
"""How often the text of a running reply is written down."""
TITLE_LENGTH = 60
GetMode = Callable[[], Mode]
SettingsOf = Callable[[Mode], GenerationSettings]
_STATUS: dict[FinishReason, Status] = {"cancelled": "interrupted", "error": "failed"}


class SessionError(Exception):
    """A reply cannot be started; `str()` is one sentence for the user."""


class Session:
    """One conversation with one engine. One reply at a time; the caller owns the thread."""

    engine: Engine | None
    """May be replaced between replies; None until a model is loaded."""
    log: ConversationLog

    def __init__(
        self,
        engine: Engine | None,
        log: ConversationLog,
        *,
        reserved_tokens: int = 512,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.log = log
        self.reserved_tokens = reserved_tokens
        self._clock = clock
        self._first_kept: tuple[Engine, str] | None = None

    @property
    def conversation(self) -> Conversation:
        """The conversation as it stands, the open branch."""
        return self.log.conversation

    def plan(self, draft: str = "") -> ContextPlan | None:
        """What would be sent if `draft` were sent now, with its exact token count.

        Never raises for a draft that is too long: `prompt_tokens` then exceeds the room
        (`context_window - reserved_tokens`). None while no engine is loaded. Any thread.

        Raises:
            EngineError: the prompt cannot be rendered.
        """
        engine = self.engine
        if engine is None:
            return None
        messages = self.conversation.messages
        if draft:
            messages += (_user_message(draft, _last_id(messages)),)
        try:
            return self._plan(engine, messages)
        except PromptTooLong as error:
            return error.plan

    def reply(
        self, text: str, *, mode: GetMode, settings: SettingsOf, cancel: threading.Event
    ) -> Generator[ReplyEvent, None, None]:
        """Save `text` as the user's message, then stream and save the reply, all while iterating.

        `mode` is asked before each token, from the thread that iterates: a switch holds from the
        next token on, with the `settings` of the new mode. How long the reply may get, its seed
        and its stop strings are those of the mode at its start.

        Yields `ReplyStarted`, `PrefillProgress`, `TextDelta` at most ten times a second, then
        exactly one `ReplyFinished`. A prompt that does not fit yields `ReplyFinished` alone,
        with status "failed" and the sentence in `message.error`. A dropped iterator ends the
        reply as interrupted.

        Raises:
            SessionError: at the call, when no engine is loaded.
        """
        engine = self._loaded()
        user = _user_message(text, _last_id(self.conversation.messages))
        return self._reply_to(engine, user, _ReplySettings(mode, settings), cancel)

    def regenerate(
        self, *, mode: GetMode, settings: SettingsOf, cancel: threading.Event
    ) -> Generator[ReplyEvent, None, None]:
        """Stream another reply to the last prompt; the old one stays in the file as a sibling.

        Also answers a last prompt that has no reply yet. With a fixed seed the new reply gets
        the seed after the old one's, so that it differs. Yields as `reply` does.

        Raises:
            SessionError: at the call, when no engine is loaded or nothing was asked yet.
        """
        engine = self._loaded()
        messages = self.conversation.messages
        last_user = next(
            (at for at in reversed(range(len(messages))) if messages[at].role is Role.USER), None
        )
        if last_user is None:
            raise SessionError("There is no prompt yet that could be answered again.")
        old = messages[last_user + 1 :]
        chosen = _ReplySettings(mode, settings)
        if chosen.is_seeded and old and old[-1].seed is not None:
            chosen.seed = (old[-1].seed + 1) % 2**63
        return self._generate(engine, messages[: last_user + 1], chosen, cancel)

    def _loaded(self) -> Engine:
        if self.engine is None:
            raise SessionError("No model is loaded yet; choose one first.")
        return self.engine

    def _plan(self, engine: Engine, messages: Sequence[Message]) -> ContextPlan:
        system = self.conversation.system_prompt
        branch = sendable(messages)
        if system.strip():
            branch = (_system_message(system, self.conversation.created_at), *branch)
        turns = split_turns(branch)
        window = engine.context_window
        reserved = min(self.reserved_tokens, window // 4)
        if not turns:
            tokens = sum(map(engine.count_message, branch))
            return ContextPlan(branch, (), tokens, window, reserved)
        dropped_before = 0
        # Another model has another window and an empty prompt cache: it plans anew.
        if self._first_kept and self._first_kept[0] is engine:
            first = self._first_kept[1]
            dropped_before = next((n for n, turn in enumerate(turns) if turn[0].id == first), 0)
        return plan_context(
            branch,
            window,
            reserved,
            engine.count_message,
            engine.count_tokens,
            dropped_before=dropped_before,
        )

    def _reply_to(
        self,
        engine: Engine,
        user: Message,
        settings: "_ReplySettings",
        cancel: threading.Event,
    ) -> Generator[ReplyEvent, None, None]:
        earlier = self.conversation.messages
        untitled = not self.conversation.title
        try:
            self.log.append(user)
            if untitled:
                self.log.rename(one_line(user.content, TITLE_LENGTH))
        except StoreError as error:
            # The log keeps the record and writes it again with the reply, which reports.
            logger.warning("%s", error)
        yield from self._generate(engine, (*earlier, user), settings, cancel)

    def _generate(
        self,
        engine: Engine,
        messages: Sequence[Message],
        settings: "_ReplySettings",
        cancel: threading.Event,
    ) -> Generator[ReplyEvent, None, None]:
        reply = Message(
            id=_new_id(),
            role=Role.ASSISTANT,
            content="",
            created_at=datetime.now(UTC),
            parent_id=messages[-1].id,
            model=engine.name,
            mode=settings.mode,
            seed=settings.seed,
        )
        running = _RunningReply(self.log, reply, settings, self._clock)
        try:
            plan = self._plan(engine, messages)
        except (PromptTooLong, EngineError) as error:
            yield running.failed(str(error))
            return
        first = next((m for m in plan.kept if m.role is not Role.SYSTEM), None)
        self._first_kept = (engine, first.id) if first and plan.dropped else None
        room = max(1, plan.context_window - plan.prompt_tokens)
        settings.max_new_tokens = min(settings.max_new_tokens, room)
        with running:
            yield ReplyStarted(plan, reply.id)
            yield from running.stream(engine, plan.kept, cancel)


class _ReplySettings:
    """What the engine asks before each token of one reply: the table of the mode at that moment.

    The length limit and the seed are those of the mode at the start.
    """

    def __init__(self, mode: GetMode, settings: SettingsOf) -> None:
        self._get_mode = mode
        self._settings = settings
        self.mode = mode()
        first = settings(self.mode)
        self.is_seeded = first.seed is not None
        self.seed = secrets.randbelow(2**31) if first.seed is None else first.seed
        self.max_new_tokens = first.max_new_tokens
        self.used: list[Mode] = []
        """The modes that tokens were asked for, in order."""
        self._current = first

    def __call__(self) -> GenerationSettings:
        mode = self._get_mode()
        if not self.used or mode is not self.mode:
            self.mode = mode
            self.used.append(mode)
            self._current = replace(
                self._settings(mode), max_new_tokens=self.max_new_tokens, seed=self.seed
            )
        return self._current


class _RunningReply:
    """A reply that is being written: whatever happens, its text ends in the log."""

    def __init__(
        self,
        log: ConversationLog,
        message: Message,
        settings: _ReplySettings,
        clock: Callable[[], float],
    ) -> None:
        self._log = log
        self._message = message
        self._settings = settings
        self._clock = clock
        self._cleaner = ReplyCleaner()
        self._pacer = DeltaPacer(clock=clock)
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._saved_at = clock()
        self._figures = (0, 0.0)
        self._ended = False

    def __enter__(self) -> "_RunningReply":
        try:
            self._log.begin(self._message)
        except StoreError as error:
            logger.warning("%s", error)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            self._content.append(self._cleaner.finish())
            self._end("cancelled")

    def failed(self, error: str) -> ReplyFinished:
        """Store that there is no reply, and why."""
        with self:
            return self._end("error", error=error)

    def stream(
        self,
        engine: Engine,
        messages: Sequence[Message],
        cancel: threading.Event,
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
                        case PrefillProgress():
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
        yield from self._pacer.push(TextDelta(rest, "content", *self._figures))
        yield from self._pacer.flush()
        yield end

    def _take(self, delta: TextDelta) -> list[TextDelta]:
        self._figures = (delta.completion_tokens, delta.decode_seconds)
        if delta.kind == "content":
            delta = replace(delta, text=self._cleaner.feed(delta.text))
            self._content.append(delta.text)
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

    def _end(
        self, reason: FinishReason, finished: GenerationFinished | None = None, error: str = ""
    ) -> ReplyFinished:
        """Write the reply as it stands; text is never lost to a disk that refuses it."""
        self._ended = True
        message = replace(
            self._message,
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            status=_STATUS.get(reason, "complete"),
            finish_reason=reason,
            error=(finished and finished.error) or error,
            mode=self._settings.mode,
            modes=tuple(used) if len(used := self._settings.used) > 1 else (),
            token_count=finished.metrics.completion_tokens if finished else None,
            metrics=finished.metrics if finished else None,
        )
        unsaved = ""
        try:
            self._log.end(message)
        except StoreError as refused:
            unsaved = str(refused)
        if finished is None:
            return ReplyFinished(message, reason, unsaved=unsaved)
        return ReplyFinished(message, reason, finished.prompt_ids, finished.new_ids, unsaved)


def _events(
    engine: Engine,
    messages: Sequence[Message],
    settings: PollSettings,
    cancel: threading.Event,
) -> Generator[EngineEvent, None, None]:
    """The engine's events as a generator, so that a dropped reply closes the engine's too."""
    yield from engine.stream(messages, settings, cancel)


def _new_id() -> str:
    return uuid.uuid4().hex


def _last_id(messages: Sequence[Message]) -> str | None:
    return messages[-1].id if messages else None


def _user_message(text: str, parent_id: str | None) -> Message:
    return Message(_new_id(), Role.USER, text, datetime.now(UTC), parent_id)


def _system_message(text: str, created_at: datetime) -> Message:
    return Message("system", Role.SYSTEM, text, created_at)
