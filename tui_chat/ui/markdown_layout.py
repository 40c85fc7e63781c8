"""The pieces of a reply as rows: which text stands where, in which of the palette's words."""

from collections.abc import Iterator, Sequence
from itertools import chain

from markdown_it.token import Token

from tui_chat.ui.code_colours import coloured
from tui_chat.ui.markdown_pieces import CodePiece, MarkdownPiece, Piece, PlainPiece, language_of
from tui_chat.ui.wrapping import Line, Run, cells, wrap

BULLETS = ("•", "◦", "-")
TOO_LARGE = "too large to format, shown as plain text"
GROUND = "fence"
"""The word for the ground that code stands on."""
EDGE = Run("  ", f"edge {GROUND}")
MIN_WIDTH = 12
"""Cells that nested text needs beside its mark; with fewer it goes on below, not indented."""
MIN_COLUMN = 4
ROOMY = 90
"""From this width on, four cells part the columns of a table that has room for them, else two."""
_STYLES = {"em_open": "em", "strong_open": "strong", "s_open": "s", "link_open": "link"}
TASK_OPEN, TASK_DONE = "☐", "☑"
_LISTS = ("bullet_list", "ordered_list")

Rows = list[Line]


def lay_out(piece: Piece, width: int, code_number: int) -> Iterator[Line]:
    """`piece` in rows of `width` cells; its first code block has the number `code_number`.

    The rows of code are made as they are taken, so that who takes them may pause.
    """
    width = max(1, width)
    rows: Iterator[Line] = iter(())
    is_first, joint = True, ""
    if isinstance(piece, CodePiece):
        is_first, joint = piece.is_first, piece.joint
        text = piece.text.rstrip() if piece.is_last else piece.text.removesuffix("\n")
        rows = _code(text, piece.language, width, code_number, is_first=is_first)
    elif isinstance(piece, PlainPiece):
        is_first, joint = piece.is_first, piece.joint
        text = piece.text.rstrip("\n")
        rows = iter(wrap([Run(text)], width) if text else ())
        if is_first:
            rows = chain((Line((Run(TOO_LARGE, "m"),)), Line()), rows)
    elif isinstance(piece, MarkdownPiece):
        rows = iter(_Layout(piece, code_number).blocks(width))
    return rows if is_first else _joined(rows, joint)


def _joined(rows: Iterator[Line], joint: str) -> Iterator[Line]:
    for first in rows:
        yield first._replace(joint=joint)
        break
    yield from rows


def _code(
    text: str, language: str, width: int, number: int, *, is_first: bool = True
) -> Iterator[Line]:
    """Code on its own ground, after a row with the language and how to copy it."""
    if is_first:
        hint = f"/copy {number}"
        room = max(0, width - 3 - len(hint))
        name = wrap([Run(language or "text")], max(1, room - 2), words=False)[0].text
        gap = " " * (room - cells([Run(name)]))
        head = (EDGE, Run(name, f"m {GROUND}"), Run(gap, GROUND))
        yield Line((*head, Run(hint, f"m {GROUND}")), ground=GROUND, indent=width)
    for line in coloured(text, language):
        runs = [Run(run.text, f"{run.style} {GROUND}") for run in line]
        for row in wrap(runs, max(1, width - 4), words=False):
            yield Line((EDGE, *row.runs), row.joint, GROUND, len(EDGE.text))


