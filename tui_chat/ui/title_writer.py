"""Lets the model write a title when nothing else is to do, and gives way to everything else."""

import logging
import threading
from typing import TYPE_CHECKING

from textual.screen import Screen
from textual.timer import Timer

from tui_chat.ui.engine_thread import EngineThread
from tui_chat.ui.events import TitleWritten

if TYPE_CHECKING:
    from tui_chat.chat.session import Session

IDLE_SECONDS = 2.0
"""Seconds without a key and without a reply before a title is asked for."""
NO_TITLES = ("guide", "echo:")
"""How the names of the models begin that can write none."""

log = logging.getLogger(__name__)


class TitleWriter:
    """Asks for one title in each conversation, after a reply."""

    def __init__(self, screen: Screen[None], engine_thread: EngineThread, *, enabled: bool) -> None:
        self._screen = screen
        self._engine_thread = engine_thread
        self._enabled = enabled
        self._timer: Timer | None = None
        self._cancel: threading.Event | None = None
        self._session: Session | None = None
        self._thinking: bool | None = None
        self._done: set[str] = set()
        """Conversations for which it was tried to the end."""

    def soon(self, session: "Session", thinking: bool | None) -> None:
        """A reply has ended: ask for a title when nothing happens for a while.

        `thinking` is that of the settings of its replies.
        """
        self.stop()
        engine = session.engine
        if not self._enabled or engine is None or engine.name.startswith(NO_TITLES):
            return
        if session.conversation.id not in self._done:
            self._session, self._thinking = session, thinking
            self._timer = self._screen.set_timer(IDLE_SECONDS, self._start)

    def wait(self) -> None:
        """Something is typed: end what is running, and wait again."""
        if self._session is not None:
            self.soon(self._session, self._thinking)

    def stop(self) -> None:
        """Something else needs the model: end what is running within a token."""
        if self._timer is not None:
            self._timer.stop()
        if self._cancel is not None:
            self._cancel.set()
        self._timer = self._cancel = self._session = None

    def _start(self) -> None:
        from tui_chat.chat.titles import wants_title, write_title

        session, thinking, self._timer = self._session, self._thinking, None
        if session is None or not wants_title(session.conversation):
            self._session = None
            return

        def job(cancel: threading.Event) -> None:
            if cancel.is_set():
                return
            try:
                title = write_title(session, thinking, cancel)
            except Exception:
                log.exception("the title failed")
                title = ""
            if title or not cancel.is_set():
                self._screen.post_message(TitleWritten(session, title))

        self._cancel = self._engine_thread.submit(job)

    def written(self, session: "Session") -> None:
        """It was tried; there is no second time."""
        self._done.add(session.conversation.id)
        if session is self._session:
            self._cancel = self._session = None
