"""One conversation with one engine: a prompt goes in, saved reply events come out."""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain

from tui_chat.chat.attachment import title_text
from tui_chat.chat.context import PromptTooLong, split_turns
from tui_chat.chat.planner import Messages, Planner
from tui_chat.chat.reply_stream import GetMode, ReplySettings, ReplyStream, SettingsOf
from tui_chat.chat.sanitize import one_line
from tui_chat.engine.base import Engine, EngineError
from tui_chat.store.log import ConversationLog, StoreError
from tui_chat.types import (
    ContextPlan,
    Conversation,
    Message,
    ReplyEvent,
    ReplyFinished,
    ReplyStarted,
    Role,
)

logger = logging.getLogger(__name__)

TITLE_LENGTH = 60
NOTHING_TO_CONTINUE = (
    "The last reply was neither cut off nor edited, so there is nothing to continue."
)


class SessionError(Exception):
    """A reply cannot be started; `str()` is one sentence for the user."""


class ChatReadOnly(SessionError):
    """The conversation can only be read, so nothing is asked in it; nothing has changed."""


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
        context_budget: int | None = None,
        trim_incomplete: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        engine: the model, once it is loaded.
        log: the conversation.
        reserved_tokens: how much of the context window is kept free for a reply.
        context_budget: how many tokens a prompt may have; None leaves it all that is not kept.
        trim_incomplete: the unfinished last sentence of a reply that the length limit cut is
            neither shown nor sent; it is stored, and a continuation has it.
        clock: seconds.
        """
        self.engine = engine
        self.log = log
        self.reserved_tokens = reserved_tokens
        self.context_budget = context_budget
        self._trim_incomplete = trim_incomplete
        self._clock = clock
        self._planner = Planner(log, reserved_tokens, context_budget)

    @property
    def conversation(self) -> Conversation:
        """The conversation as it stands, the open branch."""
        return self.log.conversation

    def _branch(self) -> Messages:
        """The open branch, beyond the first glance.

        Raises:
            StoreError: its file cannot be read.
        """
        self.log.check()
        return self.conversation.messages

    def plan(
        self, draft: str = "", thinking: bool | None = None, *, instead_of: str | None = None
    ) -> ContextPlan | None:
        """What would be sent if `draft` were sent now, with its exact token count.

        Never raises for a draft that is too long: `prompt_tokens` then exceeds `budget`. None
        while no engine is loaded. `thinking` is that of the settings. Any thread. With
        `instead_of` the draft takes the place of that question and of all that came after it.

        Raises:
            EngineError: the prompt cannot be rendered.
            SessionError: the question is not on the open branch.
            StoreError: the earlier messages cannot be read.
        """
        engine = self.engine
        if engine is None:
            return None
        messages = self._branch()
        if instead_of is not None:
            messages, at = self._place(instead_of)
            messages = messages[:at]
        if draft or (messages and messages[-1].role is Role.ASSISTANT):
            # A prompt that ends with a reply would be one that continues it.
            messages += (_user_message(draft, _last_id(messages)),)
        try:
            return self._planner.plan(engine, messages, thinking)
        except PromptTooLong as error:
            return error.plan

    def drops_more(self, plan: ContextPlan) -> bool:
        """Whether `plan` leaves out turns that the last prompt of this engine still had."""
        return self.engine is not None and self._planner.drops_more(self.engine, plan)

    def count_unread(self, thinking: bool | None = None) -> tuple[int, int]:
        """How many tokens the next prompt has without its question, and are not in the prompt
        cache, and how many are. Any thread.

        Raises:
            EngineError: the prompt cannot be rendered.
        """
        engine = self.engine  # which may be unloaded meanwhile
        plan = self.plan(thinking=thinking)
        if engine is None or plan is None or not self.conversation.messages:
            return 0, 0
        cached = engine.count_cached(plan.kept, thinking)
        return plan.prompt_tokens - cached, cached

    def count_text(self, text: str) -> int | None:
        """Tokens that `text` adds to a message; None while no engine is loaded. Any thread."""
        engine = self.engine
        if engine is None:
            return None
        whole, empty = (engine.count_message(_user_message(t, None)) for t in (text, ""))
        return max(0, whole - empty)

    def reply(
        self, text: str, *, mode: GetMode, settings: SettingsOf, cancel: threading.Event
    ) -> Generator[ReplyEvent, None, None]:
        """Save `text` as the user's message, then stream and save the reply, all while iterating.

        `mode` is asked before each token, from the thread that iterates: a switch holds from the
        next token on, with the `settings` of the new mode. How long the reply may get, its seed
        and its stop strings are those of the mode at its start.

        Yields `ReplyStarted`, `PrefillProgress`, `TextDelta` at most ten times a second, then
        exactly one `ReplyFinished`. A dropped iterator ends the reply as interrupted.

        Raises:
            SessionError: at the call, when no engine is loaded or the chat can only be read
                (`ChatReadOnly`); so do all below that write a reply.
            PromptTooLong: at the first step, when the message does not fit; nothing is stored.
        """
        engine = self._ready()
        earlier = self._branch()
        user = _user_message(text, _last_id(earlier))
        return self._reply_to(engine, earlier, user, ReplySettings(mode, settings), cancel)

    def edit(
        self,
        message_id: str,
        text: str,
        *,
        mode: GetMode,
        settings: SettingsOf,
        cancel: threading.Event,
    ) -> Generator[ReplyEvent, None, None]:
        """Ask an earlier question anew as `text`, with all that came before it.

        It becomes a sibling of the old one, whose branch stays in the file. Yields as `reply`.

        Raises:
            SessionError: at the call, when no engine is loaded or this is no question of the
                open branch.
        """
        engine = self._ready()
        messages, at = self._place(message_id)
        earlier, old = messages[:at], messages[at]
        if old.role is not Role.USER:
            raise SessionError("Only a question can be asked anew.")
        user = _user_message(text, old.parent_id)
        return self._reply_to(engine, earlier, user, ReplySettings(mode, settings), cancel)

    def edit_reply(self, message_id: str, text: str) -> Message:
        """Store a reply of the open branch as `text`, a sibling of the old one, and open it.

        It is marked as edited, and a model can go on with it.

        Raises:
            SessionError: this is no reply of the open branch.
            StoreError: as `ConversationLog.append` does.
        """
        messages, at = self._place(message_id)
        old = messages[at]
        if old.role is not Role.ASSISTANT:
            raise SessionError("Only a reply can be edited in its place.")
        edited = Message(
            id=_new_id(),
            role=Role.ASSISTANT,
            content=text,
            created_at=datetime.now(UTC),
            parent_id=old.parent_id,
            reasoning=old.reasoning,
            model=old.model,
            revision=old.revision,
            tokenizer_id=old.tokenizer_id,
            edited=True,
        )
        self.log.append(edited)
        return edited

    def regenerate(
        self,
        message_id: str | None = None,
        *,
        mode: GetMode,
        settings: SettingsOf,
        cancel: threading.Event,
    ) -> Generator[ReplyEvent, None, None]:
        """Stream another reply to a prompt; the old one stays in the file as a sibling.

        The prompt is that of the message on the open branch, a reply or the prompt itself; by
        default the last one. One without a reply is answered. With a fixed seed the new reply
        gets the seed after those of its siblings, so that it differs. Yields as `reply` does.

        Raises:
            SessionError: at the call, when no engine is loaded or nothing was asked yet.
        """
        engine = self._ready()
        messages, last = self._place(message_id)
        asked = next((at for at in range(last, -1, -1) if messages[at].role is Role.USER), None)
        if asked is None:
            raise SessionError("There is no prompt yet that could be answered again.")
        chosen = ReplySettings(mode, settings)
        if chosen.is_seeded and asked + 1 < len(messages):
            replies = self.log.siblings(messages[asked + 1].id)
            seeds = [reply.seed for reply in replies if reply.seed is not None]
            if seeds:
                chosen.seed = (max(seeds) + 1) % 2**63
        return self._generate(engine, messages[: asked + 1], chosen, cancel)

    def open_version(self, message_id: str) -> None:
        """Open the branch through a message, and below it the one that was open there last.

        Raises:
            KeyError: there is no such message.
            StoreError: as `ConversationLog.select` does.
        """
        self.log.check()
        self.log.select(self.log.end_of_branch(message_id))

    def exclude(self, message_id: str, excluded: bool) -> None:
        """Leave a message of the open branch out of the context, and with it its turn.

        With `excluded=False` the whole turn is taken in again.

        Raises:
            SessionError: it is not on the open branch, or the newest question, which is sent.
            StoreError: as `ConversationLog.exclude` does.
        """
        messages, at = self._place(message_id)
        message = messages[at]
        if excluded and message is messages[-1] and message.role is Role.USER:
            raise SessionError("The newest question is always sent.")
        turns = (turn for turn in split_turns(messages) if message in turn)
        for one in (message,) if excluded else next(turns, (message,)):
            if one.excluded is not excluded:
                self.log.exclude(one.id, excluded)

    def continue_reply(
        self, *, mode: GetMode, settings: SettingsOf, cancel: threading.Event
    ) -> Generator[ReplyEvent, None, None]:
        """Go on with the last reply, which was cut off or edited, behind its very last token.

        The same message grows: `ReplyStarted` names its id, the deltas are what comes behind
        its `content`, and `ReplyFinished` has all of it with the metrics of this last part. A
        part that is stopped before its first token leaves the reply as it was. Yields as
        `reply` does.

        Raises:
            SessionError: at the call, when no engine is loaded or the last reply was neither
                cut off nor edited; at the first step, when the context window has no room left.
        """
        engine = self._ready()
        messages = self._branch()
        if not messages or not messages[-1].can_continue:
            raise SessionError(NOTHING_TO_CONTINUE)
        return self._continue(engine, messages, ReplySettings(mode, settings), cancel)

    def _ready(self) -> Engine:
        """The engine that answers, once it is certain that what it says can be stored."""
        if self.engine is None:
            raise SessionError("No model is loaded yet; choose one first.")
        with contextlib.suppress(StoreError):  # a disk that fails refuses no reply
            self.log.check()
        if self.log.read_only:
            raise ChatReadOnly(self.log.read_only_reason)
        return self.engine

    def _place(self, message_id: str | None) -> tuple[Messages, int]:
        """The open branch, and where on it a message stands, or the last one.

        So much of it is loaded that its question is there, and what that one follows.

        Raises:
            SessionError: it is not on the open branch.
            StoreError: the earlier messages cannot be read.
        """
        while True:
            messages = self._branch()
            last = len(messages) - 1
            ids = (at for at, message in enumerate(messages) if message.id == message_id)
            at = last if message_id is None else next(ids, None)
            if at is not None and any(m.role is Role.USER for m in messages[1 : at + 1]):
                return messages, at
            if not self.log.load_earlier():
                break
        if at is None:
            raise SessionError("This message is not on the branch that is open.")
        return messages, at

    def _reply_to(
        self,
        engine: Engine,
        earlier: Messages,
        user: Message,
        settings: ReplySettings,
        cancel: threading.Event,
    ) -> Generator[ReplyEvent, None, None]:
        untitled = not self.conversation.title
        plan: ContextPlan | EngineError | StoreError
        try:
            plan = self._planner.plan(engine, (*earlier, user), settings.thinking)
        except (EngineError, StoreError) as error:
            plan = error
        try:
            self.log.append(user)
        except StoreError as error:
            # The log keeps the record and writes it again with the reply, which reports.
            logger.warning("%s", error)
        if untitled:
            title = one_line(title_text(user.content), TITLE_LENGTH)
            with contextlib.suppress(StoreError):
                self.log.suggest_title(title, "prompt")
        yield from self._generate(engine, (*earlier, user), settings, cancel, plan)

    def _generate(
        self,
        engine: Engine,
        messages: Messages,
        settings: ReplySettings,
        cancel: threading.Event,
        plan: ContextPlan | EngineError | StoreError | None = None,
    ) -> Generator[ReplyEvent, None, None]:
        reply = Message(
            id=_new_id(),
            role=Role.ASSISTANT,
            content="",
            created_at=datetime.now(UTC),
            parent_id=messages[-1].id,
            model=engine.name,
            revision=engine.revision,
            tokenizer_id=engine.tokenizer_id,
            mode=settings.mode,
            seed=settings.seed,
        )
        stream = self._stream(reply, settings)
        try:
            plan = plan or self._planner.plan(engine, messages, settings.thinking)
        except (PromptTooLong, EngineError, StoreError) as error:
            yield stream.failed(str(error))
            return
        if isinstance(plan, EngineError | StoreError):
            yield stream.failed(str(plan))
            return
        yield from self._run(engine, plan, stream, settings, cancel)

    def _continue(
        self,
        engine: Engine,
        messages: Messages,
        settings: ReplySettings,
        cancel: threading.Event,
    ) -> Generator[ReplyEvent, None, None]:
        cut = messages[-1]
        whole = _to_go_on(cut, engine)
        try:
            plan = self._planner.plan(engine, (*messages[:-1], whole), settings.thinking)
        except PromptTooLong as error:
            plan = error.plan
        except (EngineError, StoreError) as error:
            raise SessionError(str(error)) from error
        if plan.prompt_tokens >= plan.context_window:
            raise SessionError(
                f"The reply fills the context window of {plan.context_window:,} tokens, so it "
                "cannot be continued; ask for the rest in a new message."
            )
        if cut.seed is not None:
            settings.seed = (cut.seed + whole.continuations) % 2**63
        yield from self._run(engine, plan, self._stream(whole, settings, cut), settings, cancel)

    def _stream(
        self, reply: Message, settings: ReplySettings, continues: Message | None = None
    ) -> ReplyStream:
        return ReplyStream(
            self.log,
            reply,
            settings,
            self._clock,
            trim_incomplete=self._trim_incomplete,
            continues=continues,
        )

    def _run(
        self,
        engine: Engine,
        plan: ContextPlan,
        stream: ReplyStream,
        settings: ReplySettings,
        cancel: threading.Event,
        note: str = "",
    ) -> Generator[ReplyEvent, None, None]:
        """The events of a reply; one that runs out of memory goes on once with half the turns."""
        self._planner.remember(engine, plan)
        room = max(1, plan.context_window - plan.prompt_tokens)
        settings.max_new_tokens = min(settings.max_new_tokens, room)
        failed: Message | None = None
        with stream:
            yield ReplyStarted(plan, stream.message_id, note)
            for event in stream.run(engine, plan.kept, cancel):
                if isinstance(event, ReplyFinished) and event.out_of_memory and not note:
                    failed = event.message
                    less = None if cancel.is_set() else self._half(engine, plan, failed, settings)
                    if less is not None:
                        break
                yield event
            else:
                return
        if failed is None or less is None:
            return
        stream = self._stream(_to_go_on(failed, engine), settings, failed)
        count = sum(message.role is Role.USER for message in less.dropped)
        turns = "turn" if count == 1 else f"{count} turns"
        if less.drops_earlier:
            turns = "turns"
        what = failed.error.partition(";")[0]
        note = f"{what}; the reply goes on without the oldest {turns}."
        yield from self._run(engine, less, stream, settings, cancel, note)

    def _half(
        self, engine: Engine, plan: ContextPlan, reply: Message, settings: ReplySettings
    ) -> ContextPlan | None:
        """`plan` with the newer half of its turns, for `reply` to go on; None if there is one."""
        system = tuple(message for message in plan.kept if message.role is Role.SYSTEM)
        turns = split_turns(plan.kept)
        if len(turns) < 2:
            return None
        gone, stay = turns[: len(turns) // 2], turns[len(turns) // 2 :]
        kept = (*system, *chain.from_iterable(stay))
        if kept[-1].id == reply.id:
            kept = kept[:-1]
        kept = (*kept, _to_go_on(reply, engine))
        try:
            tokens = engine.count_tokens(kept, settings.thinking)
        except EngineError:
            return None
        dropped = (*plan.dropped, *chain.from_iterable(gone))
        return replace(plan, kept=kept, dropped=dropped, prompt_tokens=tokens)


def _to_go_on(cut: Message, engine: Engine) -> Message:
    """A reply that was cut, as the beginning of what `engine` will make of it."""
    return replace(
        cut,
        content=cut.content + cut.cut_tail,
        cut_tail="",
        status="complete",  # a reply that was stopped while it reasoned would not be sent
        model=engine.name,
        revision=engine.revision,
        tokenizer_id=engine.tokenizer_id,
        finish_reason=None,
        error="",
        token_count=None,
        metrics=None,
        continuations=cut.continuations + 1,
    )


def _new_id() -> str:
    return uuid.uuid4().hex


def _last_id(messages: Sequence[Message]) -> str | None:
    return messages[-1].id if messages else None


def _user_message(text: str, parent_id: str | None) -> Message:
    return Message(_new_id(), Role.USER, text, datetime.now(UTC), parent_id)