class _Layout:
    """Lays one piece out."""

    def __init__(self, piece: MarkdownPiece, code_number: int) -> None:
        self._piece = piece
        self._tokens = piece.tokens()
        self._lines = piece.source.split("\n")
        self._code_number = code_number
        self._position = 0

    def blocks(self, width: int, end: int | None = None, depth: int = 0) -> Rows:
        """The blocks up to the token `end`, one below the other."""
        tokens = self._tokens
        end = len(tokens) if end is None else end
        rows: Rows = []
        before: Token | None = None
        while self._position < end:
            token = tokens[self._position]
            found = self._block(token, width, depth)
            if rows and found and self._is_apart(before, token):
                rows.append(Line())
            rows += found
            before = token if found else before
        return rows

    def _is_apart(self, before: Token | None, token: Token) -> bool:
        """Whether a blank row parts two blocks: as in the source, where it can be either way."""
        if before is not None and before.tag == "h1":
            return False
        kinds = {each.type.removesuffix("_open") for each in (before, token) if each}
        if token.map and kinds <= {"paragraph", "list_item", *_LISTS}:
            return not self._lines[token.map[0] - 1].strip(" \t>")
        return True

    def _end(self) -> int:
        """Index of the token that closes the one at the position."""
        level = self._tokens[self._position].level
        end = self._position + 1
        while self._tokens[end].level != level:
            end += 1
        return end

    def _block(self, token: Token, width: int, depth: int) -> Rows:
        if token.nesting == 0:
            self._position += 1
            return self._leaf(token, width)
        end = self._end()
        kind = token.type.removesuffix("_open")
        self._position += 1
        match kind:
            case "paragraph":
                rows = wrap(_inline(self._tokens[self._position]), width)
            case "heading":
                rows = wrap(_inline(self._tokens[self._position], token.tag), width)
                rows += [_rule(width)] * (token.tag == "h1")
            case "blockquote":
                has_room = width - 2 >= MIN_WIDTH
                rows = self.blocks(width - 2 * has_room, end, depth)
                rows = [_prefixed(row, Run("│ ", "rule")) if has_room else row for row in rows]
            case "bullet_list" | "ordered_list":
                rows = self._list(token, end, width, depth)
            case "table":
                rows = self._table(end, width)
            case _:
                rows = self.blocks(width, end, depth)
        self._position = end + 1
        return rows

    def _leaf(self, token: Token, width: int) -> Rows:
        match token.type:
            case "hr":
                return [_rule(width)]
            case "fence" | "code_block":
                code = token.content.rstrip()
                rows = list(_code(code, language_of(token), width, self._code_number))
                self._code_number += 1
                return rows
            case "inline":
                return wrap(_inline(token), width)
        return wrap([Run(token.content)], width) if token.content else []

    def _list(self, token: Token, end: int, width: int, depth: int) -> Rows:
        rows: Rows = []
        number: int | None = None
        if token.type == "ordered_list_open":
            number = self._piece.number if depth == 0 and self._piece.number is not None else None
            number = int(token.attrs.get("start", 1)) if number is None else number
        before: Token | None = None
        while self._position < end:
            item = self._tokens[self._position]
            item_end = self._end()
            self._position += 1
            mark = _mark(item, number, depth)
            found = self._item(mark, item_end, width, depth)
            if before is not None and self._is_apart(before, item):
                rows.append(Line())
            rows += found
            before, number = item, None if number is None else number + 1
            self._position = item_end + 1
        return rows

    def _item(self, mark: str, end: int, width: int, depth: int) -> Rows:
        indent = len(mark) + 1
        if width - indent < MIN_WIDTH:
            return [Line((Run(mark, "m"),)), *self.blocks(width, end, depth + 1)]
        rows = self.blocks(width - indent, end, depth + 1) or [Line()]
        head, rest = Run(f"{mark} ", "m"), Run(" " * indent)
        return [_prefixed(row, rest if index else head) for index, row in enumerate(rows)]

    # ---- tables ----

    def _table(self, end: int, width: int) -> Rows:
        body: list[list[list[Run]]] = []
        aligned: list[str] = []
        for token in self._tokens[self._position : end]:
            if token.type == "tr_open":
                body.append([])
            elif token.type == "th_open":
                aligned.append(str(token.attrs.get("style", "")).removeprefix("text-align:"))
            elif token.type == "inline":
                body[-1].append(_inline(token, "m" if len(body) == 1 else ""))
        sizes = [max(cells(row[column]) for row in body) for column in range(len(aligned))]
        roomy = width >= ROOMY and sum(sizes) + 4 * (len(sizes) - 1) <= width
        gap = 4 if roomy else 2
        fitted = _fit(sizes, width - gap * (len(sizes) - 1))
        if fitted is None:
            return wrap([Run("\n".join(self._lines).strip("\n"))], width)
        rows: Rows = []
        for index, row in enumerate(body):
            rows += _table_row(row, fitted, aligned, gap)
            if index == 0:
                rows.append(_rule(sum(fitted) + gap * (len(fitted) - 1)))
        return rows


