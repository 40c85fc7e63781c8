"""A scroll area of messages of which only those near the view are mounted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.layout import WidgetPlacement
from textual.scrollbar import ScrollBar
from textual.widget import Widget

from tui_chat.types import Conversation
from tui_chat.ui.ink import Line, OneLine
from tui_chat.ui.page import Page
from tui_chat.ui.page_bar import PageBar
from tui_chat.ui.window import MOST_MOUNTED, PAGE, Window

LoadEarlier = Callable[[bool], Awaitable[Conversation | None]]
"""Loads more of the conversation that is shown, or all of it; None where another one is by now."""


class PagedScroll(VerticalScroll, can_focus=False):
    """Mounts more messages where the reader comes to the end of what is mounted.

    What is far away is unmounted, and the text being read stays in its place.
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._page = Page()
        self._window = Window()
        self._load: LoadEarlier | None = None
        self._is_moving = False
        self._changing = asyncio.Lock()
        """Held while views are mounted and unmounted."""
        self._goes_down = False
        self._goes_to_top = False
        """The beginning was asked for, and nothing else since."""

    def compose(self) -> Any:
        yield self._page

    @property
    def vertical_scrollbar(self) -> ScrollBar:
        """See `Widget.vertical_scrollbar`."""
        if self._vertical_scrollbar is None:
            self._vertical_scrollbar = bar = PageBar(name="vertical")
            bar.display = False
            self.app._start_widget(self, bar)
        return self._vertical_scrollbar

    def views_of(self, places: range) -> list[Widget]:
        """The views of the messages at these places of the window."""
        raise NotImplementedError

    async def has_changed(self) -> None:
        """Other messages are mounted now."""

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._goes_down = new_value > old_value
        if new_value <= 0 or self._window.gap:
            self.call_after_refresh(self._look_around)

    def _size_updated(
        self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True
    ) -> bool:
        """Spare the second layout that Textual makes for a new height: the first one of a page
        that grows at its end, and whose end is followed, has scrolled it already."""
        is_followed = self._anchored and not self._anchor_released and self.show_vertical_scrollbar
        grows = virtual_size.height >= self.virtual_size.height > container_size.height
        keeps_place = (size, container_size) == (self._size, self._container_size)
        has_scrolled = is_followed and grows and keeps_place
        has_changed = super()._size_updated(
            size, virtual_size, container_size, layout and not has_scrolled
        )
        if has_scrolled and (bar := self.vertical_scrollbar)._repaint_required:
            # Part of the frame that this layout ends with; by itself it would get a second one.
            self.screen._compositor.update_widgets({bar})
            bar._repaint_required = False
        return has_changed

    def process_layout(self, placements: list[WidgetPlacement]) -> list[WidgetPlacement]:
        """What comes or goes above the held view does not move it; see `Widget.process_layout`."""
        if shift := self._page.take_shift():
            scroll_y = max(0, self.scroll_y + shift)
            self.set_reactive(Widget.scroll_y, scroll_y)
            self.set_reactive(Widget.scroll_target_y, scroll_y)
            self.vertical_scrollbar.set_reactive(ScrollBar.position, scroll_y)
        return placements

    @property
    def _rows_in_sight(self) -> range:
        return range(round(self.scroll_y), round(self.scroll_y) + self.size.height)

    def _look_around(self) -> None:
        """Mount more where the reader has come to the end of what is mounted."""
        if self._is_moving or not self._page.size:
            return
        if any(self._page.is_in_rows(line, self._rows_in_sight) for line in self.query(".gap")):
            self._move(self._grow_down if self._goes_down else self._grow_up_from_gap)
        elif self.scroll_y <= 0 and not self._window.is_at_beginning:
            self._move(self._grow_up)

    def _move(self, change: Callable[[], Awaitable[None]], *, everything: bool = False) -> None:
        """Change what is mounted, one change at a time and beside the keys.

        Before that more of the conversation is loaded where the change needs it, or `everything`.
        """
        window = self._window

        async def moving() -> None:
            try:
                is_shown = await self._load_more(everything) if everything or needs_more else True
                async with self._changing:
                    if not is_shown or self._window is not window:
                        return
                    before = len(self._page.turns())
                    await change()
            finally:
                self._is_moving = False
            if len(self._page.turns()) > before:  # and may not fill the screen yet
                self.call_after_refresh(self._look_around)

        needs_more = change == self._grow_up and window.first < PAGE
        self._is_moving = True
        self.run_worker(moving(), exit_on_error=False)

    def go_to_top(self) -> None:
        """Go to the beginning; what is between is mounted when it is scrolled to."""
        if not self._is_moving:
            self._goes_to_top = True
            self._move(self._go_to_top, everything=True)

    async def _go_to_top(self) -> None:
        if not self._goes_to_top:  # the end was asked for while the beginning was loaded
            return
        self.release_anchor()
        if not self._window.is_at_beginning:
            await self._jump_to(0)
            if not self._goes_to_top:  # or mounted
                return
        self.scroll_to(y=0, animate=False, force=True, immediate=True)
        self._goes_down = True

    async def _jump_to(self, place: int) -> None:
        """Mount what is around a place, in place of all that is before the end."""
        self._page.hold(None)
        await self._change(self._window.jump_to(place), anew=True)

    async def _mount_place(self, place: int | None) -> None:
        window = self._window
        if place is None or window.is_mounted(place):
            return
        self._hold()
        if 0 < window.first - place <= PAGE:
            await self._change(window.grow_up())
        elif window.gap and 0 <= place - window.gap.start < PAGE:
            await self._change(window.grow_down())
        else:
            await self._jump_to(place)

    async def _grow_up(self) -> None:
        grown = self._window.grow_up()
        self._window.drop_below()
        self._hold()
        await self._change(grown)

    async def _grow_up_from_gap(self) -> None:
        self._window.drop_above(self._window.gap.stop)
        await self._grow_up()

    async def _grow_down(self) -> None:
        grown = self._window.grow_down()
        if grown.stop - self._window.first > 2 * MOST_MOUNTED:
            self._window.drop_above(grown.start - MOST_MOUNTED)
        self._hold()
        await self._change(grown)

    async def load_earlier(self) -> bool:
        """Load more of the conversation; False where that is all, or another one is shown."""
        return self._window.has_earlier and await self._load_more(False)

    async def load_all(self) -> None:
        """Load all of the conversation."""
        await self._load_more(True)

    async def _load_more(self, everything: bool) -> bool:
        """Have the log load more of the conversation; False when another one is shown by now."""
        window = self._window
        if window.has_earlier and self._load is not None:
            conversation = await self._load(everything)
            if conversation is None or self._window is not window:
                return False
            window.update(conversation)
        return True

    def _hold(self) -> None:
        """Keep the message in its place that is the first in sight and stays mounted."""
        below = range(self._rows_in_sight.start, 1 << 31)
        for message_id, view in self._page.turns():
            place = self._window.place(message_id)
            stays = place is None or self._window.is_mounted(place)
            if stays and self._page.is_in_rows(view, below):
                self._page.hold(view)
                return
        self._page.hold(None)

    async def _change(self, mounted: range, *, anew: bool = False) -> None:
        """Unmount what is outside of the window, and mount what has come into it.

        With `anew` the views before the end are made anew.
        """
        with self.app.batch_update():
            await self._unmount(mounted if anew else range(0))
            after = (
                view
                for message_id, view in self._page.turns()
                if (self._window.place(message_id) or 0) >= mounted.stop
            )
            before = next(after, None)
            above = self._page.children[self._page.children.index(before) - 1] if before else None
            if above is not None and {"dropped-notice", "gap"} & above.classes:
                before = above
            await self._page.mount_all(self.views_of(mounted), before=before)
            await self.has_changed()

    async def _unmount(self, anew: range = range(0)) -> None:
        """Unmount what is outside of the window, or made anew; the gap in it gets a line."""
        window = self._window
        await self.query(".gap").remove()
        for message_id, view in self._page.turns():
            place = window.place(message_id)
            if place is not None and (place in anew or not window.is_mounted(place)):
                await view.remove()
        if window.gap:
            line: Line = [("m", f"… {len(window.gap):,} messages …")]
            last = dict(self._page.turns())[window.messages[window.gap.stop].id]
            await self._page.mount(OneLine([line], classes="notice gap"), before=last)
