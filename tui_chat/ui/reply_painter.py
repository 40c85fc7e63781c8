"""Paints the events of one reply: the turn on the page and the row above the box."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.timer import Timer

from tui_chat.types import (
    Conversation,
    PrefillProgress,
    ReplyFinished,
    ReplyStarted,
    TextDelta,
)
from tui_chat.ui.pace import Pace
from tui_chat.ui.status_bar import Activity
from tui_chat.ui.transcript import Transcript
from tui_chat.ui.user_turn import UserTurn

if TYPE_CHECKING:
    from tui_chat.ui.message_view import AssistantTurn


class ReplyPainter:
    """One reply on the screen, from its prompt to the line under it."""

    def __init__(
        self,
        transcript: Transcript,
        activity: Activity,
        *,
        asked: UserTurn | None,
        key: Callable[[str], str],
        pace: Pace,
    ) -> None:
        """`asked` is the view of the prompt, which gets its id once it is stored."""
        self._transcript = transcript
        self._activity = activity
        self.asked = asked
        self._key = key
        self._pace = pace
        self._view: AssistantTurn | None = None
        self._delta: TextDelta | None = None
        self._exact = True
        self._reading_since = time.monotonic()
        self._progress: PrefillProgress | None = None
        """How far the prompt is read; None while something else is waited for."""
        self._timer: Timer | None = None
        self._repainted = 0.0

    def close(self) -> None:
        """Paint nothing more by itself."""
        if self._timer is not None:
            self._timer.stop()

    async def started(self, event: ReplyStarted, conversation: Conversation) -> None:
        """The prompt is stored and planned: dim what is dropped, open the reply."""
        if self.asked is not None and event.plan.kept:
            self.asked.message_id = event.plan.kept[-1].id
        self._transcript.update(conversation)
        await self._transcript.show_plan(event.plan)
        self._view = await self._transcript.open_reply(event.message_id)
        self._view.on_paint = self._painted
        self._reading_since = time.monotonic()
        self._exact = event.plan.exact
        self._progress = PrefillProgress(0, event.plan.prompt_tokens)
        self._show_reading(self._progress, 0.0)
        # A server is silent until its first token, which may take minutes.
        self._timer = self._activity.set_interval(self._pace.figures_seconds, self._show_time)

    def prefill(self, event: PrefillProgress) -> None:
        """More of the prompt is read; a short prompt shows no progress."""
        self._progress = event
        now = time.monotonic()
        elapsed = now - self._reading_since
        pause = self._pace.figures_seconds
        # A timer that comes a little early is not to wait for its next turn.
        if elapsed > pause and now - self._repainted > 0.9 * pause:
            self._repainted = now
            self._show_reading(event, elapsed)

    def _show_time(self) -> None:
        if self._progress is not None and self._delta is None:
            self.prefill(self._progress)

    def _show_reading(self, progress: PrefillProgress, elapsed: float) -> None:
        # What a server says that it has read it has counted.
        exact = self._exact or progress.done > 0
        key = self._key("stop")
        self._activity.show_reading(progress.done, progress.total, elapsed, key, exact=exact)

    def waiting(self, why: str) -> None:
        """A busy server is waited for."""
        self._progress = None
        self._activity.show_waiting(why, self._key("stop"))

    def delta(self, event: TextDelta) -> None:
        """More text."""
        self._delta = event
        if self._view is not None:
            feed = self._view.feed if event.kind == "content" else self._view.feed_reasoning
            feed(event.text)
        # Where no text is painted, because all of it is held back, the figures still go on.
        if time.monotonic() - self._repainted >= 2 * self._pace.figures_seconds:
            self.repaint_figures()

    def _painted(self) -> None:
        """Text was painted: the figures come with it in one frame, which costs half of two."""
        if time.monotonic() - self._repainted >= 0.9 * self._pace.figures_seconds:
            self.repaint_figures()

    def repaint_figures(self) -> None:
        """Show the live figures, or the mark that text arrived below the view."""
        if self._delta is None:
            return
        self._repainted = time.monotonic()
        self._activity.show_writing(
            self._delta,
            below=not self._transcript.at_end,
            stop_key=self._key("stop"),
            follow_key=self._key("follow"),
        )

    async def finished(self, event: ReplyFinished) -> None:
        """Paint the rest and how it ended; a reply that never started gets its line as well."""
        self.close()
        if self._view is None:
            if self.asked is not None:
                self.asked.message_id = event.message.parent_id or ""
            self._view = await self._transcript.open_reply(event.message.id)
        await self._view.finish(event.message)
        self._transcript.reply_ended(event.message.id, self._view.code_count)
        if event.unsaved:
            await self._transcript.add_failure(event.unsaved)
