"""A widget for text of any length: each part is laid out once, and only what is seen is drawn."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, takewhile

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.geometry import Region, Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.widget import Widget

from tui_chat.ui import code_colours
from tui_chat.ui.ground import filtered, measured_size
from tui_chat.ui.markdown_layout import EDGE, lay_out
from tui_chat.ui.markdown_pieces import MarkdownPieces, Piece, gap_between
from tui_chat.ui.row_hits import Spans, hits_in_rows
from tui_chat.ui.wrapping import Line, cells

STEP_SECONDS = 0.02
"""How long one step of laying out may take before keys get their turn."""
MOST_STRIPS = 1_000
"""Drawn rows that are kept."""

_STYLES = {
    "m": "$text-muted",
    "rule": "$rule",
    "h1": "bold $bright",
    "h2": "bold $bright",
    "h3": "bold",
    "h4": "bold italic",
    "h5": "italic",
    "h6": "italic $text-muted",
    "strong": "bold",
    "em": "italic",
    "s": "strike",
    "code": "$syntax-name on $surface",
    "link": "underline $accent",
    "math": "$syntax-name",
    "fence": "on $code",
    "edge": "",
    "keyword": "$syntax-keyword",
    "type": "$syntax-type",
    "string": "$syntax-string",
    "number": "$syntax-number",
    "name": "$syntax-name",
    "comment": "italic $syntax-comment",
    "hit": "bold underline $bright on $hit",
}
"""What the words of a run look like."""
_ANSI_STYLES = {
    "m": "dim",
    "rule": "dim",
    "code": "bold",
    "math": "bold",
    "fence": "",
    "hit": "reverse",
}
_ANSI_EDGE = "│ "
"""Marks code where its ground has no colour of its own."""


@dataclass(slots=True)
class _Laid:
    """A piece and its rows."""

    piece: Piece
    code_number: int
    """Of the first code block in it."""
    gap: int
    """Blank rows before it."""
    rows: list[Line]
    height: int
    """With the gap; a guess until it is laid out."""
    width: int = 0
    """Of the rows; 0 until it is laid out."""
    hits: dict[int, Spans] | None = None
    """What is marked in the rows; None until it was looked for."""

    @property
    def next_code_number(self) -> int:
        """Of the first code block behind it."""
        return self.code_number + len(self.piece.code_blocks())

    def take(self, rows: list[Line], width: int) -> None:
        """Have these rows."""
        self.rows, self.width = rows, width
        self.height = self.gap + len(rows)
        self.hits = None


class _Pause:
    """Lets others run in the event loop when it has been held for the time of a step."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    async def __call__(self) -> None:
        if time.monotonic() - self._started > STEP_SECONDS:
            await asyncio.sleep(0)
            self._started = time.monotonic()


