"""Keeps what is typed and not sent on the disk, for the conversation that is shown."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.screen import Screen
from textual.timer import Timer

from tui_chat.types import Conversation, Role

if TYPE_CHECKING:
    from tui_chat.store.drafts import Draft, Drafts, HeldDraft

SAVE_INTERVAL = 1.0
"""Seconds of typing that a kill may cost; more where a draft takes long to write."""
_WRITE_SHARE = 20
"""A draft is written again after this many times the time that its last write took."""


class DraftKeeper:
    """The draft of the open conversation; written while it changes, off the event loop."""

    def __init__(
        self,
        screen: Screen[None],
        drafts: "Callable[[], Drafts]",
        read: Callable[[], "Draft"],
    ) -> None:
        """`read` gives what is not sent at the moment; `drafts` is asked for when first used."""
        self._screen = screen
        self._drafts = drafts
        self._read = read
        self._held: HeldDraft | None = None
        self._is_new = True
        """Whether the conversation had no message when its draft was taken."""
        self._timer: Timer | None = None
        self._pause = SAVE_INTERVAL

    def switch(self, conversation: Conversation, *, adopt: bool = True) -> "Draft":
        """Keep the draft of the conversation that is left; what is not sent in the next.

        Without `adopt` what was not sent there before stays on the disk, for another time.
        """
        self.close()
        return _unsent(self._hold(conversation, adopt=adopt).saved, conversation)

    def changed(self) -> None:
        """What is not sent has changed; it is written within a second."""
        if self._held is not None and self._timer is None:
            self._timer = self._screen.set_timer(self._pause, self._save_soon)

    def sent(self, conversation: Conversation) -> None:
        """A prompt is stored in the conversation, so it is no draft any more."""
        old = self._held
        if old is not None and self._is_new and conversation.messages:
            self._hold(conversation, adopt=True)
            self._save_in_thread(old, clears=True)
        self._save_in_thread(self._held)

    def save_now(self) -> None:
        """Write what is not sent, at the end of the process; from any thread."""
        if self._held is not None:
            self._held.save(self._read())

    def close(self) -> None:
        """Write what is not sent, and let another process take it over."""
        if self._held is not None:
            self._held.save(self._read())
            self._held.close()

    def prune(self) -> None:
        """Remove the oldest drafts when there are many."""
        self._screen.run_worker(asyncio.to_thread(self._drafts().prune), exit_on_error=False)

    def _hold(self, conversation: Conversation, *, adopt: bool) -> "HeldDraft":
        from tui_chat.store.drafts import NEW_CHAT

        self._is_new = not conversation.messages
        self._held = self._drafts().hold(NEW_CHAT if self._is_new else conversation.id, adopt=adopt)
        return self._held

    def _save_soon(self) -> None:
        self._timer = None
        self._save_in_thread(self._held)

    def _save_in_thread(self, held: "HeldDraft | None", *, clears: bool = False) -> None:
        if held is not None:
            self._screen.run_worker(self._save(held, clears), exit_on_error=False)

    async def _save(self, held: "HeldDraft", clears: bool) -> None:
        from tui_chat.store.drafts import Draft

        if clears:
            await asyncio.to_thread(held.save, Draft())
            held.close()
        elif held is self._held:
            started = time.monotonic()
            await asyncio.to_thread(held.save, self._read())
            self._pause = max(SAVE_INTERVAL, _WRITE_SHARE * (time.monotonic() - started))


def _unsent(draft: "Draft", conversation: Conversation) -> "Draft":
    """The draft as one text, without a prompt that was sent just before the process ended."""
    from tui_chat.chat.attachment import split_attachments
    from tui_chat.store.drafts import Draft

    last = next((m.content for m in reversed(conversation.messages) if m.role is Role.USER), None)
    text, files = draft.text, draft.files
    if last is not None and text and text in (last, split_attachments(last)[1]):
        text, files = "", ()
    queued = tuple(part for part in draft.queued if part != last)
    return Draft(Draft(text, queued).joined, files=files)
