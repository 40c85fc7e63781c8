"""How the app ends: because the user leaves, by a signal, or with its terminal."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui_chat.ui.app import TuiChat

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 3.0
"""How long a reply that was told to stop may take before the process ends without it."""
MOST_SHUTDOWN_SECONDS = 5.5
"""After a signal the process is gone by then, whatever hangs: a disk, the screen, the model."""


class Ending:
    """The end of one app."""

    def __init__(self, app: "TuiChat") -> None:
        self._app = app
        self.exit_at_once: Callable[[int], None] = os._exit
        """Ends the process where the screen cannot be left any more."""
        self.has_begun = False
        self.code = 0
        """What the process ends with where a signal ends it."""
        self._killed = False

    def catch_signals(self) -> None:
        """A closed terminal or a kill stops the reply and saves it; then the process ends."""
        if threading.current_thread() is not threading.main_thread():
            return  # under a test pilot

        def on_signal(number: int, _: FrameType | None) -> None:
            self.by_signal(number)

        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:
                signal.signal(number, on_signal)

    def by_signal(self, number: int) -> None:
        """End the app from any thread or a signal handler, whatever the event loop does."""
        if self._killed:
            return
        # Also where the user is leaving already: that may hang.
        self._killed, self.has_begun, self.code = True, True, 128 + number
        watchdog = threading.Timer(MOST_SHUTDOWN_SECONDS, self.exit_at_once, (self.code,))
        watchdog.daemon = True
        watchdog.start()
        threading.Thread(target=self._finish, name="shutdown", daemon=True).start()

    def _finish(self) -> None:
        app, code = self._app, self.code
        app.engine_thread.stop()
        app.models.cancel_load()
        with contextlib.suppress(Exception):  # whatever is left of the screen by now
            app.chat.drafts.save_now()
        app.engine_thread.written_within(SHUTDOWN_SECONDS)
        with contextlib.suppress(Exception):
            app.unsaved.save_or_rescue(app.open_log)
        if app._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself meanwhile
                app._loop.call_soon_threadsafe(lambda: app.exit(code, return_code=code))
        time.sleep(2.0)
        self.exit_at_once(code)

    def by_user(self) -> None:
        """Stop the reply, let it be saved, and leave."""
        if not self.has_begun:
            self.has_begun = True
            self._app.engine_thread.stop()
            self._app.models.cancel_load()
            self._app.run_worker(self._leave(), exit_on_error=False)

    async def _leave(self) -> None:
        app = self._app
        try:
            app.chat.drafts.close()
            await asyncio.to_thread(app.engine_thread.written_within, SHUTDOWN_SECONDS)
        except Exception:
            log.exception("what was to be written at the end failed")
        app.exit(0)
