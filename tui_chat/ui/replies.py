"""Runs the replies of the conversation on the screen: what waits, the one that runs, its events.

While a reply runs only the engine thread writes the conversation; here is painted what it tells.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from tui_chat.types import (
    EngineNotice,
    PrefillProgress,
    ReplyEvent,
    ReplyFinished,
    ReplyMetrics,
    ReplyStarted,
    TextDelta,
)
from tui_chat.ui.engine_thread import EngineThread
from tui_chat.ui.events import MessageRefused, ReplyCrashed, ReplyEnded, SessionEvent
from tui_chat.ui.ink import Line
from tui_chat.ui.pace import Pace
from tui_chat.ui.reply_painter import ReplyPainter
from tui_chat.ui.status_bar import Activity
from tui_chat.ui.user_turn import UserTurn

if TYPE_CHECKING:
    from tui_chat.chat.session import Session
    from tui_chat.ui.chat_screen import ChatScreen

log = logging.getLogger(__name__)


class Replies:
    """The replies of one screen, one at a time."""

    def __init__(self, chat: "ChatScreen", engine_thread: EngineThread, pace: Pace) -> None:
        """They run on `engine_thread` and are painted at `pace`."""
        self._chat = chat
        self._engine_thread = engine_thread
        self._pace = pace
        self.busy = False
        self._cancel: Event | None = None
        self._painter: ReplyPainter | None = None
        self._queue: list[tuple[str, UserTurn]] = []
        self._told: set[tuple[str, str]] = set()

    @property
    def waiting(self) -> tuple[str, ...]:
        """The prompts that wait for the model, or for the reply that runs."""
        return tuple(text for text, _ in self._queue)

    # ---- asking ----

    async def ask(self, text: str) -> None:
        """Put a prompt on the page, and send it now or once it is its turn."""
        chat = self._chat
        session = chat.session if chat.has_session else None
        must_wait = self._is_taken or chat.engine is None
        with contextlib.nullcontext() if must_wait else self.claimed():
            view = await chat.transcript.add_user("", text, waiting=must_wait)
        if session is not None and session is not chat.session:  # another was opened meanwhile
            chat.desk.take_back(text)
        elif not must_wait:
            self.start(view, partial(chat.session.reply, text))
        else:
            self._queue.append((text, view))
            self._mark_last()
            chat.count_soon()
            if chat.engine is None and not chat.model.is_expected:
                chat.model.is_missing()
            self.send_next()  # what it was to wait for may have ended meanwhile

    def take_back(self) -> bool:
        """Bring the prompt that waits last back into the box; False when none waits."""
        if not self._queue:
            return False
        text, view = self._queue.pop()
        view.remove()
        self._mark_last()
        self._chat.desk.take_back(text)
        return True

    def _mark_last(self) -> None:
        for index, (_, view) in enumerate(self._queue, 1):
            view.waits(is_last=index == len(self._queue))

    async def show_waiting(self) -> None:
        """Put what waits on the page again, behind what was put there meanwhile."""
        add = self._chat.transcript.add_user
        self._queue = [(text, await add("", text, waiting=True)) for text, _ in self._queue]
        self._mark_last()

    def send_next(self) -> None:
        """Send the prompt that waits longest, if there is one and nothing runs."""
        chat = self._chat
        if self.busy or not self._queue or chat.engine is None:
            return
        text, view = self._queue.pop(0)
        chat.transcript.send_waiting(view)
        self.start(view, partial(chat.session.reply, text))

    async def go_on(self) -> None:
        """Go on with the last reply, which was cut off, in its place on the page."""
        from tui_chat.chat.session import NOTHING_TO_CONTINUE

        chat, session = self._chat, self._chat.session
        messages = session.conversation.messages
        if self._is_taken:
            chat.app.notify("The reply is still being written.", markup=False)
        elif not messages or not messages[-1].can_continue:
            chat.app.notify(NOTHING_TO_CONTINUE, markup=False)
        elif not chat.model.is_missing():
            if chat.walked is not None:
                chat.walk.leave()
            with self.claimed():
                await chat.query(".failure").remove()
            if session is chat.session:
                self.start(None, session.continue_reply)

    @property
    def _is_taken(self) -> bool:
        """Whether a reply runs, or is about to."""
        return self.busy or bool(self._queue and self._chat.engine is not None)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Let nobody else start a reply while the page is made ready for the next one."""
        self.busy = True
        try:
            yield
        except BaseException:
            self.busy = False
            raise

    def start(self, asked: UserTurn | None, run: Callable[..., Iterator[ReplyEvent]]) -> None:
        """Run a reply on the engine thread; its events come back as messages."""
        from tui_chat.chat.context import PromptTooLong
        from tui_chat.chat.session import ChatReadOnly, SessionError

        chat = self._chat
        session = chat.session
        chat.titles.stop()
        activity = chat.query_one(Activity)
        self._painter = ReplyPainter(
            chat.transcript, activity, asked=asked, key=chat.key, pace=self._pace
        )
        self.busy = True
        chat.desk.show_hint()
        chat.show_offers()

        def job(cancel: Event) -> None:
            try:
                settings = partial(chat.modes.settings_of, session)
                reply = run(mode=lambda: chat.mode, settings=settings, cancel=cancel)
                with contextlib.closing(reply) as events:  # type: ignore[type-var]
                    for event in events:
                        chat.post_message(SessionEvent(session, event))
            except (PromptTooLong, ChatReadOnly) as error:
                chat.post_message(MessageRefused(session, str(error)))
            except SessionError as error:
                chat.post_message(ReplyCrashed(session, str(error)))
            except Exception as error:
                log.exception("the reply ended with an unexpected error")
                sentence = f"The reply failed ({type(error).__name__}); your prompt is saved."
                chat.post_message(ReplyCrashed(session, sentence))

        self._cancel = self._engine_thread.submit(job)

    # ---- ending ----

    def stop(self) -> bool:
        """Stop the reply that runs; False when none does."""
        if self._cancel is None:
            return False
        self._cancel.set()
        return True

    def is_writing(self) -> bool:
        """Whether a reply runs, so that nothing may be changed; says so."""
        if self._is_taken:
            self._chat.app.notify("The reply is still being written; stop it first.", markup=False)
        return self._is_taken

    def leave(self) -> None:
        """Another conversation is shown: paint no more of the reply, and send nothing that waits.

        It has to be stopped before.
        """
        if self._painter is not None:
            self._painter.close()
        self.busy, self._cancel, self._painter = False, None, None
        self._queue.clear()

    def forget_notes(self) -> None:
        """Tell again what a model cannot do: it is another one."""
        self._told.clear()

    # ---- painting ----

    def repaint_figures(self) -> bool:
        """Show how far the reply is that runs; False when none does."""
        if not self.busy or self._painter is None:
            return False
        self._painter.repaint_figures()
        return True

    async def paint(self, session: "Session", event: ReplyEvent) -> None:
        """Paint one event of the reply; those of a chat that was left are only stored."""
        chat = self._chat
        if session is not chat.session or self._painter is None:
            return
        match event:
            case ReplyStarted() as started:
                chat.drafts.sent(session.conversation)
                await self._painter.started(started, session.conversation)
                if started.note:
                    await chat.transcript.add_notice([("warn", "↓ "), ("m", started.note)])
                chat.update_status(prompt_tokens=started.plan.prompt_tokens, draft_tokens=0)
            case PrefillProgress() as progress:
                self._painter.prefill(progress)
            case EngineNotice(text, passing=True):
                self._painter.waiting(text)
            case EngineNotice(text):
                await chat.notice([("m", text)])
            case TextDelta() as delta:
                self._painter.delta(delta)
            case ReplyFinished() as finished:
                await self._painter.finished(finished)
                metrics = finished.message.metrics
                if metrics is not None and metrics.completion_tokens >= 8:
                    chat.update_status(
                        tokens_per_second=metrics.tokens_per_second,
                        exact_rate=not metrics.approximate,
                    )
                if metrics is not None:
                    await self._tell_notes(metrics)
                await self._end()

    async def _tell_notes(self, metrics: ReplyMetrics) -> None:
        """Say once for each model what it could not do for a reply, and why."""
        notes = {
            "the whole prompt was read again": metrics.cache_note,
            "no drafts were verified": metrics.speculation_note,
        }
        for what, why in notes.items():
            if why and (what, why) not in self._told:
                self._told.add((what, why))
                await self._chat.notice([("m", f"{what}: {why}")])

    async def crashed(self, session: "Session", sentence: str) -> None:
        """The reply ended without its last event."""
        chat = self._chat
        if session is not chat.session:
            return
        await chat.transcript.show_branch(session.conversation, follow=True)
        again: Line = (("k", chat.key("regenerate")), ("m", " try again"))
        await chat.transcript.add_failure(sentence, again)
        await self._end()

    async def refused(self, session: "Session", sentence: str) -> None:
        """Put the text of a message that cannot be sent back into the box, before what is there."""
        chat = self._chat
        if session is not chat.session:
            return
        asked = self._painter.asked if self._painter is not None else None
        refused = [asked] if asked is not None else []
        ways: list[Line] = []
        if session.log.read_only:  # what waits can be sent no more than this
            refused += [view for _, view in self._queue]
            self._queue.clear()
            ways.append((("k", chat.key("new")), ("m", " starts a new chat")))
        for view in reversed(refused):
            await view.remove()
            chat.desk.take_back(view.text)
        if session.conversation.messages:  # an edit had cut the page there
            await chat.transcript.show_branch(session.conversation, follow=True)
        await chat.query(".refused").remove()
        await chat.transcript.add_failure(sentence, *ways, classes="refused")
        chat.transcript.follow()
        await self._end()

    async def _end(self) -> None:
        chat = self._chat
        if self._painter is not None:
            self._painter.close()
        self.busy, self._cancel, self._painter = False, None, None
        await chat.reply_ended()
        self.send_next()
        if not self.busy:
            chat.post_message(ReplyEnded())
            chat.titles.soon(chat.session, chat.generation_settings.thinking)