class RowsView(Widget):
    """The pieces of a text, one below the other.

    A piece is laid out once for each width. When the width changes, the end comes first and the
    rest follows in steps, so that a text of any size leaves time for the keys.
    """

    DEFAULT_CSS = "RowsView { width: 1fr; height: auto; }"

    virtual_size = measured_size()

    def __init__(
        self,
        *,
        first_code_number: int = 1,
        make_pieces: Callable[[], MarkdownPieces] = MarkdownPieces,
        classes: str = "",
    ) -> None:
        """Code blocks are numbered from `first_code_number` on; the text is Markdown or not."""
        super().__init__(classes=classes)
        self._make_pieces = make_pieces
        self._pieces = make_pieces()
        self._first_code_number = first_code_number
        self._laid: list[_Laid] = []
        """The settled pieces and, behind them, the tail."""
        self._tops: list[int] = []
        """The first row of each."""
        self._settled = 0
        self._height = 0
        self._width = 0
        self._words: tuple[str, ...] = ()
        """What is marked, folded."""
        self.block = 1
        """Rows by which the view grows at once, until the text is complete."""
        self._strips: dict[int, Strip] = {}
        self._rich_styles: dict[tuple[str, str], RichStyle] = {}
        self._is_painting = False
        self._changing = asyncio.Lock()

    # ---- the text ----

    @property
    def source(self) -> str:
        """The text as the model wrote it."""
        return self._pieces.source

    @property
    def code_count(self) -> int:
        """How many code blocks there are in the text."""
        if not self._laid:
            return 0
        return self._laid[-1].next_code_number - self._first_code_number

    async def append(self, text: str) -> None:
        """Show more text at the end."""
        async with self._changing:
            await self._take(self._pieces.feed(text))

    async def finish(self) -> None:
        """No more text follows."""
        async with self._changing:
            await self._finish()

    async def show(self, text: str, *, complete: bool = True) -> None:
        """Show another text, to which more can be appended unless it is `complete`."""
        async with self._changing:
            self._pieces = self._make_pieces()
            self._settled = 0
            await self._take(self._pieces.feed(text))
            if complete:
                await self._finish()

    async def _finish(self) -> None:
        if self.block > 1:
            self.block = 1
            self.refresh(layout=True)
        settled = self._pieces.settled
        await self._take(self._pieces.finish())
        if self._pieces.settled is not settled:
            # Links were defined behind where they are used: every piece was made anew.
            self._settled = 0
            await self._take(iter(()))

    async def _take(self, steps: Iterator[None]) -> None:
        """Lay out what the steps settle, and the tail after the last one, and show all at once."""
        known = self._settled
        laid = self._laid[:known]
        pause = _Pause()
        for _ in chain(steps, (None,)):  # what the last step settles, and the tail, are two steps
            await pause()
            for piece in self._pieces.settled[len(laid) :]:
                laid.append(await self._laid_out(piece, laid, pause))
        self._settled = len(laid)
        for piece in self._pieces.tail:
            laid.append(await self._laid_out(piece, laid, pause))
        before, now = _rows_of(self._laid[known:]), _rows_of(laid[known:])
        same = takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
        top = self._bottom(known) + sum(1 for _ in same)
        self._laid = laid
        self._count_tops(known)
        self._show_from(top)
        self._go_on_laying_out()

    async def _laid_out(self, piece: Piece, before: Sequence[_Laid], pause: "_Pause") -> _Laid:
        """`piece` behind others."""
        last = before[-1] if before else None
        number = last.next_code_number if last else self._first_code_number
        gap = gap_between(last.piece if last else None, piece)
        laid = _Laid(piece, number, gap, [], gap + 1)
        for language in piece.languages():
            if not code_colours.is_loaded(language):
                await asyncio.to_thread(code_colours.load, language)
        if width := self._width:
            rows = []
            for row in lay_out(piece, width, number):
                rows.append(row)
                await pause()
            laid.take(rows, width)
        return laid

    def _lay_out(self, laid: _Laid) -> None:
        laid.take(list(lay_out(laid.piece, self._width, laid.code_number)), self._width)

    def _is_stale(self, laid: _Laid) -> bool:
        return laid.width != self._width

    def _count_tops(self, known: int = 0) -> None:
        """Say where the pieces after the first `known` begin."""
        heights = (laid.height for laid in self._laid[known:])
        self._tops[known:] = [*accumulate(heights, initial=self._bottom(known))][:-1]

    def _bottom(self, count: int) -> int:
        """The rows of the first `count` pieces."""
        return self._tops[count - 1] + self._laid[count - 1].height if count else 0

    def _lay_out_again(self) -> None:
        """Lay out what is stale, the end first, for as long as one step may take."""
        started = time.monotonic()
        for laid in reversed(self._laid):
            if self._is_stale(laid):
                self._lay_out(laid)
                if time.monotonic() - started > STEP_SECONDS:
                    self.call_later(self._go_on_laying_out)
                    break
        self._count_tops()
        self._height = self._bottom(len(self._laid))
        self._strips.clear()

    def _go_on_laying_out(self) -> None:
        if self._width and any(map(self._is_stale, self._laid)):
            self._lay_out_again()
            self.refresh(layout=True)

    def _show_from(self, top: int) -> None:
        """Rows from `top` on have changed."""
        height, blocks = self._height, self._height_in_blocks
        self._height = self._bottom(len(self._laid))
        for y in [y for y in self._strips if y >= top]:
            del self._strips[y]
        changed = Region(0, top, self._width, max(height, self._height) - top)
        if changed and self._width:
            self.refresh(changed, layout=blocks != self._height_in_blocks)
        elif height != self._height:
            self.refresh(layout=True)

    @property
    def _height_in_blocks(self) -> int:
        return -(-self._height // self.block) * self.block

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """The rows at `width`; see `Widget.get_content_height`."""
        if width != self._width and width > 0:
            self._width = width
            self._lay_out_again()
        return self._height_in_blocks

    def _size_updated(
        self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True
    ) -> bool:
        """Spare the second drawing of all rows: the layout that measured a new size draws them,
        and what Textual notes here would be drawn again with the next row that changes."""
        waiting = self._repaint_regions.copy()
        has_changed = super()._size_updated(size, virtual_size, container_size, layout)
        self._repaint_regions = waiting
        return has_changed

    # ---- marking hits ----

    def mark_hits(self, words: tuple[str, ...]) -> None:
        """Mark the folded `words` of a search wherever they stand; none takes the marks away."""
        if words != self._words:
            self._words = words
            for laid in self._laid:
                laid.hits = None
            self._strips.clear()
            self.refresh()

    @property
    def is_laid_out(self) -> bool:
        """Whether all rows are where they will be."""
        is_at_rest = self._width > 0 and not self._changing.locked()
        return is_at_rest and not any(map(self._is_stale, self._laid))

    def hit_rows(self) -> list[int]:
        """The rows with marks, from the top."""
        return [
            top + laid.gap + row
            for top, laid in zip(self._tops, self._laid, strict=True)
            for row in sorted(self._hits(laid))
        ]

    def _hits(self, laid: _Laid) -> dict[int, Spans]:
        if laid.hits is None:
            laid.hits = hits_in_rows(laid.rows, self._words)
        return laid.hits

    # ---- drawing ----

    def notify_style_update(self) -> None:
        """Colours may have changed."""
        super().notify_style_update()
        self._strips.clear()
        self._rich_styles.clear()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Draw rows; see `Widget.render_lines`."""
        if self.styles.gutter:
            self._is_painting = True
            try:
                return super().render_lines(crop)
            finally:
                self._is_painting = False
        left, right = crop.column_span
        strips = filtered(self, [self._strip(y) for y in crop.line_range])
        if left > 0 or right < self.size.width:
            strips = [strip.crop(left, right) for strip in strips]
        return strips

    def render_line(self, y: int) -> Strip:
        """Draw one row; the mouse asks for it, and gets to know where each text stands."""
        strip = self._strip(y)
        return strip if self._is_painting else strip.apply_offsets(0, y)

    def _strip(self, y: int) -> Strip:
        strip = self._strips.get(y)
        if strip is None:
            if len(self._strips) >= MOST_STRIPS:
                self._strips.clear()
            strip = self._strips[y] = self._draw(self._row(y))
            if self._words:
                strip = self._strips[y] = self._marked(strip, y)
        # What was removed is still drawn under a screen that lies over it.
        selection = self.text_selection if self.is_attached else None
        if selection is not None and (span := selection.get_span(y)) is not None:
            strip = self._selected(strip, *span)
        return strip

    def _row(self, y: int) -> Line:
        laid, offset = self._find(y)
        return laid.rows[offset] if laid is not None else Line()

    def _find(self, y: int) -> tuple[_Laid | None, int]:
        """The piece with the row `y`, and which of its rows it is; None for a blank row."""
        index = bisect_right(self._tops, y) - 1
        if index < 0 or y >= self._height:
            return None, 0
        laid = self._laid[index]
        offset = y - self._tops[index] - laid.gap
        return (laid, offset) if 0 <= offset < len(laid.rows) else (None, 0)

    def _marked(self, strip: Strip, y: int) -> Strip:
        laid, offset = self._find(y)
        if laid is None:
            return strip
        style = self._rich_style("hit", "")
        for start, end in self._hits(laid).get(offset, ()):
            strip = _restyled(strip, start, end, style)
        return strip

    def _draw(self, row: Line) -> Strip:
        segments = [Segment(run.text, self._rich_style(run.style, run.link)) for run in row.runs]
        if row.runs[:1] == (EDGE,) and self.app.native_ansi_color:
            segments[0] = Segment(_ANSI_EDGE, segments[0].style)
        strip = Strip(segments, cells(row.runs))
        return strip.adjust_cell_length(self.size.width, self._rich_style(row.ground, ""))

    def _rich_style(self, words: str, link: str) -> RichStyle:
        key = (words, link)
        style = self._rich_styles.get(key)
        if style is None:
            known = _STYLES | _ANSI_STYLES if self.app.native_ansi_color else _STYLES
            visual = self.visual_style
            for word in words.split():
                visual += Style.parse(known[word], self.app.theme_variables)
            style = visual.rich_style
            if link:
                style += RichStyle.from_meta({"@click": ("app.link", (link,))})
            self._rich_styles[key] = style
        return style

    # ---- selecting ----

    def _selected(self, strip: Strip, start: int, end: int) -> Strip:
        """`strip` with the characters from `start` up to `end` (-1 is the last) marked."""
        marked = self.screen.get_component_rich_style("screen--selection")
        length = len(strip.text)
        return _restyled(strip, start, length if end < 0 else min(end, length), marked)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text as it was before it was broken into rows."""
        start, end = selection
        first = start.y if start is not None else 0
        last = min(end.y if end is not None else self._height - 1, self._height - 1)
        parts: list[str] = []
        for y in range(first, last + 1):
            row = self._row(y)
            text = row.text
            if text and row.indent >= len(text):
                continue
            right = end.x if end is not None and y == end.y else len(text)
            left = start.x if start is not None and y == start.y else 0
            parts += [row.joint] * (y > first) + [text[max(left, row.indent) : right]]
        return "".join(parts), "\n"


def _restyled(strip: Strip, start: int, end: int, marked: RichStyle) -> Strip:
    """`strip` with the style `marked` over the characters from `start` up to `end`."""
    segments: list[Segment] = []
    position = 0
    for text, style, _ in strip:
        first, last = max(0, start - position), max(0, end - position)
        parts = (text[:first], text[first:last], text[max(first, last) :])
        for part, is_marked in zip(parts, (False, True, False), strict=True):
            if part:
                segments.append(Segment(part, style + marked if is_marked and style else style))
        position += len(text)
    return Strip(segments, strip.cell_length)


def _rows_of(pieces: list[_Laid]) -> Iterator[Line]:
    for laid in pieces:
        yield from [Line()] * laid.gap
        yield from laid.rows
