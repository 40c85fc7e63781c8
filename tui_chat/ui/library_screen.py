"""The stored conversations: find, open, rename, pin, archive, delete, and undo the last of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Input

from tui_chat.chat.sanitize import one_line, sanitize
from tui_chat.store.conversations import ConversationLog, ConversationStore, StoreError
from tui_chat.types import ConversationSummary, SearchHit
from tui_chat.ui.chat_list import ChatList
from tui_chat.ui.chat_preview import ChatPreview, PreviewText, read_preview
from tui_chat.ui.ink import InkText, Line, OneLine, RowPainter
from tui_chat.ui.left_once import LeftOnce
from tui_chat.ui.library_lines import (
    RENAME_KEYS,
    about,
    count_line,
    key_lines,
    title_lines,
    why_empty,
)
from tui_chat.ui.library_rows import ChatRow, head_cells
from tui_chat.ui.search_list import ColumnHead, RowList, Rows, SearchField

_TYPING_PAUSE = 0.12
"""Seconds without a key before contents are searched; titles are filtered at every key."""
_PREVIEW_PAUSE = 0.08
"""Seconds that a chat is highlighted before its preview is read."""
_PREVIEW_WIDTH = 110
"""From this width on there is room for the preview."""
_TITLE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Chosen:
    """The conversation to open, and where."""

    conversation_id: str
    query: str = ""
    """What was searched, where the conversation holds it; else empty."""
    message_id: str | None = None
    """The hit that the list shows."""


@dataclass(frozen=True, slots=True)
class _Undo:
    """The change that Ctrl+U takes back."""

    said: str
    summary: ConversationSummary
    call: Callable[[], None]


class LibraryScreen(LeftOnce[Chosen | None]):
    """All conversations; dismissed with the one to open, or None."""

    CSS = """
    LibraryScreen #library-title { padding: 0 2 0 3; margin: 1 0; }
    LibraryScreen #library-fields { height: 1; margin: 0 1 1 1; background: $surface; }
    LibraryScreen #library-count { width: auto; height: 1; padding: 0 1; }
    LibraryScreen #library-body { height: 1fr; }
    LibraryScreen #library-list { width: 56fr; }
    LibraryScreen ChatPreview { width: 44fr; display: none; }
    LibraryScreen.-preview ChatPreview { display: block; }
    LibraryScreen ColumnHead { margin: 0 0 0 1; }
    LibraryScreen RowList { margin: 0 0 0 1; }
    LibraryScreen #library-empty { height: 1fr; padding: 0 2 0 3; }
    LibraryScreen #library-keys { padding: 0 2 0 3; margin: 1 0 0 0; }
    """
    # Priority: the field would else take these for editing.
    BINDINGS = [
        Binding("escape", "back", "back", priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
        Binding("f2", "rename", "rename", priority=True),
        Binding("f4", "pin", "pin", priority=True),
        Binding("f5", "archive", "archive", priority=True),
        Binding("f6", "show_archived", "show archived", priority=True),
        Binding("ctrl+d", "delete", "delete", priority=True),
        Binding("ctrl+u", "undo", "undo", priority=True),
    ]

    def __init__(self, store: ConversationStore, query: str = "") -> None:
        """With `query` the search for it is there already."""
        super().__init__()
        self._store = store
        self._query = query
        self._chats = ChatList(store)
        self._searching = False
        self._typing: Timer | None = None
        self._previewing: Timer | None = None
        self._renaming: ConversationSummary | None = None
        self._undos: list[_Undo] = []
        """What Ctrl+U takes back, the last change first of all."""
        self._busy = False

    def compose(self) -> ComposeResult:
        yield OneLine(id="library-title")
        with Horizontal(id="library-fields"):
            yield SearchField(
                self._query, placeholder="find in titles and messages", id="library-find"
            )
            yield SearchField(placeholder="new title", id="library-rename")
            yield InkText(id="library-count")
        with Horizontal(id="library-body"):
            with Vertical(id="library-list"):
                yield ColumnHead(lambda width: head_cells(width, has_states=self._has_states))
                yield RowList(id="library-rows")
                yield InkText(id="library-empty")
            yield ChatPreview()
        yield OneLine(id="library-keys")

    async def on_mount(self) -> None:
        self._field = self.query_one("#library-find", SearchField)
        self._title_field = self.query_one("#library-rename", SearchField)
        self._rows = self.query_one(RowList)
        self._title_field.display = False
        self._field.focus()
        self._show_rows()
        self.run_worker(self._load(), exit_on_error=False)

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.width >= _PREVIEW_WIDTH, "-preview")
        self._preview_soon()

    # ---- what is listed ----

    @property
    def is_loaded(self) -> bool:
        """Whether the list was read from the disk."""
        return self._chats.is_loaded

    async def _load(self, chosen: str = "") -> None:
        """Read the list from the disk, and highlight the conversation `chosen`."""
        try:
            if not self.is_loaded:
                await self._chats.load_page()
                self._show_rows()
            await self._chats.load()
        except StoreError as error:
            self._tell(error)
            return
        highlighted = self._highlighted if self._rows.highlighted else None
        self._show_rows(chosen or (highlighted.id if highlighted else ""))
        if self._wanted:
            self._search_soon()

    def _tell(self, error: StoreError) -> None:
        self.notify(str(error), severity="error", markup=False)

    @on(Input.Changed, "#library-find")
    def _typed(self) -> None:
        self._show_rows()
        if self._typing is not None:
            self._typing.stop()
        self._typing = self.set_timer(_TYPING_PAUSE, self._search_soon)

    def _search_soon(self) -> None:
        if not self._searching:
            self._searching = True
            self.run_worker(self._search(), exit_on_error=False)

    async def _search(self) -> None:
        """Search the contents until the result is that of the text in the field."""
        try:
            while not self._chats.is_complete(self._wanted):
                await self._chats.search(self._wanted)
                highlighted = self._highlighted if self._rows.highlighted else None
                self._show_rows(highlighted.id if highlighted else "")
        except StoreError as error:
            self._tell(error)
        finally:
            self._searching = False

    @property
    def _wanted(self) -> str:
        return self._field.value.strip()

    @property
    def _has_states(self) -> bool:
        return any(summary.pinned or summary.archived for summary in self._chats.shown)

    def _show_rows(self, chosen: str = "") -> None:
        """List what fits the field, with the conversation `chosen` highlighted."""
        wanted, chats, now = self._wanted, self._chats, datetime.now(UTC)
        chats.filter(wanted)
        has_states = self._has_states

        def painter(at: int) -> RowPainter:
            summary = chats.shown[at]
            return ChatRow(summary, chats.hits_of(summary, wanted), wanted, now, has_states).paint

        at = next((n for n, s in enumerate(chats.shown) if s.id == chosen), 0) if chosen else 0
        rows = Rows(len(chats.shown), painter)
        self._rows.show(rows, row_height=2 if wanted else 1, highlighted=at)
        self._show_state()

    def _show_state(self) -> None:
        wanted, chats = self._wanted, self._chats
        head, empty = self.query_one(ColumnHead), self.query_one("#library-empty", InkText)
        self._rows.display = head.display = bool(chats.shown)
        head.refresh()
        empty.display = not chats.shown
        empty.show([("m", why_empty(chats, wanted))])
        count = count_line(chats, wanted) if self._renaming is None else []
        self.query_one("#library-count", InkText).show(count)
        title: list[Line] = [[("hi", "Conversations")]]
        self.query_one("#library-title", OneLine).show(title, title_lines(chats))
        self._show_keys()

    def _show_keys(self) -> None:
        summary, undo = self._highlighted, self._undos[-1] if self._undos else None
        said = f'"{one_line(undo.summary.title, 30)}" {undo.said}' if undo else ""
        lines = RENAME_KEYS
        if self._renaming is None:
            lines = key_lines(
                summary,
                is_hit=summary is not None and self._hit_of(summary) is not None,
                undo=said,
                with_archived=self._chats.with_archived,
            )
        self.query_one("#library-keys", OneLine).show(*lines)

    # ---- the preview ----

    @on(RowList.Highlighted)
    def _moved(self) -> None:
        self._show_keys()
        self._preview_soon()

    def _preview_soon(self) -> None:
        if self.has_class("-preview"):
            if self._previewing is not None:
                self._previewing.stop()
            self._previewing = self.set_timer(_PREVIEW_PAUSE, self._start_preview)

    def _start_preview(self) -> None:
        self.run_worker(self._preview(), exclusive=True, group="preview", exit_on_error=False)

    async def _preview(self) -> None:
        pane, summary, query = self.query_one(ChatPreview), self._highlighted, self._wanted
        if summary is None:
            await pane.clear()
            return
        is_hit = self._hit_of(summary) is not None
        under: Line = [("m", about(summary))]
        texts: list[PreviewText] = []
        try:
            texts = await asyncio.to_thread(
                partial(read_preview, self._store, summary.id, query, is_hit=is_hit)
            )
        except StoreError as error:
            under = [("warn", str(error))]
        if summary == self._highlighted:
            await pane.show(summary, under, texts, query)

    def _hit_of(self, summary: ConversationSummary) -> SearchHit | None:
        return self._chats.hit_of(summary, self._wanted)

    # ---- keys ----

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a title is edited, the keys are those of its field; only Esc is ours."""
        is_ours = self._renaming is None or action not in _LIST_ACTIONS
        return is_ours and super().check_action(action, parameters)

    @property
    def _highlighted(self) -> ConversationSummary | None:
        shown = self._chats.shown
        return shown[self._rows.highlighted] if shown else None

    def action_move(self, rows: int) -> None:
        self._rows.move(rows)

    def action_page(self, pages: int) -> None:
        self._rows.move(pages * self._rows.rows_in_sight)

    def action_back(self) -> None:
        """Leave the title as it is, or the screen."""
        if self._renaming is not None:
            self._end_rename()
        else:
            self.dismiss(None)

    @on(RowList.Picked)
    @on(Input.Submitted, "#library-find")
    def _open(self) -> None:
        summary = self._highlighted
        if summary is None or self._renaming is not None:
            return
        hit = self._hit_of(summary)
        if hit is None:
            self.dismiss(Chosen(summary.id))
        else:
            self.dismiss(Chosen(summary.id, self._wanted, hit.message_id))

    def action_show_archived(self) -> None:
        """List and search the archived ones as well, or no longer."""
        self._chats.with_archived = not self._chats.with_archived
        summary = self._highlighted
        self._show_rows(summary.id if summary else "")
        if self._wanted:
            self._search_soon()

    def action_rename(self) -> None:
        """Edit the title of the highlighted conversation in the place of the search field."""
        summary = self._highlighted
        if summary is None:
            return
        self._renaming = summary
        self._title_field.value = sanitize(one_line(summary.title, _TITLE_LENGTH))
        self._title_field.display, self._field.display = True, False
        self._title_field.focus()
        self._title_field.action_end()
        self._show_state()
        self._show_keys()

    def _end_rename(self) -> None:
        self._renaming = None
        self._title_field.display, self._field.display = False, True
        self._field.focus()
        self._show_state()
        self._show_keys()

    @on(Input.Submitted, "#library-rename")
    async def _rename(self) -> None:
        summary, title = self._renaming, self._title_field.value.strip()
        self._end_rename()
        if summary is not None and title and title != summary.title:
            await self._change(self._edit(summary.id, lambda log: log.rename(title)), summary.id)

    async def action_pin(self) -> None:
        """Put the highlighted conversation on top of the list, or back in its place."""
        summary = self._highlighted
        if summary is not None and not self._busy:
            pinned = not summary.pinned
            call = self._edit(summary.id, lambda log: log.flag(pinned=pinned))
            await self._change(call, summary.id)

    async def action_archive(self) -> None:
        """Take the highlighted conversation out of the list, or bring it back."""
        summary = self._highlighted
        if summary is None or self._busy:
            return
        archived = not summary.archived
        call = self._edit(summary.id, lambda log: log.flag(archived=archived))
        undo = self._edit(summary.id, lambda log: log.flag(archived=not archived))
        stays = self._chats.with_archived or not archived
        chosen = summary.id if stays else self._chats.neighbour(summary)
        if await self._change(call, chosen) and not stays:
            self._offer_undo(_Undo("is archived", replace(summary, archived=True), undo))

    async def action_delete(self) -> None:
        """Move the highlighted conversation to the trash."""
        summary = self._highlighted
        if summary is None or self._busy:
            return
        call = partial(self._store.delete, summary.id)
        if await self._change(call, self._chats.neighbour(summary)):
            restore = partial(self._store.restore, summary.id)
            self._offer_undo(_Undo("is in the trash", summary, restore))

    async def action_undo(self) -> None:
        """Take back the last deletion or archiving, and the one before it when pressed again.

        Where there is none, clear the field, as Ctrl+U does.
        """
        if not self._undos:
            self._field.action_delete_left_all()
        elif not self._busy:
            undo = self._undos.pop()
            await self._change(undo.call, undo.summary.id)
            self._show_keys()

    def _offer_undo(self, undo: _Undo) -> None:
        self._undos.append(undo)
        self._show_keys()

    def _edit(
        self, conversation_id: str, change: Callable[[ConversationLog], None]
    ) -> Callable[[], None]:
        """A call that opens a conversation and changes it."""

        def call() -> None:
            log = self._store.open(conversation_id)
            try:
                change(log)
            finally:
                log.close()

        return call

    async def _change(self, call: Callable[[], None], chosen: str) -> bool:
        """Change the store and list it again; False, with a message, if the store refuses."""
        self._busy = True
        try:
            await asyncio.to_thread(call)
        except StoreError as error:
            self._tell(error)
            return False
        finally:
            self._busy = False
        await self._load(chosen)
        return True


_LIST_ACTIONS = ("move", "page", "rename", "pin", "archive", "show_archived", "delete", "undo")
