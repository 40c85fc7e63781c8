"""Finding words in the conversation that is shown: the row above the box, and the way from hit to
hit.

Imported when something is searched first.
"""

import asyncio
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input

from tui_chat.chat.sanitize import sanitize
from tui_chat.store.search import fold, holds, words_of
from tui_chat.types import Message
from tui_chat.ui.ink import Line, OneLine
from tui_chat.ui.search_list import SearchField
from tui_chat.ui.status_bar import Activity

if TYPE_CHECKING:
    from tui_chat.ui.chat_screen import ChatScreen

_GOING = "find-go"
"""The group of the worker that goes to a hit."""
_TYPING_PAUSE = 0.12
"""Seconds without a key before the conversation is searched."""


class FindField(SearchField):
    """Where the words are typed; its other keys lead from hit to hit."""

    BINDINGS = [
        Binding("escape", "find('close')", show=False),
        Binding("enter,up", "find('earlier')", show=False),
        Binding("down", "find('later')", show=False),
        Binding("ctrl+f", "select_all", show=False),
    ]

    def __init__(self, find: "Find") -> None:
        super().__init__(placeholder="find in this chat", id="find-field")
        self._find = find

    async def action_find(self, what: str) -> None:
        """Close the row, or go to another hit."""
        if what == "close":
            self._find.close()
        else:
            await self._find.step(-1 if what == "earlier" else 1)


class FindRow(Horizontal):
    """The words that are searched, how many messages hold them, and the keys."""

    DEFAULT_CSS = """
    FindRow { height: 1; background: $surface; }
    FindRow > #find-field { width: 2fr; }
    FindRow > #find-count { width: 3fr; padding: 0 1; }
    """

    def __init__(self, find: "Find") -> None:
        super().__init__(id="find")
        self.field = FindField(find)
        self.count = OneLine(id="find-count")
        self._find = find
        self._typing: Timer | None = None

    def compose(self) -> ComposeResult:
        yield self.field
        yield self.count

    @on(Input.Changed)
    def _typed(self) -> None:
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(_TYPING_PAUSE, self._find.search_soon)

    def show_count(self, line: Line) -> None:
        """Show what was found, and the keys where there is room for them."""
        keys: Line = (
            *(("k", "↑"), ("m", " earlier · "), ("k", "↓"), ("m", " later · ")),
            *(("k", "Esc"), ("m", " close")),
        )
        gap: Line = (("m", "   "),) if line else ()
        self.count.show([()], [(*line, *gap, *keys), (*line, *gap, *keys[-2:]), line])


class Find:
    """What is searched in the conversation of one screen, and the hit that was gone to."""

    def __init__(self, chat: "ChatScreen") -> None:
        self._chat = chat
        self._row = FindRow(self)
        self._messages: tuple[Message, ...] = ()
        """Those that were searched."""
        self._searched = ""
        self._hits: list[str] = []
        """Ids of the messages that hold all the words."""
        self._at = 0
        self.is_open = False

    async def open(self, words: str = "", message_id: str | None = None) -> None:
        """Show the row; with `words` they are searched, and `message_id` is the hit to go to."""
        chat = self._chat
        if not chat.session.conversation.messages:
            chat.app.notify("This chat is empty.", markup=False)
            return
        if chat.walked is not None:
            chat.walk.leave()
        if not self._row.is_attached:
            await chat.query_one("#desk").mount(self._row, after=chat.query_one(Activity))
        self.is_open = True
        chat.query_one(Activity).display, self._row.display = False, True
        field = self._row.field
        chat.set_focus(field, scroll_visible=False)
        if words:
            with field.prevent(Input.Changed):
                field.value = sanitize(words)
                field.cursor_position = len(field.value)
        else:
            field.action_select_all()
        await self._search(message_id)

    def close(self) -> None:
        """Take the row and the marks away; the page stays where it is."""
        if not self.is_open:
            return
        self.is_open = False
        self._searched, self._hits = "", []
        chat = self._chat
        chat.transcript.unmark()
        chat.transcript.mark_hits(())
        chat.query_one(Activity).display, self._row.display = True, False
        chat.set_focus(chat.box, scroll_visible=False)

    def search_soon(self) -> None:
        """Search what is typed by now, beside the keys."""
        self._chat.run_worker(self._search(), exit_on_error=False, exclusive=True, group="find")

    async def step(self, direction: int) -> None:
        """Go to the hit before (-1) or behind (1) what is in sight; past the last to the first."""
        if self._row.field.value != self._searched:
            await self._search()
            return
        if self._chat.session.conversation.messages is not self._messages:
            await self._look(self._current)
        self._chat.workers.cancel_group(self._chat, _GOING)
        if self._hits and not self._chat.transcript.show_next_mark(self._current, direction):
            self._at = (self._at + direction) % len(self._hits)
            self._go(last=direction < 0)

    @property
    def _current(self) -> str:
        """Id of the hit that was gone to; empty without one."""
        return self._hits[self._at] if self._hits else ""

    async def _search(self, message_id: str | None = None) -> None:
        """Find the words that are typed, and go to a hit: the one named, else the nearest."""
        near = message_id or self._current or self._chat.transcript.lowest_in_view() or ""
        if not await self._look(near):
            return
        if self._hits:
            self._go(last=message_id is None)
        else:
            self._chat.transcript.unmark()
            self._show_count()

    async def _look(self, near: str) -> bool:
        """Find the messages that hold the words, and mark these; False where it is late for that.

        The hit is then the last one up to the message `near`.
        """
        chat, wanted = self._chat, self._row.field.value
        words = words_of(wanted)
        if words:
            await chat.transcript.load_all()
        messages = chat.session.conversation.messages
        hits = await asyncio.to_thread(_holding, messages, words)
        if not self.is_open or wanted != self._row.field.value:
            return False
        self._messages, self._searched, self._hits = messages, wanted, hits
        chat.transcript.mark_hits(tuple(words))
        places = {message.id: at for at, message in enumerate(messages)}
        end = places.get(near, len(messages))
        self._at = max(0, sum(places[hit] <= end for hit in hits) - 1)
        return True

    def _go(self, *, last: bool) -> None:
        """Go to the hit, to its first or last mark, beside the keys."""
        self._show_count()
        moving = self._chat.transcript.go_to_mark(self._hits[self._at], last=last)
        self._chat.run_worker(moving, exit_on_error=False, exclusive=True, group=_GOING)

    def _show_count(self) -> None:
        if not words_of(self._searched):
            self._row.show_count([])
        elif not self._hits:
            self._row.show_count([("warn", "not in this chat")])
        else:
            at, count = self._at + 1, len(self._hits)
            self._row.show_count([("hi", f"{at:,}"), ("m", f" of {count:,}")])


def _holding(messages: tuple[Message, ...], words: list[str]) -> list[str]:
    return [m.id for m in messages if words and holds(fold(m.content), words)]
