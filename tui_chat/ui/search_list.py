"""A search field over a list of many rows; the field keeps the focus while the list moves."""

from collections.abc import Callable, Sequence
from typing import ClassVar, overload

from textual import events
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message as UIMessage
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget
from textual.widgets import Input

from tui_chat.chat.sanitize import sanitize
from tui_chat.store.search import places, words_of
from tui_chat.ui.ink import Column, Line, Part, RowPainter, columns, mark_places, paint

_LEAD = 2
"""Cells before the text of a row: the bar and a space."""
_TAIL = 1
"""Cells behind it, so that it does not touch the scroll bar."""


def mark_hits(text: str, wanted: str, word: str) -> list[Part]:
    """`text` in the style `word` (or none), each word of `wanted` in it styled as a hit."""
    return mark_places(text, places(text, words_of(wanted)), word)


class SearchField(Input):
    """One line to type in, with the bar of what is yours; pasted text is made safe to show."""

    DEFAULT_CSS = """
    SearchField, SearchField:focus {
        width: 1fr; height: 1; padding: 0 1; border: none; border-left: outer $bar-off;
        background: $surface; background-tint: transparent;
    }
    SearchField:focus { border-left: outer $primary; }
    SearchField > .input--placeholder { color: $text-muted; }
    SearchField:ansi > .input--cursor {
        background: ansi_default; color: ansi_default; text-style: reverse;
    }
    """

    def __init__(self, value: str = "", *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(sanitize(value), placeholder, select_on_focus=False, id=id)
        self.cursor_blink = False

    def replace(self, text: str, start: int, end: int) -> None:
        """Put typed or pasted text in the place of what stands between `start` and `end`."""
        super().replace(sanitize(text).replace("\t", " "), start, end)


class ColumnHead(Widget):
    """The names of the columns of a `RowList`, above it."""

    DEFAULT_CSS = "ColumnHead { width: 1fr; height: 1; padding: 0 2; }"

    def __init__(self, cells: Callable[[int], Sequence[Column]]) -> None:
        """`cells` gives the columns for a width in cells, as the rows below have them."""
        super().__init__()
        self._cells = cells

    def render(self) -> Content:
        width = self.size.width
        return paint(self.app, columns(width, self._cells(width)))


class Rows(Sequence[RowPainter]):
    """Painters that are made when their row is painted."""

    def __init__(self, count: int, painter: Callable[[int], RowPainter]) -> None:
        """`painter` makes the one of a row."""
        self._count = count
        self._painter = painter

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> RowPainter: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RowPainter]: ...
    def __getitem__(self, index: int | slice) -> RowPainter | Sequence[RowPainter]:
        if isinstance(index, slice):
            return [self._painter(at) for at in range(*index.indices(self._count))]
        return self._painter(index)


class RowList(ScrollView, can_focus=False):
    """Rows of equal height, painted only while they are in sight, one of them highlighted.

    The highlighted row has the bar of what is yours, so that it shows without colour too.
    """

    DEFAULT_CSS = """
    RowList {
        height: 1fr; overflow-x: hidden; scrollbar-gutter: stable; scrollbar-size-vertical: 1;
    }
    RowList > .row-list--highlighted { background: $surface; color: $bright; }
    RowList:ansi > .row-list--highlighted { background: ansi_default; color: ansi_default; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"row-list--highlighted"}

    highlighted: reactive[int] = reactive(0)
    """Index of the highlighted row; 0 when there is none."""

    class Highlighted(UIMessage):
        """Another row is highlighted."""

    class Picked(UIMessage):
        """A row was clicked; it is highlighted."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: Sequence[RowPainter] = ()
        self._row_height = 1

    def show(
        self, rows: Sequence[RowPainter], *, row_height: int = 1, highlighted: int = 0
    ) -> None:
        """Replace the rows; a painter must give `row_height` lines at most."""
        self._rows, self._row_height = rows, row_height
        self.virtual_size = Size(0, len(rows) * row_height)
        self.set_reactive(RowList.highlighted, self.validate_highlighted(highlighted))
        self.refresh(layout=True)
        self.call_after_refresh(self._scroll_to_highlighted)
        self.post_message(self.Highlighted())

    def move(self, rows: int) -> None:
        """Highlight the row that many rows below (above, when negative), or the last there is."""
        self.highlighted += rows

    @property
    def rows_in_sight(self) -> int:
        """How many whole rows there is room for."""
        return max(1, self.scrollable_content_region.height // self._row_height)

    def validate_highlighted(self, highlighted: int) -> int:
        return max(0, min(highlighted, len(self._rows) - 1))

    def watch_highlighted(self) -> None:
        self.refresh()
        self._scroll_to_highlighted()
        self.post_message(self.Highlighted())

    def _scroll_to_highlighted(self) -> None:
        region = Region(0, self.highlighted * self._row_height, 1, self._row_height)
        self.scroll_to_region(region, animate=False, force=True, immediate=True)

    def on_click(self, event: events.Click) -> None:
        row = event.style.meta.get("row")
        if isinstance(row, int):
            self.highlighted = row
            self.post_message(self.Picked())

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        index, line = divmod(self.scroll_offset.y + y, self._row_height)
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        chosen = index == self.highlighted
        style = self.get_visual_style(*(["row-list--highlighted"] if chosen else []))
        lines = self._rows[index](max(1, width - _LEAD - _TAIL), chosen)
        bar: Part = ("you", "▌") if chosen else " "
        text: Line = [bar, " ", *(lines[line] if line < len(lines) else ())]
        content = paint(self.app, text).truncate(width, ellipsis=True)
        strips = Visual.to_strips(self, content, width, 1, style, apply_selection=False)
        return strips[0].extend_cell_length(width, style.rich_style).apply_meta({"row": index})
