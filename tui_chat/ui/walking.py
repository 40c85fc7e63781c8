"""Walking from message to message: the bar, the row that says what can be done, editing one.

Imported when the first walk begins.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual import events

from tui_chat.chat.context import left_out
from tui_chat.types import Message, Role
from tui_chat.ui.commands import Action, key_label
from tui_chat.ui.ink import Line, OneLine, Part
from tui_chat.ui.message_view import AssistantTurn, Reasoning
from tui_chat.ui.status_bar import Activity
from tui_chat.ui.user_turn import UserTurn

if TYPE_CHECKING:
    from tui_chat.ui.chat_screen import ChatScreen

Offer = tuple[str, str, str]
"""A key, what it does, and the same in fewer letters."""


class WalkRow(OneLine, can_focus=True):
    """The row above the box while one walks: what can be done with the message.

    It has the focus, so that the keys of the action table mean the message; any other sign that
    is typed belongs to the box.
    """

    def __init__(self, actions: Sequence[Action], leave: Callable[[], None]) -> None:
        """`leave` gives the focus to the box, at once."""
        super().__init__(id="walk")
        self._leave = leave
        self._action_of = {
            key: action.id for action in actions if action.while_walking for key in action.keys
        }

    def show_offers(self, offers: Sequence[Offer], back: str) -> None:
        """Show as many of the offers as fit, and the key that leads `back`."""
        whole = _offer_line([(key, long) for key, long, _ in offers])
        short = [(key, brief) for key, _, brief in offers]
        fewer = [_offer_line(short[:count]) for count in range(len(short), 0, -1)]
        leave: Line = (("k", back), ("m", " back"))
        self.show([whole, *fewer], [leave])

    def show_edit(self, message: Message, cancel: str, send: str) -> None:
        """Say what becomes of the text in the box."""
        if message.role is Role.USER:
            what, long = "editing your message", " starts a new branch, the old one stays"
            short = " starts a branch"
        else:
            what, long = "editing the reply", " stores it as a new version"
            short = " stores a version"
        head: Line = (("ref", f"{what}  "), ("k", send))
        escape: Line = (("k", cancel), ("m", " cancel"))
        self.show([(*head, ("m", long)), (*head, ("m", short)), (("ref", what),)], [escape])

    async def _on_key(self, event: events.Key) -> None:
        action = self._action_of.get(event.key)
        focused = self.screen.focused
        if focused is not self and focused is not None:  # a key before it has left
            event.stop()
            focused._forward_event(events.Key(event.key, event.character))
        elif action is not None:
            event.stop()
            await self.app.run_action(f"app.do('{action}')")
        elif event.is_printable:
            event.stop()
            self._pass_on(events.Key(event.key, event.character))

    def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        self._pass_on(events.Paste(event.text))

    def _pass_on(self, event: events.Event) -> None:
        """Leave, and let the box have the event."""
        self._leave()
        if self.screen.focused is not None:
            self.screen.focused._forward_event(event)  # else the app would send it once more


def _offer_line(offers: Sequence[tuple[str, str]]) -> Line:
    parts: list[Part] = []
    for key, verb in offers:
        parts += ["  "] * bool(parts) + [("k", key), ("m", f" {verb}")]
    return parts


class Walk:
    """The message that was walked to, and the edit that came of it."""

    def __init__(self, chat: "ChatScreen", actions: Sequence[Action]) -> None:
        self._chat = chat
        self._keys = {action.id: action.keys for action in actions}
        self._row = WalkRow(actions, self.leave)
        self.message_id: str | None = None
        self.editing: Message | None = None
        """The message whose text is in the box."""
        self._draft = ""

    @property
    def message(self) -> Message | None:
        """The message with the bar, where one walks."""
        messages = self._chat.session.conversation.messages
        return next((m for m in messages if m.id == self.message_id), None)

    async def move(self, step: int) -> None:
        """Go some messages down, or up; behind the last one is the box."""
        messages = self._chat.session.conversation.messages
        ids = [message.id for message in messages]
        if not ids:
            self._chat.app.notify("There is no message to walk to yet.", markup=False)
        elif self.message_id not in ids:
            if step < 0:
                await self.go_to(self._chat.transcript.lowest_in_view() or ids[-1])
        else:
            at = ids.index(self.message_id) + step
            if at < 0 and await self._chat.transcript.load_earlier():
                await self.move(step)
            elif at < len(ids):
                await self.go_to(ids[max(0, at)])
            else:
                self.leave()

    async def go_to(self, message_id: str) -> None:
        """Put the bar on a message."""
        self.cancel_edit()
        self._chat.close_find()
        self.message_id = message_id
        await self._show_row()
        self._chat.set_focus(self._row, scroll_visible=False)
        await self._chat.transcript.walk_to(message_id)
        self.show_offers()

    def leave(self) -> None:
        """Go back to the box; the page stays where it is."""
        self.message_id = None
        self._chat.transcript.unmark()
        self._hide_row()

    def show_offers(self) -> None:
        """Show what can be done with the message that has the bar."""
        message = self.message
        if message is not None:
            self._row.show_offers(self._offers(message), self._key("message-leave"))

    # ---- editing ----

    async def edit(self, message: Message) -> None:
        """Put the text of a message into the box; what was there comes back in the end."""
        self.cancel_edit()
        self._chat.close_find()
        self.message_id = None
        box = self._chat.box
        self._draft = box.draft
        self.editing = message
        await self._chat.transcript.walk_to(message.id)
        await self._show_row()
        self._row.show_edit(message, self._key("stop"), self._key("send"))
        box.show_draft(message.content)
        self._chat.set_focus(box, scroll_visible=False)

    @property
    def unsent(self) -> str:
        """The draft that comes back, and the text of the edit if it was changed."""
        text = self._chat.box.draft
        if self.editing is not None and text == self.editing.content:
            return self._draft
        return "\n".join(part for part in (self._draft, text) if part.strip())

    def cancel_edit(self) -> bool:
        """Give up the edit; False when there is none. A changed text can be recalled."""
        if self.editing is None:
            return False
        text = self._chat.box.draft
        if text.strip() and text != self.editing.content:
            self._chat.remember(text)
        self.end_edit()
        return True

    def end_edit(self) -> None:
        """Bring the draft back."""
        self.editing = None
        self._chat.transcript.unmark()
        self._chat.box.show_draft(self._draft)
        self._draft = ""
        self._hide_row()

    # ---- the row ----

    def _offers(self, message: Message) -> list[Offer]:
        chat = self._chat
        messages = chat.session.conversation.messages
        may_change = not chat.busy
        verbs = {"message-copy": "copy"}
        if may_change:
            verbs |= {"message-edit": "edit", "message-again": "again"}
            if message.id == messages[-1].id and message.can_continue:
                verbs["message-continue"] = "continue"
            is_out = message.id in left_out(messages)
            verbs["message-exclude"] = "take in" if is_out else "leave out"
        offers = [(self._key(action), verb, verb) for action, verb in verbs.items()]
        if may_change and chat.version_of(message.id)[1] > 1:
            both = self._key("message-previous") + self._key("message-next")
            offers.append((both, "other versions", "versions"))
        view = chat.transcript.view_of(message.id)
        folded: Reasoning | UserTurn | None = None
        if isinstance(view, AssistantTurn):
            folded = view.reasoning
        elif isinstance(view, UserTurn) and view.folds:
            folded = view
        if folded is not None:
            verb = "fold" if folded.is_open else "unfold"
            offers.append((self._key("message-open"), verb, verb))
        return [offer for offer in offers if offer[0]]

    def _key(self, action_id: str) -> str:
        keys = self._keys.get(action_id)
        return key_label(keys[0]) if keys else ""

    async def _show_row(self) -> None:
        activity = self._chat.query_one(Activity)
        if not self._row.is_attached and activity.parent is not None:
            await self._chat.query_one("#desk").mount(self._row, after=activity)
        activity.display, self._row.display = False, True

    def _hide_row(self) -> None:
        # At once, so that the next key is the box's; a hidden row loses the focus to anybody.
        self._chat.set_focus(self._chat.box, scroll_visible=False)
        self._chat.query_one(Activity).display = True
        self._row.display = False
