"""The blocks of a reply as we draw them: code with a head row, tables without a frame, quiet
bullets, and text whose formulas and links stay readable. `markdown_parser` finds them.
"""

import re
from collections.abc import Sequence

from markdown_it.token import Token
from pygments.token import Token as Syntax
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content, Span
from textual.highlight import HighlightTheme, highlight
from textual.style import Style
from textual.widget import Widget
from textual.widgets import Label, Markdown
from textual.widgets import _markdown as stock
from textual.widgets._markdown import MarkdownBlock

from tui_chat.ui.ink import Line, OneLine
from tui_chat.ui.markdown_parser import reply_parser

TASK_OPEN, TASK_DONE = "☐ ", "☑ "
_SPACE = re.compile(r"[ \t\n]+")


class CodePalette(HighlightTheme):
    """Code in the theme's own syntax colours, also in sixteen colours."""

    STYLES = {
        Syntax.Comment: "italic $syntax-comment",
        Syntax.Keyword: "$syntax-keyword",
        Syntax.Keyword.Type: "$syntax-type",
        Syntax.Operator.Word: "$syntax-keyword",
        Syntax.Literal.String: "$syntax-string",
        Syntax.String: "$syntax-string",
        Syntax.Literal.String.Doc: "$syntax-comment",
        Syntax.Literal.Number: "$syntax-number",
        Syntax.Name.Function: "bold",
        Syntax.Name.Class: "bold $syntax-type",
        Syntax.Name.Builtin: "$syntax-type",
        Syntax.Name.Decorator: "$syntax-type",
        Syntax.Name.Attribute: "$syntax-name",
        Syntax.Name.Variable: "$syntax-name",
        Syntax.Name.Tag: "$syntax-keyword",
        Syntax.Generic.Heading: "bold",
    }


class Fence(stock.MarkdownFence):
    """A code block: one head row (language, copy number), then the code on a recessed ground."""

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        return highlight(code.rstrip("\n"), language=language or None, theme=CodePalette)

    def compose(self) -> ComposeResult:
        yield OneLine(*self._head(), classes="fence-head")
        yield Label(self._highlighted_code, id="code-content", expand=True)

    def _head(self) -> tuple[list[Line], list[Line]]:
        reply = self._markdown
        number = reply.number_of(self) if isinstance(reply, Reply) else 0
        return [[("m", self.lexer or "text")]], [[("m", f"/copy {number}")]]

    def _copy_context(self, block: MarkdownBlock) -> None:
        super()._copy_context(block)
        # While a reply streams, the language can arrive after the fence was opened.
        for head in self.query(OneLine):
            head.show(*self._head())


_MARKS = {"math", "target"}


class _Text:
    """Mixed into every block that holds text: styles it by the tokens of our parser.

    No block itself, for a style sheet follows the first base that is a widget. For the same
    reason each class names the styles.
    """

    def _token_to_content(self, token: Token) -> Content:
        texts: list[str] = []
        spans: list[Span] = []
        opened: list[tuple[Style | str, int]] = []
        position = 0
        for child in token.children or ():
            kind, text = child.type, ""
            if kind == "text":
                text = _SPACE.sub(" ", child.content)
            elif kind == "softbreak":
                text = " "
            elif kind == "hardbreak":
                text = "\n"
            elif kind in ("code_inline", "math", "target"):
                text = child.content
                spans.append(Span(position, position + len(text), f".{kind}"))
            elif kind == "link_open":
                href = str(child.attrGet("href") or "")
                opened.append((Style.from_meta({"@click": f"link({href!r})"}), position))
            elif kind in ("em_open", "strong_open", "s_open"):
                opened.append((f".{kind.removesuffix('_open')}", position))
            elif kind.endswith("_close") and opened:
                style, start = opened.pop()
                spans.append(Span(start, position, style))
            texts.append(text)
            position += len(text)
        return Content("".join(texts), spans=spans)


class Paragraph(_Text, stock.MarkdownParagraph):
    """Prose, or a formula on lines of its own."""

    COMPONENT_CLASSES = _MARKS


class H1(_Text, stock.MarkdownH1):
    """A heading."""

    COMPONENT_CLASSES = _MARKS


class H2(_Text, stock.MarkdownH2):
    """A heading."""

    COMPONENT_CLASSES = _MARKS


class H3(_Text, stock.MarkdownH3):
    """A heading."""

    COMPONENT_CLASSES = _MARKS


class H4(_Text, stock.MarkdownH4):
    """A heading."""

    COMPONENT_CLASSES = _MARKS


class H5(_Text, stock.MarkdownH5):
    """A heading."""

    COMPONENT_CLASSES = _MARKS


class H6(_Text, stock.MarkdownH6):
    """A heading."""

    COMPONENT_CLASSES = _MARKS


