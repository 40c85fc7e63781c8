"""What the actions on one message do: copy, edit, write again, leave out, switch versions.

They mean the message that was walked to, else the last one that they fit.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tui_chat.chat.context import left_out
from tui_chat.types import Message, Role
from tui_chat.ui.text_actions import TextActions
from tui_chat.ui.user_turn import UserTurn

if TYPE_CHECKING:
    from tui_chat.ui.chat_screen import ChatScreen


class MessageActions(TextActions):
    """Does the actions on one message, for one app."""

    @property
    def _chat(self) -> "ChatScreen":
        return self.app.chat

    @property
    def _messages(self) -> tuple[Message, ...]:
        return self._chat.session.conversation.messages

    # ---- walking ----

    async def do_walk_up(self, _: str | None) -> None:
        await self._chat.walk.move(-1)

    async def do_walk_down(self, _: str | None) -> None:
        await self._chat.walk.move(1)

    do_message_up = do_walk_up
    do_message_down = do_walk_down

    def do_message_leave(self, _: str | None) -> None:
        self._chat.walk.leave()

    async def do_message_open(self, _: str | None) -> None:
        """Open or fold what is folded of a message; a prompt without that opens in the box."""
        message = self._chat.walked or self._last(Role.ASSISTANT)
        view = self._chat.transcript.view_of(message.id) if message else None
        thoughts = getattr(view, "reasoning", None)
        if isinstance(view, UserTurn) and view.folds:
            view.toggle()
        elif message is not None and message.role is Role.USER:
            await self._edit(message)
            return
        elif thoughts is not None:
            thoughts.toggle()
        else:
            self.tell("There is no reasoning to open here.", seconds=3)
            return
        if self._chat.walked:
            self._chat.walk.show_offers()

    def do_message_copy(self, _: str | None) -> None:
        message = self._chat.walked or self._last(Role.ASSISTANT)
        if message is None or not message.content:
            self.tell("There is no text to copy.", seconds=3)
        else:
            self.copy(message.content, "the message")

    # ---- branches ----

    async def do_message_edit(self, argument: str | None) -> None:
        """Edit the message that was walked to, or the N-th last prompt."""
        await self._edit(await self._target(argument, Role.USER))

    async def do_amend(self, argument: str | None) -> None:
        """Edit the N-th last reply."""
        walked = self._chat.walked
        if walked is not None and walked.role is not Role.ASSISTANT:
            walked = None
        await self._edit(walked or await self._target(argument, Role.ASSISTANT, walked=False))

    async def _edit(self, message: Message | None) -> None:
        if message is not None and not self._chat.replies.is_writing():
            await self._chat.walk.edit(message)

    async def do_message_again(self, argument: str | None) -> None:
        """Write the reply of the message again, or that to the N-th last prompt."""
        message = await self._target(argument, Role.USER)
        if message is not None:
            await self._chat.branches.regenerate(message.id)

    async def do_message_continue(self, _: str | None) -> None:
        walked = self._chat.walked
        if walked is not None and walked.id != self._messages[-1].id:
            self.tell("Only the last reply of a branch can be continued.")
        else:
            await self._chat.replies.go_on()

    async def do_message_exclude(self, argument: str | None) -> None:
        """Leave the turn of the message out of the context, or the N-th last turn."""
        message = await self._target(argument, Role.USER)
        if message is None or self._chat.replies.is_writing():
            return
        out = message.id in left_out(self._messages)
        self._chat.branches.exclude(message.id, not out)
        if argument is not None and (message.id in left_out(self._messages)) is not out:
            said = "is sent again" if out else "is left out of the context"
            self.tell(f"The turn {said}.", seconds=3)

    async def do_version_previous(self, _: str | None) -> None:
        await self._go_to_version(lambda at: at - 1)

    async def do_version_next(self, argument: str | None) -> None:
        number = int(argument) if argument and argument.isdecimal() else 0
        if argument and not number:
            self.tell("Give the number of a version, for example: /version 2")
        else:
            await self._go_to_version(lambda at: number - 1 if number else at + 1)

    async def do_message_previous(self, _: str | None) -> None:
        await self.do_version_previous(None)

    async def do_message_next(self, _: str | None) -> None:
        await self.do_version_next(None)

    async def _go_to_version(self, place: Callable[[int], int]) -> None:
        """Open another version of the message walked to, or of the last one that has some."""
        if self._chat.replies.is_writing():
            return
        log = self._chat.session.log
        last = self._messages[-1:-3:-1]
        forks = [message for message in last if len(log.siblings(message.id)) > 1]
        message = self._chat.walked or next(iter((*forks, *last)), None)
        if message is None:
            self.tell("There is no message yet.", seconds=3)
            return
        versions = log.siblings(message.id)
        at = place(next(n for n, version in enumerate(versions) if version.id == message.id))
        if len(versions) == 1:
            again = self._chat.key("regenerate")
            self.tell(f"There is one version only; {again} writes the reply again.", seconds=3)
        elif not 0 <= at < len(versions):
            self.tell(f"There are {len(versions)} versions.", seconds=3)
        else:
            await self._chat.branches.open_version(versions[at].id)

    # ---- which message ----

    def _last(self, role: Role, number: int = 1) -> Message | None:
        found = [message for message in self._messages if message.role is role]
        return found[-number] if 0 < number <= len(found) else None

    async def _target(
        self, argument: str | None, role: Role, *, walked: bool = True
    ) -> Message | None:
        """The message walked to, else the N-th last of a role; None, with a sentence, if none."""
        if not argument and walked and self._chat.walked is not None:
            return self._chat.walked
        number = 1
        if argument:
            number = int(argument) if argument.isdecimal() else 0
        message = self._last(role, number)
        while message is None and number and await self._chat.transcript.load_earlier():
            message = self._last(role, number)
        if message is None:
            what = "prompt" if role is Role.USER else "reply"
            self.tell(f"There is no such {what}; 1 is the last one, 2 the one before it.")
        return message
