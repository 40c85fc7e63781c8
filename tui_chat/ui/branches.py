"""Other branches of the conversation on the page: write again, ask anew, edit, switch, leave out.

Imported when it is needed first. A reply that runs writes the conversation, so that none of this
is done meanwhile.
"""

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tui_chat.chat.context import PromptTooLong
from tui_chat.chat.session import SessionError
from tui_chat.engine.base import EngineError
from tui_chat.store.log import StoreError
from tui_chat.types import Message, Role

if TYPE_CHECKING:
    from tui_chat.ui.chat_screen import ChatScreen


class Branches:
    """What one screen shows of the branches of its conversation."""

    def __init__(self, chat: "ChatScreen") -> None:
        self._chat = chat

    async def regenerate(self, message_id: str) -> None:
        """Write the reply to a prompt, or a reply, again; the old one stays in the file."""
        chat, session = self._chat, self._chat.session
        if chat.replies.is_writing() or chat.model.is_missing():
            return
        chat.cancel_edit()
        if chat.walked is not None:
            chat.walk.leave()
        with chat.replies.claimed():
            await self._cut_page(message_id, keep=Role.USER)
        if session is chat.session:
            chat.replies.start(None, partial(session.regenerate, message_id))

    async def submit_edit(self, text: str) -> None:
        """Ask an edited prompt on a branch of its own, or store an edited reply."""
        chat, session, edited = self._chat, self._chat.session, self._chat.walk.editing
        asks = edited is not None and edited.role is Role.USER
        if edited is None or chat.replies.is_writing() or (asks and chat.model.is_missing()):
            chat.box.set_text(text)
        elif asks and (sentence := await asyncio.to_thread(self._too_long, edited, text)):
            chat.app.notify(sentence, markup=False)
            chat.box.set_text(text)
        elif asks and chat.replies.is_writing():  # since it was counted
            chat.box.set_text(text)
        elif asks:
            chat.remember(text)
            chat.walk.end_edit()
            with chat.replies.claimed():
                await self._cut_page(edited.id)
                view = await chat.transcript.add_user("", text)
            if session is chat.session:
                chat.replies.start(view, partial(session.edit, edited.id, text))
        elif text == edited.content or self._store(edited, text):
            chat.walk.end_edit()
            await chat.transcript.show_branch(chat.session.conversation, follow=True)
            self.changed()
        else:
            chat.box.set_text(text)

    def _too_long(self, edited: Message, text: str) -> str:
        """Why a prompt cannot be asked in the place of another; empty when it can."""
        try:
            plan = self._chat.session.plan(text, instead_of=edited.id)
        except (EngineError, StoreError):
            return ""  # the reply will say it
        return str(PromptTooLong(plan)) if plan and plan.prompt_tokens > plan.budget else ""

    def _store(self, edited: Message, text: str) -> bool:
        """Store the edited reply; False where the chat may only be read."""
        try:
            self._chat.session.edit_reply(edited.id, text)
        except StoreError as error:
            self._chat.app.notify(str(error), severity="error", markup=False)
            return not self._chat.session.log.read_only
        return True

    async def open_version(self, message_id: str) -> None:
        """Open the branch through a sibling of a message; the page stays where it is."""
        chat = self._chat
        chat.cancel_edit()  # its message may not be on the other branch
        walks = chat.walked is not None
        try:
            chat.session.open_version(message_id)
        except StoreError as error:
            chat.app.notify(str(error), severity="error", markup=False)
        await chat.transcript.show_branch(chat.session.conversation)
        if walks:
            chat.walk.message_id = message_id
            await chat.transcript.walk_to(message_id, stay=True)
        self.changed()

    def exclude(self, message_id: str, excluded: bool) -> None:
        """Leave the turn of a message out of the context, or take it in again."""
        try:
            self._chat.session.exclude(message_id, excluded)
        except SessionError as error:
            self._chat.app.notify(str(error), markup=False)
        except StoreError as error:
            self._chat.app.notify(str(error), severity="error", markup=False)
        self.changed()

    def changed(self) -> None:
        """Show what is left out and which versions there are, and count the prompt at once."""
        chat = self._chat
        chat.transcript.update(chat.session.conversation)
        chat.transcript.refresh_marks()
        chat.show_offers()
        chat.count()

    async def _cut_page(self, message_id: str, *, keep: Role | None = None) -> None:
        """Show the branch up to before a message: it goes on otherwise there.

        A message of the role to `keep` stays itself.
        """
        chat = self._chat
        while True:
            conversation = chat.session.conversation
            messages = conversation.messages
            at = next(n for n, message in enumerate(messages) if message.id == message_id)
            if messages[at].role is keep:
                at += 1
            # Some of what stays has to be there, for the page to go on behind it.
            if at > 0 or not await chat.transcript.load_earlier():
                break
        earlier = replace(conversation, messages=messages[:at])
        await chat.transcript.show_branch(earlier, follow=True)
