"""Work that is done between two key presses, so that neither of them waits for it.

A frame of text takes tens of milliseconds of the event loop. Right after a key was shown the next
one is still some time away, so that is when such work comes, as long as someone types.
"""

import asyncio
import time
from collections.abc import Callable

TYPING_SECONDS = 0.3
"""After a key: when no other one came by then, nobody types any more."""


class TypingGap:
    """Knows when keys are pressed and shown, and what waits for that."""

    def __init__(self) -> None:
        self._pressed = float("-inf")
        self._is_unseen = False
        self._waiting: list[Callable[[], None]] = []

    def key_pressed(self) -> None:
        """A key came; called on any thread."""
        self._pressed, self._is_unseen = time.monotonic(), True

    def frame_sent(self) -> None:
        """The screen shows what was done until now."""
        if self._is_unseen:
            self._is_unseen = False
            self._call_all()

    def call(self, call: Callable[[], None]) -> None:
        """Call at once, or while someone types when the next key is shown or none came any more."""
        left = self._pressed + TYPING_SECONDS - time.monotonic()
        if left <= 0:
            call()
            return
        self._waiting.append(call)
        asyncio.get_running_loop().call_later(left, self._call_all)

    async def wait(self) -> None:
        """Return when `call` would call."""
        is_due = asyncio.Event()
        self.call(is_due.set)
        await is_due.wait()

    def _call_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()