def _fit(sizes: Sequence[int], room: int) -> list[int] | None:
    """Widths for columns of these sizes: the widest give way first; None if there is no room."""
    if sum(sizes) <= room:
        return [max(1, size) for size in sizes]
    if room < MIN_COLUMN * len(sizes):
        return None
    widths = list(sizes)
    limit = max(sizes)
    while sum(widths) > room:
        limit -= 1
        widths = [min(size, limit) for size in sizes]
    return [max(1, size) for size in widths]


def _table_row(
    row: Sequence[list[Run]], widths: Sequence[int], aligned: Sequence[str], gap: int
) -> Iterator[Line]:
    columns = [wrap(cell, width) for cell, width in zip(row, widths, strict=False)]
    for index in range(max(map(len, columns), default=0)):
        runs: list[Run] = []
        pad = 0
        for column, width, side in zip(columns, widths, aligned, strict=False):
            cell = column[index].runs if index < len(column) else ()
            free = max(0, width - cells(cell))
            left = free if side == "right" else free // 2 if side == "center" else 0
            if pad + left:
                runs.append(Run(" " * (pad + left)))
            runs += cell
            pad = free - left + gap
        yield Line(tuple(runs))


def _mark(item: Token, number: int | None, depth: int) -> str:
    """What stands before an item: a bullet or a number, and the box of a task."""
    done = item.meta.get("done")
    box = "" if done is None else TASK_DONE if done else TASK_OPEN
    if number is None:
        return box or BULLETS[depth % len(BULLETS)]
    return f"{number:>2}. {box}".rstrip()


# ---- inline text ----


def _inline(token: Token, style: str = "") -> list[Run]:
    """The text of an `inline` token in runs."""
    runs: list[Run] = []
    styles = [style] if style else []
    links: list[str] = []
    for child in token.children or ():
        kind = child.type
        if kind in _STYLES:
            styles.append(_STYLES[kind])
            if kind == "link_open":
                links.append(str(child.attrs.get("href", "")))
        elif child.nesting < 0 and styles:
            styles.pop()
            if kind == "link_close" and links:
                links.pop()
        else:
            runs.append(_run(child, styles, links[-1] if links else ""))
    return runs


def _run(token: Token, styles: Sequence[str], link: str) -> Run:
    style = " ".join(styles)
    match token.type:
        case "softbreak":
            return Run(" ", style, link)
        case "hardbreak":
            return Run("\n", style, link)
        case "code_inline":
            return Run(token.content.replace("\n", " "), " ".join([*styles, "code"]), link)
        case "math":
            return Run(token.content, " ".join([*styles, "math"]), link)
        case "target":
            return Run(token.content, " ".join([*styles, "m"]), link)
    return Run(" ".join(token.content.replace("\t", " ").split(" ")), style, link)


def _rule(width: int) -> Line:
    return Line((Run("─" * width, "rule"),))


def _prefixed(row: Line, prefix: Run) -> Line:
    """`row` behind a bullet or a rule; what goes on with a row above has it for the eye alone."""
    for_the_eye = row.indent > 0 or row.joint != "\n"
    indent = row.indent + len(prefix.text) if for_the_eye else 0
    return row._replace(runs=(prefix, *row.runs), indent=indent)
