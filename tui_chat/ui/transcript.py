"""The scrolling messages. Only those near the view are mounted; the end is followed on request."""

import asyncio
from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from textual.containers import Container, VerticalScroll
from textual.message import Message as UIMessage
from textual.widget import Widget

from tui_chat.chat.context import left_out
from tui_chat.types import ContextPlan, Conversation, Message, Role
from tui_chat.ui.ink import InkText, Line, OneLine, Part
from tui_chat.ui.user_turn import UserTurn

if TYPE_CHECKING:
    from tui_chat.ui.message_view import AssistantTurn

PAGE = 12
"""Messages that are mounted at a time; many mounted replies make every action slow."""
MOST_MOUNTED = 40
_PATIENCE = 150
"""How often it is looked whether a message is laid out, so that a mark in it is gone to."""
_CALM = 5
"""How often in a row the mark must be in view."""


class Transcript(VerticalScroll, can_focus=False):
    """The messages of one conversation, as far as they are mounted."""

    class EndReached(UIMessage):
        """The reader came to the end, or left it."""

    def __init__(
        self, key: Callable[[str], str], version_of: Callable[[str], tuple[int, int]]
    ) -> None:
        """`key` gives the shown key of an action, `version_of` which version of how many the
        message with an id is.
        """
        super().__init__(id="transcript")
        self._key = key
        self._version_of = version_of
        self._was_at_end = True
        self._page = Container(id="page")
        self._messages: tuple[Message, ...] = ()
        self._first = 0
        self._dropped: frozenset[str] = frozenset()
        self._dropped_turns = self._dropped_tokens = 0
        self._about = ""
        self._loading_more = False
        self._words: tuple[str, ...] = ()
        """What is marked in the messages, folded."""

    def compose(self) -> Any:
        yield self._page

    def on_mount(self) -> None:
        self.anchor()

    @property
    def at_end(self) -> bool:
        """Whether the reader is at the end, so that new text is followed."""
        return self.scroll_offset.y >= self.max_scroll_y - 1

    async def show_welcome(self, *widgets: Widget) -> None:
        """Show what stands in place of messages in an empty chat."""
        self._messages, self._first = (), 0
        with self.app.batch_update():
            await self._page.remove_children()
            await self._page.mount_all(widgets)
        self.scroll_to(y=0, animate=False)

    async def show_conversation(self, conversation: Conversation) -> None:
        """Show the end of a conversation; earlier messages come when they are scrolled to."""
        self._messages = conversation.messages
        self._first = max(0, len(self._messages) - PAGE)
        with self.app.batch_update():
            await self._page.remove_children()
            await self._page.mount_all([*self._head(conversation), *self._views(self._first, None)])
        self.follow()

    def follow(self) -> None:
        """Go to the end and stay there while text arrives."""
        self.anchor()
        self.scroll_end(animate=False)

    async def add_user(self, message_id: str, text: str, *, waiting: bool = False) -> UserTurn:
        """Show a prompt at the end."""
        for reply in self.query(".assistant-turn"):
            reply.withdraw_offers()  # type: ignore[attr-defined]
        view = UserTurn(text, message_id=message_id, waiting=waiting)
        await self._page.mount(view)
        self.follow()
        return view

    async def open_reply(self, message_id: str) -> "AssistantTurn":
        """The view of a reply to be fed: of a continued one its own, else a new one at the end.

        Waiting prompts stay behind it.
        """
        from tui_chat.ui.markdown_pieces import code_blocks
        from tui_chat.ui.message_view import AssistantTurn

        for known in self.query(AssistantTurn):
            if known.message_id == message_id:
                await known.go_on()
                return known
        # A fast reply may be complete, and one of the messages, before it is opened.
        before = takewhile(lambda message: message.id != message_id, self._messages)
        blocks = sum(
            len(code_blocks(message.content))
            for message in before
            if message.role is Role.ASSISTANT
        )
        view = AssistantTurn(message_id=message_id, first_fence=blocks, key=self._key)
        waiting = self.query(".-waiting")
        await self._page.mount(view, before=waiting.first() if waiting else None)
        return view

    async def add_notice(self, line: Line, classes: str = "") -> None:
        """Show one muted paragraph of news at the end."""
        await self._page.mount(InkText(line, classes=f"notice {classes}"))

    async def add_failure(
        self, sentence: str, *ways_out: Line, log: str = "", classes: str = ""
    ) -> None:
        """Show a failure at the end: one sentence, ways out, where the details are."""
        parts: list[Part] = [("err", f"× {sentence}")]
        for way in ways_out:
            parts += ["\n", *way]
        if log:
            parts.append(("m", f"\nDetails in {log}"))
        await self._page.mount(InkText(parts, classes=f"failure {classes}"))

    def set_messages(self, messages: tuple[Message, ...]) -> None:
        """Tell what the conversation holds now; what is shown is not changed."""
        self._messages = messages

    def refresh_marks(self) -> None:
        """Say anew of each turn which version it is, and whether it is left out."""
        out = left_out(self._messages)
        for view in self.query(".user-turn, .assistant-turn"):
            if message_id := getattr(view, "message_id", ""):
                view.mark(self._version_of(message_id), message_id in out)  # type: ignore[attr-defined]

    async def show_branch(self, conversation: Conversation, *, follow: bool = False) -> None:
        """Show another branch; what it shares with the one on the page stays in its place.

        With `follow` the end of it is shown, for what comes next.
        """
        messages = conversation.messages
        pairs = zip(self._messages, messages, strict=False)
        shared = sum(1 for _ in takewhile(lambda pair: pair[0].id == pair[1].id, pairs))
        numbers = {message.id: number for number, message in enumerate(messages[:shared])}
        views = [view for view in self._page.children if not view.has_class("-waiting")]
        stay = [at for at, view in enumerate(views) if getattr(view, "message_id", "") in numbers]
        new: list[Widget] = []
        if stay:
            gone = views[stay[-1] + 1 :]
            start = numbers[getattr(views[stay[-1]], "message_id", "")] + 1
        else:
            gone, new = views, self._head(conversation)
            start = self._first = max(0, shared - PAGE // 2)
        place = self.scroll_y
        self.release_anchor()
        self._messages = messages
        waiting = self.query(".-waiting")
        with self.app.batch_update():
            await self._page.remove_children(gone)
            new += self._views(start, None)
            await self._page.mount_all(new, before=waiting.first() if waiting else None)
        if follow:
            self.follow()
        else:
            self.call_after_refresh(self.scroll_to, y=place, animate=False, force=True)

    def view_of(self, message_id: str) -> Widget | None:
        """The view of a message, where it is mounted."""
        views = self._page.children
        return next((v for v in views if getattr(v, "message_id", "") == message_id), None)

    def lowest_in_view(self) -> str | None:
        """Id of the last message of which a row is on the screen."""
        end = self.scroll_y + self.scrollable_content_region.height
        for message in reversed(self._messages):
            view = self.view_of(message.id)
            if view is not None and view.virtual_region.y < end:
                return message.id
        return None

    def unmark(self) -> None:
        """Take the bar from the message that was walked to."""
        self.query(".-selected").remove_class("-selected")

    async def walk_to(self, message_id: str, *, stay: bool = False) -> None:
        """Put the bar on one message, mounting it if need be, and bring it into view.

        With `stay` the page does not move.
        """
        self.unmark()
        at = next((n for n, m in enumerate(self._messages) if m.id == message_id), self._first)
        while at < self._first:
            await self._load_earlier()
        view = self.view_of(message_id)
        if view is not None:
            view.add_class("-selected")
        if view is not None and not stay:
            self.release_anchor()
            self.call_after_refresh(self._bring_into_view, view)

    def mark_hits(self, words: tuple[str, ...]) -> None:
        """Mark the folded `words` of a search in all messages, also in those that come later."""
        self._words = words
        for view in self._page.children:
            if getattr(view, "message_id", ""):
                view.mark_hits(words)  # type: ignore[attr-defined]

    async def go_to_mark(self, message_id: str, *, last: bool = False) -> None:
        """Put the bar on a message, and bring its first mark into view, or its last one."""
        await self.walk_to(message_id, stay=True)
        view = self.view_of(message_id)
        if view is None:
            return
        self.release_anchor()
        calm = 0
        for _ in range(_PATIENCE):  # what was mounted above and a long text are laid out in steps
            await asyncio.sleep(0.02)
            if not view.is_laid_out:  # type: ignore[attr-defined]
                continue
            rows = self._mark_rows(message_id) or [view.virtual_region.y]
            calm = 0 if self._show_row(rows[-1 if last else 0]) else calm + 1
            if calm == _CALM:
                break

    def show_next_mark(self, message_id: str, direction: int) -> bool:
        """Bring the next mark of a message above (-1) or below (1) into view; False without."""
        top, bottom = self.scroll_y, self.scroll_y + self.scrollable_content_region.height
        rows = self._mark_rows(message_id)
        out = [row for row in rows if (row < top if direction < 0 else row >= bottom)]
        if out:
            self._show_row(out[-1 if direction < 0 else 0])
        return bool(out)

    def _mark_rows(self, message_id: str) -> list[int]:
        """The rows of the page on which a message has marks."""
        view = self.view_of(message_id)
        if view is None:
            return []
        top = view.virtual_region.y
        return [top + row for row in view.hit_rows()]  # type: ignore[attr-defined]

    def _show_row(self, row: int) -> bool:
        """Bring a row of the page into view; False where it is there already."""
        height = self.scrollable_content_region.height
        if self.scroll_y <= row < self.scroll_y + height:
            return False
        self.scroll_to(y=max(0, row - height // 3), animate=False, force=True)
        return True

    def _bring_into_view(self, view: Widget) -> None:
        top, height = view.virtual_region.y, view.virtual_region.height
        room = self.scrollable_content_region.height
        if top < self.scroll_y or height >= room:
            self.scroll_to(y=top - 1, animate=False, force=True)
        elif top + height > self.scroll_y + room:
            self.scroll_to(y=top + height - room + 1, animate=False, force=True)

    def shows_plan(self, plan: ContextPlan) -> bool:
        """Whether just the turns that `plan` leaves out are dimmed."""
        return self._dropped == frozenset(message.id for message in plan.dropped)

    async def show_plan(self, plan: ContextPlan, dropped_tokens: int = 0) -> None:
        """Dim the turns that are not sent, and say how many they are, before or after sending.

        What they take up is told where it is known, now or from the time before.
        """
        if not dropped_tokens and self.shows_plan(plan):
            dropped_tokens = self._dropped_tokens
        self._dropped_tokens = dropped_tokens
        self._dropped = frozenset(message.id for message in plan.dropped)
        self._dropped_turns = sum(message.role is Role.USER for message in plan.dropped)
        self._about = "" if plan.exact else "≈"
        for view in self.query(".user-turn, .assistant-turn"):
            view.set_class(getattr(view, "message_id", "") in self._dropped, "-dropped")
        await self._place_dropped_notice()

    async def _place_dropped_notice(self) -> None:
        """Put the line between the turns that are not sent and the others, where both are here."""
        await self.query(".dropped-notice").remove()
        dropped = [v for v in self._page.children if getattr(v, "message_id", "") in self._dropped]
        if not dropped:
            return
        tokens = self._dropped_tokens
        size = f" ({self._about}{tokens:,} tok)" if tokens else ""
        many = self._dropped_turns != 1
        above = f"The {self._dropped_turns} turns above" if many else "The turn above"
        line = OneLine(
            [
                [
                    ("warn", "↑"),
                    ("m", f" {above}{size} {'do' if many else 'does'} not fit any more and "),
                    ("m", f"{'are' if many else 'is'} not sent.  "),
                    ("k", "/context"),
                    ("m", " shows what is"),
                ],
                [("warn", "↑"), ("m", f" {above}{size} {'are' if many else 'is'} not sent")],
                [("warn", "↑"), ("m", f" {above} not sent")],
            ],
            classes="notice dropped-notice",
        )
        await self._page.mount(line, after=dropped[-1])

    async def trim(self) -> None:
        """Unmount the oldest views when many are mounted and the reader is at the end."""
        views = list(self.query(".user-turn, .assistant-turn"))
        if len(views) <= MOST_MOUNTED or not self.at_end:
            return
        gone = views[:-PAGE]
        with self.app.batch_update():
            for view in gone:
                await view.remove()
        ids = {getattr(view, "message_id", "") for view in views[-PAGE:]}
        first = [index for index, message in enumerate(self._messages) if message.id in ids]
        self._first = first[0] if first else 0

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self.at_end != self._was_at_end:
            self._was_at_end = self.at_end
            self.post_message(self.EndReached())
        if new_value <= 0 < old_value and self._first > 0 and not self._loading_more:
            self._loading_more = True
            self.call_later(self._load_earlier)

    async def go_to_top(self) -> None:
        """Mount everything earlier step by step and go to the beginning."""
        while self._first > 0:
            await self._load_earlier(PAGE * 4)
        self.release_anchor()
        self.scroll_to(y=0, animate=False)

    async def _load_earlier(self, count: int = PAGE) -> None:
        """Mount the messages before the first one; the text being read does not move."""
        first = max(0, self._first - count)
        views = self._views(first, self._first)
        from_end = self.max_scroll_y - self.scroll_y
        children = self._page.children
        messages = [view for view in children if getattr(view, "message_id", "")]
        self._first = first
        if views:
            await self._page.mount_all(views, before=messages[0] if messages else None)
            await self._place_dropped_notice()
        self.call_after_refresh(self._restore, from_end)

    def _restore(self, from_end: float) -> None:
        self.scroll_to(y=self.max_scroll_y - from_end, animate=False, force=True)
        self._loading_more = False

    def _head(self, conversation: Conversation) -> list[Widget]:
        return [OneLine(*_title_lines(conversation), classes="title chat-title")]

    def show_title(self, conversation: Conversation) -> None:
        """The conversation has another title."""
        for head in self.query(".chat-title").results(OneLine):
            head.show(*_title_lines(conversation))

    def _views(self, start: int, stop: int | None) -> list[Widget]:
        from tui_chat.ui.markdown_pieces import code_blocks
        from tui_chat.ui.message_view import AssistantTurn

        blocks = sum(
            len(code_blocks(message.content))
            for message in self._messages[:start]
            if message.role is Role.ASSISTANT
        )
        views: list[Widget] = []
        out = left_out(self._messages)
        for message in self._messages[start:stop]:
            view: UserTurn | AssistantTurn
            if message.role is Role.ASSISTANT:
                view = AssistantTurn.of(message, first_fence=blocks, key=self._key)
                blocks += len(code_blocks(message.content))
                if message is not self._messages[-1]:
                    view.withdraw_offers()
            else:
                view = UserTurn(message.content, message_id=message.id)
            view.set_class(message.id in self._dropped, "-dropped")
            view.mark(self._version_of(message.id), message.id in out)
            view.mark_hits(self._words)
            views.append(view)
        return views


def _title_lines(conversation: Conversation) -> tuple[list[Line], list[Line]]:
    started = conversation.created_at.astimezone()
    title: Line = [("hi", conversation.title or "New chat")]
    return [title], [[("m", f"started {started:%d %b %H:%M}")], []]