class TH(_Text, stock.MarkdownTH):
    """The head of a column."""

    COMPONENT_CLASSES = _MARKS


class TD(_Text, stock.MarkdownTD):
    """A cell."""

    COMPONENT_CLASSES = _MARKS


class HorizontalRule(stock.MarkdownHorizontalRule):
    """One thin line."""

    def render(self) -> Content:
        return Content("─" * self.size.width)


class ListItem(stock.MarkdownUnorderedListItem):
    """An item with a bullet, or with a box if it is a task."""

    def __init__(self, markdown: Markdown, token: Token, bullet: str) -> None:
        done = token.meta.get("done")
        super().__init__(markdown, token, bullet if done is None else _box(done))


class OrderedItem(stock.MarkdownOrderedListItem):
    """An item with a number, and with a box behind it if it is a task."""

    def __init__(self, markdown: Markdown, token: Token, bullet: str) -> None:
        super().__init__(markdown, token, bullet)
        self.done: bool | None = token.meta.get("done")


def _box(done: bool) -> str:
    return TASK_DONE if done else TASK_OPEN


class OrderedList(stock.MarkdownOrderedList):
    """Numbered items, aligned to the right of their numbers."""

    def compose(self) -> ComposeResult:
        items = [block for block in self._blocks if isinstance(block, OrderedItem)]
        first = items[0].bullet if items else ""
        start = int(first) if first.isdecimal() else 1
        width = len(str(start + len(items) - 1))
        for number, item in enumerate(items, start):
            bullet = stock.MarkdownBullet()
            box = "" if item.done is None else _box(item.done)
            bullet.symbol = f"{number:>{width}}. {box}"
            yield Horizontal(bullet, Vertical(*item._blocks))
        self._blocks.clear()


class TableContent(stock.MarkdownTableContent):
    """The cells of a table, each column aligned as its head asks for."""

    def __init__(
        self, headers: list[Content], rows: list[list[Content]], sides: Sequence[str]
    ) -> None:
        """`sides` has "", "right" or "center" for each column."""
        super().__init__(headers, rows)
        self._sides = sides

    def compose(self) -> ComposeResult:
        yield from self._cells(self.headers, "header")
        for number, row in enumerate(self.rows, 1):
            yield from self._cells(row, f"row{number} cell")
            self.last_row = number

    def _cells(self, row: Sequence[Content], classes: str) -> list[Widget]:
        sides = [*self._sides, *[""] * len(row)]
        return [
            stock.MarkdownTableCellContents(cell, classes=f"{classes} {side and f'-{side}'}")
            for cell, side in zip(row, sides, strict=False)
        ]

    async def _update_rows(self, updated_rows: list[list[Content]]) -> None:
        """Replace the last row, which may have grown, and add those behind it."""
        await self.query_children(f".cell.row{self.last_row}").remove()
        cells: list[Widget] = []
        for number, row in enumerate(updated_rows, self.last_row):
            cells += self._cells(row, f"row{number} cell")
            self.last_row = number
        await self.mount_all(cells)


class Table(stock.MarkdownTable):
    """A table without a frame: its head is muted, with one thin rule under it."""

    def compose(self) -> ComposeResult:
        styles = [
            str(block._token.attrGet("style") or "")
            for part in self._blocks
            for row in part._blocks
            for block in row._blocks
            if isinstance(block, stock.MarkdownTH)
        ]
        self._headers, self._rows = self._get_headers_and_rows()
        sides = [style.removeprefix("text-align:").replace("left", "") for style in styles]
        yield TableContent(self._headers, self._rows, sides)


class Reply(Markdown):
    """Markdown as we show it: no raw HTML, no links opened unasked, quiet bullets."""

    BULLETS = ["• ", "◦ ", "- "]
    BLOCKS: dict[str, type[MarkdownBlock]] = {
        **Markdown.BLOCKS,
        **{"h1": H1, "h2": H2, "h3": H3, "h4": H4, "h5": H5, "h6": H6},
        "hr": HorizontalRule,
        "paragraph_open": Paragraph,
        "list_item_unordered_open": ListItem,
        "list_item_ordered_open": OrderedItem,
        "ordered_list_open": OrderedList,
        "table_open": Table,
        "th_open": TH,
        "td_open": TD,
        "fence": Fence,
        "code_block": Fence,
    }

    def __init__(self, text: str, *, first_fence: int) -> None:
        parser = reply_parser()  # one for each reply: only one of its updates runs at a time
        super().__init__(text, parser_factory=lambda: parser, open_links=False)
        self._first_fence = first_fence

    def number_of(self, fence: Fence) -> int:
        """The number of a code block that is mounted here, counted through the conversation."""
        return self._first_fence + list(self.query(Fence)).index(fence) + 1
