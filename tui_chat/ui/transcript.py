"""The scrolling messages. Only those near the view are mounted; the end is followed on request."""

import asyncio
from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING

from textual.geometry import Region
from textual.message import Message as UIMessage
from textual.strip import Strip
from textual.widget import Widget

from tui_chat.chat.context import left_out
from tui_chat.types import ContextPlan, Conversation, Message, Role
from tui_chat.ui.code_numbers import CodeNumbers
from tui_chat.ui.ground import blank_rows
from tui_chat.ui.ink import InkText, Line, OneLine, Part
from tui_chat.ui.pace import LOCAL, Pace
from tui_chat.ui.paged_scroll import LoadEarlier, PagedScroll
from tui_chat.ui.user_turn import UserTurn
from tui_chat.ui.window import MOST_MOUNTED, PAGE, Window

if TYPE_CHECKING:
    from tui_chat.ui.message_view import AssistantTurn

_PATIENCE = 150
"""How often it is looked whether a message is laid out, so that a mark in it is gone to."""
_CALM = 5
"""How often in a row the mark must be in view."""


class Transcript(PagedScroll, can_focus=False):
    """The messages of one conversation, as far as they are mounted."""

    class EndReached(UIMessage):
        """The reader came to the end, or left it."""

    def __init__(
        self,
        key: Callable[[str], str],
        version_of: Callable[[str], tuple[int, int]],
        pace: Pace = LOCAL,
    ) -> None:
        """`key` gives the shown key of an action, `version_of` which version of how many the
        message with an id is.
        """
        super().__init__(id="transcript")
        self.numbers = CodeNumbers()
        self._key = key
        self._version_of = version_of
        self._pace = pace
        self._was_at_end = True
        self._conversation_id = ""
        self._dropped: frozenset[str] = frozenset()
        self._dropped_before = ""
        """All before this message is dropped, too."""
        self._dropped_turns = self._dropped_tokens = 0
        self._about = ""
        self._words: tuple[str, ...] = ()
        """What is marked in the messages, folded."""

    def on_mount(self) -> None:
        self.anchor()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Only the ground: what lies on it draws itself."""
        return blank_rows(self, crop)

    @property
    def at_end(self) -> bool:
        """Whether the reader is at the end, so that new text is followed."""
        return self.scroll_offset.y >= self.max_scroll_y - 1

    async def show_welcome(self, *widgets: Widget) -> None:
        """Show what stands in place of messages in an empty chat."""
        self._begin(None, None)
        async with self._changing:
            with self.app.batch_update():
                await self._page.remove_children()
                await self._page.mount_all(widgets)
        self.scroll_to(y=0, animate=False)

    async def show_conversation(self, conversation: Conversation, load: LoadEarlier) -> None:
        """Show the end of a conversation; earlier messages come when they are scrolled to.

        `load` is asked for those that are not loaded.
        """
        self._begin(conversation, load)
        if not conversation.has_earlier:
            self.numbers.add(conversation.messages)
        page = self._window.show_end(conversation)
        async with self._changing:
            with self.app.batch_update():
                await self._page.remove_children()
                await self._page.mount_all([*self._head(conversation), *self.views_of(page)])
        self.follow()
        self.call_after_refresh(self._look_around)

    def _begin(self, conversation: Conversation | None, load: LoadEarlier | None) -> None:
        """Forget what was shown; of the same conversation the numbers of code blocks remain."""
        if conversation is None or conversation.id != self._conversation_id:
            self.numbers = CodeNumbers()
        self._conversation_id = conversation.id if conversation is not None else ""
        self._window, self._load = Window(), load
        self._dropped, self._dropped_before = frozenset(), ""
        self._page.hold(None)

    @property
    def all_are_numbered(self) -> bool:
        """Whether every code block of the conversation has its number."""
        window = self._window
        return not window.has_earlier and self.numbers.has_all(window.messages)

    def follow(self) -> None:
        """Go to the end and stay there while text arrives."""
        self._page.hold(None)
        self._goes_to_top = False
        self.anchor()
        self.call_after_refresh(self.anchor)  # behind what is yet to scroll, which lets the end go

    async def add_user(self, message_id: str, text: str, *, waiting: bool = False) -> UserTurn:
        """Show a prompt at the end, but before those that wait for a reply to another."""
        self._withdraw_offers()
        view = UserTurn(text, message_id=message_id, waiting=waiting)
        await self._page.mount(view, before=None if waiting else self._first_waiting)
        self.follow()
        return view

    def send_waiting(self, view: UserTurn) -> None:
        """The prompt that waited longest is sent now: the page goes on behind it."""
        view.is_sent()
        last = self._page.children[-1]
        if self._first_waiting is None and view is not last:
            self._page.move_child(view, after=last)
        self._withdraw_offers()
        self.follow()

    def _withdraw_offers(self) -> None:
        for reply in self.query(".assistant-turn"):
            reply.withdraw_offers()  # type: ignore[attr-defined]

    async def open_reply(self, message_id: str) -> "AssistantTurn":
        """The view of a reply to be fed: of a continued one its own, else a new one at the end.

        Waiting prompts stay behind it.
        """
        from tui_chat.ui.message_view import AssistantTurn

        for known in self.query(AssistantTurn):
            if known.message_id == message_id:
                self.numbers.reopen(message_id)
                await known.go_on()
                known.grow_by(int(self._pace.block * self.size.height))
                return known
        first = self.numbers.first_of(message_id)
        view = AssistantTurn(
            message_id=message_id, first_fence=first - 1, key=self._key, pace=self._pace
        )
        view.grow_by(int(self._pace.block * self.size.height))
        await self._page.mount(view, before=self._first_waiting)
        return view

    @property
    def _first_waiting(self) -> Widget | None:
        """The prompt that is sent next."""
        waiting = self.query(".-waiting")
        return waiting.first() if waiting else None

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

    def update(self, conversation: Conversation) -> None:
        """Tell what the conversation holds now; what is shown is not changed."""
        self._window.update(conversation)

    def refresh_marks(self) -> None:
        """Say anew of each turn which version it is, and whether it is left out."""
        out = left_out(self._window.messages)
        for message_id, view in self._page.turns():
            view.mark(self._version_of(message_id), message_id in out)  # type: ignore[attr-defined]

    async def show_branch(self, conversation: Conversation, *, follow: bool = False) -> None:
        """Show another branch; what it shares with the one on the page stays in its place.

        With `follow` the end of it is shown, for what comes next.
        """
        async with self._changing:
            shared = _shared_ids(self._window.messages, conversation.messages)
            views = [view for view in self._page.children if not view.has_class("-waiting")]
            stay = [n for n, view in enumerate(views) if getattr(view, "message_id", "") in shared]
            new: list[Widget] = []
            gone = views[stay[-1] + 1 :] if stay else views
            if stay:
                start = shared[getattr(views[stay[-1]], "message_id", "")] + 1
            else:
                new = self._head(conversation)
                start = max(0, len(shared) - PAGE // 2)
            for view in reversed(gone):
                self.numbers.release(getattr(view, "message_id", ""))
            scroll_y = self.scroll_y
            self.release_anchor()
            parts = self._window.fork(conversation, start)
            if not stay:
                self._window.drop_above(start)
            self._hold()
            with self.app.batch_update():
                await self._page.remove_children(gone)
                new += [view for part in parts for view in self.views_of(part)]
                await self._page.mount_all(new, before=self._first_waiting)
                await self._unmount()
        if follow:
            self.follow()
        elif not stay:
            self.call_after_refresh(self._scroll_now, scroll_y)

    def view_of(self, message_id: str) -> Widget | None:
        """The view of a message, where it is mounted."""
        return dict(self._page.turns()).get(message_id)

    def lowest_in_view(self) -> str | None:
        """Id of the last message of which a row is on the screen."""
        rows = range(self._rows_in_sight.stop)
        for message_id, view in reversed(self._page.turns()):
            if self._page.is_in_rows(view, rows) and self._window.place(message_id) is not None:
                return message_id
        return None

    def unmark(self) -> None:
        """Take the bar from the message that was walked to."""
        self.query(".-selected").remove_class("-selected")

    async def walk_to(self, message_id: str, *, stay: bool = False) -> None:
        """Put the bar on one message, mounting it if need be, and bring it into view.

        With `stay` the page does not move.
        """
        self.unmark()
        async with self._changing:
            await self._mount_place(self._window.place(message_id))
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
        self._scroll_now(max(0, row - height // 3))
        return True

    def _bring_into_view(self, view: Widget) -> None:
        top, height = view.virtual_region.y, view.virtual_region.height
        room = self.scrollable_content_region.height
        if top < self.scroll_y or height >= room:
            self._scroll_now(top - 1)
        elif top + height > self.scroll_y + room:
            self._scroll_now(top + height - room + 1)

    def _scroll_now(self, y: float) -> None:
        """Scroll to a row with this frame: a later one could undo what is done meanwhile."""
        self.scroll_to(y=y, animate=False, force=True, immediate=True)

    def shows_plan(self, plan: ContextPlan) -> bool:
        """Whether just the turns that `plan` leaves out are dimmed."""
        dropped = frozenset(message.id for message in plan.dropped)
        return (self._dropped, self._dropped_before) == (dropped, _first_of(plan))

    async def show_plan(self, plan: ContextPlan, dropped_tokens: int = 0) -> None:
        """Dim the turns that are not sent, and say how many they are, before or after sending.

        What they take up is told where it is known, now or from the time before.
        """
        if not dropped_tokens and self.shows_plan(plan):
            dropped_tokens = self._dropped_tokens
        self._dropped_tokens = dropped_tokens
        self._dropped = frozenset(message.id for message in plan.dropped)
        self._dropped_before = _first_of(plan)
        self._dropped_turns = sum(message.role is Role.USER for message in plan.dropped)
        self._about = "" if plan.exact else "≈"
        for message_id, view in self._page.turns():
            view.set_class(self._is_dropped(message_id), "-dropped")
        await self.has_changed()

    async def has_changed(self) -> None:
        """Put the line between the turns that are not sent and the others, where both are here."""
        await self.query(".dropped-notice").remove()
        dropped = [view for message_id, view in self._page.turns() if self._is_dropped(message_id)]
        if not dropped:
            return
        tokens = self._dropped_tokens
        size = f" ({self._about}{tokens:,} tok)" if tokens else ""
        many = self._dropped_turns != 1 and not self._dropped_before
        above = f"The {self._dropped_turns} turns above" if many else "The turn above"
        if self._dropped_before:
            above, size = "Everything above", ""
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

    def _is_dropped(self, message_id: str) -> bool:
        """Whether the last prompt left a message out because it did not fit."""
        if message_id in self._dropped or not self._dropped_before:
            return message_id in self._dropped
        place = self._window.place(message_id)
        before = self._window.place(self._dropped_before)
        return place is not None and before is not None and place < before

    async def trim(self) -> None:
        """Unmount all but the end when many are mounted and the reader is there."""
        async with self._changing:
            if len(self._page.turns()) > MOST_MOUNTED and self.at_end:
                self._window.drop_above(max(0, len(self._window.messages) - PAGE))
                with self.app.batch_update():
                    await self._unmount()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self.at_end != self._was_at_end:
            self._was_at_end = self.at_end
            self.post_message(self.EndReached())

    def _head(self, conversation: Conversation) -> list[Widget]:
        return [OneLine(*_title_lines(conversation), classes="title chat-title")]

    def show_title(self, conversation: Conversation) -> None:
        """The conversation has another title."""
        for head in self.query(".chat-title").results(OneLine):
            head.show(*_title_lines(conversation))

    def reply_ended(self, message_id: str, code_count: int) -> None:
        """A reply is written and shown, and its code blocks are counted: number them all."""
        self.numbers.add_counted(message_id, code_count)

    def views_of(self, places: range) -> list[Widget]:
        from tui_chat.ui.message_view import AssistantTurn

        all_messages = self._window.messages
        messages = all_messages[places.start : places.stop]
        self.numbers.add(messages)
        out = left_out(all_messages)
        views: list[Widget] = []
        for message in messages:
            view: UserTurn | AssistantTurn
            if message.role is Role.ASSISTANT:
                first_fence = self.numbers.first_of(message.id) - 1
                view = AssistantTurn.of(message, first_fence=first_fence, key=self._key)
                if message is not all_messages[-1]:
                    view.withdraw_offers()
            else:
                view = UserTurn(message.content, message_id=message.id)
            view.set_class(self._is_dropped(message.id), "-dropped")
            view.mark(self._version_of(message.id), message.id in out)
            view.mark_hits(self._words)
            views.append(view)
        return views


def _first_of(plan: ContextPlan) -> str:
    """The message before which everything is dropped; empty where nothing else is."""
    known = (m.id for m in (*plan.dropped, *plan.kept) if m.role is not Role.SYSTEM)
    return next(known, "") if plan.drops_earlier else ""


def _shared_ids(old: tuple[Message, ...], new: tuple[Message, ...]) -> dict[str, int]:
    """The ids of the messages that two branches begin with, each with its place in the new one.

    Of the new one more may be loaded.
    """
    first = next((n for n, message in enumerate(new) if old and message.id == old[0].id), len(new))
    pairs = takewhile(lambda pair: pair[0].id == pair[1].id, zip(old, new[first:], strict=False))
    return {message.id: first + n for n, (message, _) in enumerate(pairs)}


def _title_lines(conversation: Conversation) -> tuple[list[Line], list[Line]]:
    started = conversation.created_at.astimezone()
    title: Line = [("hi", conversation.title or "New chat")]
    return [title], [[("m", f"started {started:%d %b %H:%M}")], []]
