"""Counts the draft of a desk: at once where that is a matter of microseconds, else off the event
loop when the typing pauses, and what is huge not all the time.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from textual.timer import Timer

from tui_chat.types import Message, Role
from tui_chat.ui.commands import is_command
from tui_chat.ui.driver import typing_of

if TYPE_CHECKING:
    from tui_chat.chat.draft_meter import DraftMeter
    from tui_chat.chat.session import Session
    from tui_chat.ui.desk import Desk
    from tui_chat.ui.draft import DraftCount, ReadDraft

COUNT_DELAY = 0.2
"""Seconds without a key press before what takes longer is counted."""
PATIENCE = 0.25
"""Seconds that a count may take before an estimate is shown in its place."""
REST = 4.0
"""So many times as long as a count took, there is none again of a draft that is as long."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """What the last count was of, and what it took."""

    characters: int = 0
    attached: tuple[str, ...] = ()
    seconds: float = 0.0
    moment: float = 0.0
    """Of its end."""


class DraftCounter:
    """Counts for one desk, never twice at a time."""

    def __init__(
        self,
        desk: "Desk",
        *,
        session: "Callable[[], Session | None]",
        edits: Callable[[], Message | None],
        thinking: Callable[[], bool | None],
    ) -> None:
        """The functions are those of the desk."""
        self._desk = desk
        self._session = session
        self._edits = edits
        self._thinking = thinking
        self.about: int | None = None
        """Tokens of the draft, roughly, while a count takes long."""
        self._timer: Timer | None = None
        self._stale = False
        self._counting = False
        self._last_count = _Counted()
        self._meter: tuple[Session, DraftMeter] | None = None

    def soon(self) -> None:
        """Count at once where only the draft changed, else once the typing pauses."""
        if self._timer is not None:
            self._timer.stop()
        if not self._recount():
            self._timer = self._desk.set_timer(COUNT_DELAY, self.now)

    def _typed(self) -> tuple[str, str | None]:
        """The text that is to be counted, and the question that it takes the place of."""
        text, edited = self._desk.box.full_text, self._edits()
        if edited is not None and edited.role is Role.ASSISTANT:
            return "", None
        if edited is None:
            return "" if is_command(text) else text, None
        return text, edited.id

    def _recount(self) -> bool:
        """Count a key press at once; False where something else changed, or it takes longer."""
        from tui_chat.engine.base import EngineError

        session = self._session()
        if session is None or self._meter is None or self._meter[0] is not session:
            return False
        has_files = (
            self._desk.attached or "@" in self._desk.box.text or self._desk.query("#attachments")
        )
        if has_files or self._desk.box.folded.has_labels:
            return False
        text, place = self._typed()
        try:
            size = self._meter[1].recount(text, self._thinking(), place)
        except EngineError:
            return False
        if size is None:
            return False
        self._stale = self._stale or self._counting
        self._desk.show_size(size)
        return True

    def now(self) -> None:
        """Count the prompt now, or once the count that runs has ended."""
        self._stale = True
        if not self._counting:
            self._counting = True
            self._desk.run_worker(self._count_until_current(), exit_on_error=False)

    async def _count_until_current(self) -> None:
        """Count the draft; again as long as it has changed meanwhile, never twice at a time."""
        from tui_chat.chat.draft_meter import DraftMeter

        try:
            while self._stale:
                self._stale = False
                session = self._session()
                if session is None:
                    return
                if self._meter is None or self._meter[0] is not session:
                    self._meter = session, DraftMeter(session)
                if self._rest() > 0:
                    await self._rest_with_estimate(session, self._meter[1])
                    if session is not self._session():
                        self._stale = True
                        continue
                self._stale = False
                count = await self._count_once(session, self._meter[1])
                await typing_of(self._desk.app).wait()
                if session is self._session() and not self._stale:
                    await self._show(count)
        finally:
            self._counting, self.about = False, None

    def _rest(self) -> float:
        """Seconds until the draft may be counted again; the shorter it got, the fewer."""
        last = self._last_count
        if last.seconds < PATIENCE or last.attached != tuple(self._desk.attached):
            return 0.0
        share = min(1.0, (len(self._desk.box.full_text) + 1) / (last.characters + 1))
        return last.moment + REST * last.seconds * share - time.monotonic()

    async def _rest_with_estimate(self, session: "Session", meter: "DraftMeter") -> None:
        """Show what a long draft may cost, and leave the processor to others for a while."""
        from tui_chat.ui.draft import estimate_draft

        draft = await self._read_draft()
        estimate = await asyncio.to_thread(estimate_draft, session, meter, draft)
        if session is self._session():
            self.about = estimate.about
            await self._show(estimate)
        while (rest := self._rest()) > 0 and session is self._session():
            await asyncio.sleep(min(rest, COUNT_DELAY))

    async def _read_draft(self) -> "ReadDraft":
        from tui_chat.ui.draft import read_draft

        text, _ = self._typed()
        folded = tuple(self._desk.box.folded.text_of(label) for label in self._desk.box.labels())
        return await asyncio.to_thread(read_draft, text, tuple(self._desk.attached), folded)

    async def _count_once(self, session: "Session", meter: "DraftMeter") -> "DraftCount":
        """The exact count; where it takes long an estimate is shown first."""
        from tui_chat.ui.draft import count_draft, estimate_draft

        _, place = self._typed()
        characters, attached = len(self._desk.box.full_text), tuple(self._desk.attached)
        draft = await self._read_draft()
        started = time.monotonic()
        count = partial(count_draft, thinking=self._thinking(), instead_of=place)
        counting = asyncio.ensure_future(asyncio.to_thread(count, session, meter, draft))
        await asyncio.wait({counting}, timeout=PATIENCE)
        if not counting.done() and session is self._session():
            estimate = await asyncio.to_thread(estimate_draft, session, meter, draft)
            if not counting.done():
                self.about = estimate.about
                await self._show(estimate)
        counted = await counting
        moment = time.monotonic()
        self._last_count = _Counted(characters, attached, moment - started, moment)
        return counted

    async def _show(self, count: "DraftCount") -> None:
        if count.size is not None:
            self.about = None
        await self._desk.show_count(count)
