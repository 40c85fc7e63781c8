"""The stored conversations: find, open, rename, delete, and undo the last deletion."""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Input

from tui_chat.chat.sanitize import one_line, sanitize
from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.types import ConversationSummary
from tui_chat.ui.ink import Column, InkText, Line, OneLine, Part, columns, seconds, when
from tui_chat.ui.search_list import ColumnHead, RowList, SearchField, mark_hits, matches

_TYPING_PAUSE = 0.12
"""Seconds without a key before contents are searched; titles are filtered at every key."""
_SEARCH_LIMIT = 200
_TITLE_LENGTH = 200


class LibraryScreen(Screen[str | None]):
    """All conversations, last used first; dismissed with the id of the one to open, or None."""

    CSS = """
    LibraryScreen #library-title { padding: 0 2 0 3; margin: 1 0; }
    LibraryScreen #library-fields { height: 1; margin: 0 1 1 1; background: $surface; }
    LibraryScreen #library-count { width: auto; height: 1; padding: 0 1; }
    LibraryScreen ColumnHead { margin: 0 1; }
    LibraryScreen RowList { margin: 0 1; }
    LibraryScreen #library-empty { height: 1fr; padding: 0 2 0 3; }
    LibraryScreen #library-keys { padding: 0 2 0 3; }
    """
    # Priority: the field would else take these for editing.
    BINDINGS = [
        Binding("escape", "back", "back", priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
        Binding("f2", "rename", "rename", priority=True),
        Binding("ctrl+d", "delete", "delete", priority=True),
        Binding("ctrl+u", "undo", "undo", priority=True),
    ]

    def __init__(self, store: ConversationStore) -> None:
        super().__init__()
        self._store = store
        self._summaries: list[ConversationSummary] = []
        self._shown: list[ConversationSummary] = []
        self._snippets: dict[str, str] = {}
        """Text around the hit by conversation id, of `_searched`."""
        self._searched = ""
        self._search_seconds = 0.0
        self._searching = False
        self._typing: Timer | None = None
        self._loaded = False
        self._renaming: ConversationSummary | None = None
        self._deleted: ConversationSummary | None = None
        self._busy = False

    def compose(self) -> ComposeResult:
        yield OneLine(id="library-title")
        with Horizontal(id="library-fields"):
            yield SearchField(placeholder="find in titles and messages", id="library-find")
            yield SearchField(placeholder="new title", id="library-rename")
            yield InkText(id="library-count")
        yield ColumnHead(_head)
        yield RowList(id="library-rows")
        yield InkText(id="library-empty")
        yield OneLine(id="library-keys")

    async def on_mount(self) -> None:
        self._field = self.query_one("#library-find", SearchField)
        self._title_field = self.query_one("#library-rename", SearchField)
        self._rows = self.query_one(RowList)
        self._title_field.display = False
        self._field.focus()
        self._show_keys()
        self._show_rows()
        self.run_worker(self._load(), exit_on_error=False)

    # ---- what is listed ----

    async def _load(self, chosen: str = "") -> None:
        """Read the list from the disk, and highlight the conversation `chosen`."""
        try:
            self._summaries = await asyncio.to_thread(self._store.summaries)
        except StoreError as error:
            self._tell(error)
            return
        self._loaded = True
        self._show_rows(chosen)

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
            while (wanted := self._wanted) != self._searched:
                start = time.perf_counter()
                hits = await asyncio.to_thread(self._store.search, wanted, _SEARCH_LIMIT)
                self._search_seconds = time.perf_counter() - start
                self._snippets = {
                    hit.conversation_id: hit.snippet if hit.message_id else "" for hit in hits
                }
                self._searched = wanted
        except StoreError as error:
            self._tell(error)
        finally:
            self._searching = False
        self._show_rows()

    @property
    def _wanted(self) -> str:
        return self._field.value.strip()

    def _show_rows(self, chosen: str = "") -> None:
        """List what fits the field: by the title at once, by the content once it is searched."""
        wanted = self._wanted
        snippets = self._snippets if wanted == self._searched else {}
        self._shown = [
            summary
            for summary in self._summaries
            if not wanted or summary.id in snippets or matches(summary.title, wanted)
        ]
        now = datetime.now(UTC)
        painters = [
            partial(_paint_row, summary, snippets.get(summary.id, ""), wanted, now)
            for summary in self._shown
        ]
        ids = [summary.id for summary in self._shown]
        at = ids.index(chosen) if chosen in ids else 0
        self._rows.show(painters, row_height=2 if wanted else 1, highlighted=at)
        self._show_state()

    def _show_state(self) -> None:
        wanted, count = self._wanted, len(self._shown)
        for widget in (self._rows, self.query_one(ColumnHead)):
            widget.display = count > 0
        empty = self.query_one("#library-empty", InkText)
        empty.display = count == 0
        complete = wanted == self._searched
        if self._summaries and wanted:
            sentence = f'No hit for "{one_line(wanted, 60)}".' if complete else "Searching…"
        else:
            sentence = "No chats yet; what you write is kept here." if self._loaded else ""
        empty.show([("m", sentence)])
        self.query_one("#library-count", InkText).show(self._count_line(wanted, count, complete))
        total = len(self._summaries)
        many = "1 chat" if total == 1 else f"{total:,} chats"
        right: list[Line] = [[("m", many)]] if self._loaded else []
        self.query_one("#library-title", OneLine).show([[("hi", "Conversations")]], right)

    def _count_line(self, wanted: str, count: int, complete: bool) -> Line:
        if not wanted or self._renaming is not None:
            return []
        many = f"{count:,}+" if len(self._snippets) >= _SEARCH_LIMIT else f"{count:,}"
        noun = "chat" if count == 1 else "chats"
        if not complete:
            return [("m", f"{count:,} {noun} · searching")]
        return [("m", f"{many} {noun} · {seconds(self._search_seconds)}")]

    def _show_keys(self) -> None:
        back: Line = [("k", "Esc"), ("m", " back")]
        left: list[Line] = [_OPEN_KEYS, _OPEN_KEYS[:5], _OPEN_KEYS[:2]]
        if self._deleted is not None:
            undo: Line = [("k", "Ctrl+U"), ("m", " brings it back")]
            title = one_line(self._deleted.title, 40)
            said = [("m", f'"{title}" is in the trash · '), *undo]
            left = [said, [("m", "in the trash · "), *undo], undo]
        if self._renaming is not None:
            left = [[("k", "Enter"), ("m", " rename")]]
            back = [("k", "Esc"), ("m", " keep the title")]
        self.query_one("#library-keys", OneLine).show(left, [back, back, back])

    # ---- keys ----

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a title is edited, the keys are those of its field; only Esc is ours."""
        return self._renaming is None or action not in _LIST_ACTIONS

    @property
    def _highlighted(self) -> ConversationSummary | None:
        return self._shown[self._rows.highlighted] if self._shown else None

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
        if summary is not None and self._renaming is None:
            self.dismiss(summary.id)

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
            await self._change(partial(_rename, self._store, summary.id, title), summary.id)

    async def action_delete(self) -> None:
        """Move the highlighted conversation to the trash."""
        summary = self._highlighted
        if summary is None or self._busy:
            return
        at = self._rows.highlighted
        after = self._shown[at + 1 : at + 2] or self._shown[at - 1 : at] or [summary]
        call = partial(self._store.delete, summary.id)
        if await self._change(call, after[0].id):
            self._deleted = summary
            self._show_keys()

    async def action_undo(self) -> None:
        """Bring the last deleted conversation back; else clear the field, as Ctrl+U does."""
        summary = self._deleted
        if summary is None:
            self._field.action_delete_left_all()
        elif not self._busy:
            call = partial(self._store.restore, summary.id)
            if await self._change(call, summary.id):
                self._deleted = None
                self._show_keys()

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


_LIST_ACTIONS = ("move", "page", "rename", "delete", "undo")
_OPEN_KEYS: tuple[Part, ...] = (
    ("k", "Enter"),
    ("m", " open · "),
    ("k", "F2"),
    ("m", " rename · "),
    ("k", "Ctrl+D"),
    ("m", " delete"),
)


def _rename(store: ConversationStore, conversation_id: str, title: str) -> None:
    log = store.open(conversation_id)
    try:
        log.rename(title)
    finally:
        log.close()


def _cells(width: int, texts: Sequence[str], word: str, title_word: str) -> list[Column]:
    """The columns title, model, messages and when; the middle ones go where room is short."""
    title, model, messages, moment = texts
    cells: list[Column] = [(title, 0, title_word)]
    if width > 56:
        cells.append((model, 14 if width < 100 else 24, word))
    if width > 66:
        cells.append((messages, -8, word))
    return [*cells, (moment, -6, word)]


def _head(width: int) -> Sequence[Column]:
    return _cells(width, ("title", "model", "messages", "when"), "m", "m")


def _paint_row(
    summary: ConversationSummary,
    snippet: str,
    wanted: str,
    now: datetime,
    width: int,
    highlighted: bool,
) -> Sequence[Line]:
    model = one_line(summary.model.rstrip("/").rpartition("/")[2], 80)
    texts = (
        one_line(summary.title, _TITLE_LENGTH),
        model,
        f"{summary.message_count:,}",
        when(summary.updated_at, now),
    )
    word = "hi" if highlighted else ""
    first, *rest = columns(width, _cells(width, texts, "m", word))
    head = mark_hits(first if isinstance(first, str) else first[1], wanted, word)
    return [[*head, *rest], _around_hit(one_line(snippet, 400), wanted, width)]


def _around_hit(snippet: str, wanted: str, width: int) -> list[Part]:
    """The snippet with its hits marked, cut on the left so far that the first hit shows."""
    found = matches(snippet, wanted)
    if found and found[0].stop > width - 8:
        start = min(found[0].start, found[0].stop - width // 2)
        snippet = "…" + snippet[max(0, start) :].lstrip()
    return mark_hits(snippet, wanted, "m")
