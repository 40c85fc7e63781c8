"""Shows another conversation on the screen, and reads more of it as far as it is scrolled to."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tui_chat.types import Conversation
from tui_chat.ui import welcome
from tui_chat.ui.ink import InkText
from tui_chat.ui.status_bar import StatusBar

if TYPE_CHECKING:
    from tui_chat.chat.session import Session
    from tui_chat.ui.chat_screen import ChatScreen


class SessionSwitch:
    """Which conversation one screen shows."""

    def __init__(self, chat: "ChatScreen", count_chats: Callable[[], int]) -> None:
        """`count_chats` tells how many are stored, which may take a moment."""
        self._chat = chat
        self._count_chats = count_chats

    async def show_first(self, session: "Session") -> None:
        """Show the conversation of the start; a prompt that came even before it stays."""
        chat = self._chat
        chat.drafts.prune()
        if not chat.replies.waiting:
            await self.show(session)
            return
        chat.session = session
        chat.drafts.switch(session.conversation, adopt=False)
        if session.conversation.messages:
            await self._show_messages(session)
            await chat.replies.show_waiting()
        chat.drafts.changed()
        chat.settings_changed()

    async def show(self, session: "Session") -> None:
        """Show another conversation; a reply that runs is stopped, its text is kept."""
        chat = self._chat
        chat.replies.stop()
        chat.leave_walk()
        chat.close_find()
        session.engine = session.engine or chat.engine
        chat.titles.stop()
        # What is typed before the first conversation is there is not replaced by what was before.
        typed = "" if chat.has_session else chat.box.draft
        unsent = chat.drafts.switch(session.conversation, adopt=not typed)
        if not typed:
            chat.box.show_draft(unsent.text)
        chat.replies.leave()
        chat.session = session
        chat.desk.attach_again(unsent.files)
        chat.settings_changed()
        if session.conversation.messages:
            await self._show_messages(session)
        else:
            await self._show_welcome(session)
        chat.show_activity()
        chat.update_status(prompt_tokens=0, draft_tokens=0)
        chat.count_soon()
        chat.box.focus()

    async def show_anew(self) -> None:
        """The conversation is not what a first glance at its file showed."""
        if not self._chat.busy:
            await self._show_messages(self._chat.session)
        self._chat.settings_changed()

    async def _show_messages(self, session: "Session") -> None:
        load = partial(self._load_earlier, session)
        await self._chat.transcript.show_conversation(session.conversation, load)

    async def _load_earlier(self, session: "Session", everything: bool) -> Conversation | None:
        """More of a conversation, or all of it, while it is shown."""
        from tui_chat.store.log import StoreError

        log = session.log
        try:
            await asyncio.to_thread(log.load_all if everything else log.load_earlier)
        except StoreError as error:
            self._chat.app.notify(str(error), severity="error", markup=False)
        return session.conversation if session is self._chat.session else None

    async def _show_welcome(self, session: "Session") -> None:
        chat = self._chat
        await chat.transcript.show_welcome(
            *welcome.widgets(
                model=chat.query_one(StatusBar).status.model,
                server=chat.model.server,
                ready=session.engine is not None,
                key=chat.key,
            )
        )
        chat.run_worker(self._show_chat_count(), exit_on_error=False)
        if chat.model.progress is not None:
            chat.model.show_progress(chat.model.progress)

    async def _show_chat_count(self) -> None:
        count = await asyncio.to_thread(self._count_chats)
        for line in self._chat.query("#where-lines").results(InkText):
            line.show(welcome.where_lines(count, self._chat.key))
