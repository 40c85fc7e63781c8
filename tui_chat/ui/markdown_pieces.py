"""A reply cut into small pieces while it arrives, so that no step of showing it takes long.

What is settled is never parsed for its end again: only the last piece can still change. A list is
cut between its items and a code block every so many lines. A block that is too large to be
formatted in a moment becomes plain text, itself and nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tui_chat.ui.markdown_parser import MAX_NESTING, reply_parser

MAX_CHARS = 8_000
"""Of one piece, a good 1,200 words: a longer block is shown as plain text."""
MIN_LINES, MAX_LINES = 50, 150
"""Of one piece of code that goes on in the next one: from the first number on it is cut where a
line begins at the edge, for a text or a comment of several lines is rarely open there."""
MAX_CELLS = 1_000
"""Of one table; a larger one is shown as plain text."""
MAX_DEPTH = MAX_NESTING - 10
"""Of lists and quotes in each other; what is deeper is shown as plain text."""
MAX_LINKS = 500
"""In one piece; with more of what begins one, the search would take too long: there are none."""
SLICE_CHARS = 4_000
"""Of the text that is taken in one step."""

References = dict[str, object]
"""What the links of a text refer to, as markdown-it keeps it."""

_MAY_OPEN_CODE = re.compile(r"[ \t>]*(?:[-*+]|\d+[.)])?[ \t]*(?:```|~~~)")
_LINK_DEFINITION = re.compile(r"^[ >]*\[[^\]\n]+\]:\s", re.MULTILINE)
_BLANK_AT_END = re.compile(r"\n[ \t]*\n\Z|\A[ \t]*\n\Z")
_MAY_HOLD_CODE = re.compile("```|~~~|    |\t")
_GOES_ON = re.compile(r"\Z|[\s)\]}\"'*-]")
"""A line that belongs to the one before, or of which nothing is known yet."""
_LISTS = ("bullet_list_open", "ordered_list_open")


@dataclass(slots=True, eq=False)
class Piece:
    """A part of a reply that is laid out on its own."""

    source: str
    """The text as the model wrote it; those of all pieces are the whole reply."""
    is_apart: bool = True
    """Whether a blank row stands before it, unless it is the first."""

    def code_blocks(self) -> list[str]:
        """The raw code of the blocks that begin in it."""
        return []

    def languages(self) -> list[str]:
        """What the code in it is written in."""
        return []


@dataclass(slots=True, eq=False)
class MarkdownPiece(Piece):
    """A block, or one item of a list."""

    references: References = field(default_factory=dict)
    marker: str = ""
    """Of an item: what its list is written with."""
    number: int | None = None
    """Of an item in an ordered list."""
    next_number: int | None = None
    is_title: bool = False
    """Whether a rule parts it from what follows."""
    _known_codes: list[Token] | None = field(default=None, init=False)

    def tokens(self) -> list[Token]:
        """What the parser makes of it."""
        return _parse(self.source, dict(self.references))

    def code_blocks(self) -> list[str]:
        """See `Piece`."""
        return [token.content for token in self._codes()]

    def languages(self) -> list[str]:
        """See `Piece`."""
        return [language_of(token) for token in self._codes()]

    def _codes(self) -> list[Token]:
        if self._known_codes is None:
            tokens = self.tokens() if _MAY_HOLD_CODE.search(self.source) else []
            kinds = ("fence", "code_block")
            self._known_codes = [token for token in tokens if token.type in kinds]
        return self._known_codes


@dataclass(slots=True, eq=False)
class CodePiece(Piece):
    """A code block, or a part of a long one."""

    text: str = ""
    language: str = ""
    is_first: bool = True
    is_last: bool = False
    joint: str = "\n"
    """What stood between the piece before and this one, if this is not the first."""

    def code_blocks(self) -> list[str]:
        """See `Piece`."""
        return [self.text] if self.is_first else []

    def languages(self) -> list[str]:
        """See `Piece`."""
        return [self.language]


@dataclass(slots=True, eq=False)
class PlainPiece(Piece):
    """A part of a block that is too large to be formatted."""

    text: str = ""
    is_first: bool = True
    joint: str = "\n"
    """What stood between the piece before and this one, if this is not the first."""


@dataclass(slots=True)
class _Run:
    """A long block that is taken line by line: code, or what is too large to be formatted."""

    fence: str = ""
    """The marks that opened a code block."""
    indent: int = 0
    """Of the marks; as much of it is taken from each line of the code."""
    language: str = ""
    skip: int = 0
    """Lines up to the first of the text."""
    is_first: bool = True
    joint: str = "\n"
    after_blank: bool = False
    is_endless: bool = False

    def ends_before(self, line: str) -> bool:
        """Whether a plain block ended: `line` is a new paragraph, and not an indented one."""
        return not (self.fence or self.is_endless) and line[:1] not in ("", " ", "\t")

    def is_closed_by(self, line: str) -> bool:
        """Whether a code block ends with `line`."""
        marks = line.strip(" \t")
        return bool(
            self.fence
            and len(marks) >= len(self.fence)
            and not marks.strip(self.fence[0])
            and len(line) - len(line.lstrip(" ")) < 4
        )

    def piece(self, source: str, lines: list[str], *, ends: bool) -> CodePiece | PlainPiece:
        """The piece that shows `lines`, which have their line ends."""
        if not self.fence:
            text = "".join(lines)
            return PlainPiece(source, self.is_first, text, self.is_first, self.joint)
        text = "".join(_dedented(line, self.indent) for line in lines)
        return CodePiece(
            source, self.is_first, text, self.language, self.is_first, ends, self.joint
        )


@dataclass(slots=True)
class _Block:
    """A block of the parsed text, or an item of a list."""

    line: int
    """Where it begins."""
    marker: str = ""
    number: int | None = None
    items: int = 1
    cells: int = 0
    depth: int = 0
    is_title: bool = False
    is_formula: bool = False
    run: _Run | None = None
    """Of a code block: how to take its lines."""

    @property
    def next_number(self) -> int | None:
        """Of the item that follows in an ordered list."""
        return None if self.number is None else self.number + self.items


class MarkdownPieces:
    """The pieces of a text that grows at its end."""

    def __init__(self, references: References | None = None) -> None:
        self.settled: list[Piece] = []
        """In order; these do not change any more."""
        self.tail: list[Piece] = []
        """What follows them, one or two; every step makes them anew."""
        self._references: References = {} if references is None else references
        self._pending = ""
        """The text behind what is settled, which `tail` shows."""
        self._run: _Run | None = None

    @property
    def source(self) -> str:
        """The whole text."""
        return "".join(piece.source for piece in self.settled) + self._pending

    def feed(self, text: str) -> Iterator[None]:
        """Take more text, in steps of some milliseconds."""
        for part in _slices(text):
            self._pending += part
            self._advance(finished=False)
            yield

    def finish(self) -> Iterator[None]:
        """No more text follows: settle the tail; links find what was defined behind them."""
        self._advance(finished=True)
        yield
        if self._references:
            again = MarkdownPieces(self._references)
            yield from again.feed(self.source)
            again._advance(finished=True)
            self.settled = again.settled

    def _advance(self, *, finished: bool) -> None:
        self.tail = []
        while self._pending and not self.tail:
            if self._run is not None:
                self._take_lines(self._run, finished)
            else:
                self._take_blocks(finished)

    def _settle(self, piece: Piece) -> None:
        self.settled.append(piece)
        self._pending = self._pending[len(piece.source) :]

    def _take_blocks(self, finished: bool) -> None:
        """Parse what is pending and settle all but its end, or go over to a long block."""
        pending = self._pending
        lines = pending.split("\n")
        tokens = _parse(pending, dict(self._references))
        blocks = list(_blocks(tokens, lines)) or [_Block(0)]
        starts = _offsets(lines, [block.line for block in blocks])
        settled = len(blocks) if finished else _settled(blocks, lines)
        for index, block in enumerate(blocks):
            is_last = index == len(blocks) - 1
            end = len(pending) if is_last else starts[index + 1]
            source = pending[starts[index] if index else 0 : end]
            if block.run is not None and "\n" in pending[starts[index] : end]:
                self._run = block.run
            elif len(source) > MAX_CHARS or block.cells > MAX_CELLS or block.depth > MAX_DEPTH:
                self._run = _Run()
            if self._run is not None:
                self._run.skip += 0 if index else block.line
                for before in self.tail:
                    self._settle(before)
                self.tail = []
                return
            piece = self._piece(block, source)
            if index < settled:
                if _LINK_DEFINITION.search(source):
                    _parse(source, self._references)
                self._settle(piece)
            else:
                self.tail.append(piece)

    def _piece(self, block: _Block, source: str) -> MarkdownPiece:
        piece = MarkdownPiece(
            source,
            references=self._references,
            marker=block.marker,
            number=block.number,
            next_number=block.next_number,
            is_title=block.is_title,
        )
        before = self.tail[-1] if self.tail else self.settled[-1] if self.settled else None
        if not block.marker or not isinstance(before, MarkdownPiece):
            return piece
        if before.marker == block.marker:
            piece.is_apart = bool(_BLANK_AT_END.search(before.source))
            if before.next_number is not None:
                piece.number = before.next_number
                piece.next_number = before.next_number + block.items
        return piece

    def _take_lines(self, run: _Run, finished: bool) -> None:
        """Settle the first part of a long block if it is whole, else show what there is of it."""
        text = self._pending
        taken: list[str] = []
        size = position = 0
        skip, after_blank = run.skip, run.after_blank
        while position < len(text):
            newline = text.find("\n", position)
            end = len(text) if newline < 0 else newline + 1
            line = text[position : end if newline < 0 else newline]
            if skip:
                skip, position = skip - 1, end
                continue
            if after_blank and run.ends_before(line):
                self._end_run(run.piece(text[:position], taken, ends=True))
                return
            if run.is_closed_by(line) and (taken or run.joint == "\n"):
                if newline < 0 and not finished:
                    break  # more marks or letters may follow
                self._end_run(run.piece(text[:end], taken, ends=True))
                return
            has_enough = len(taken) >= MIN_LINES and run.fence and not _GOES_ON.match(line)
            if taken and (has_enough or size + len(line) > MAX_CHARS or len(taken) == MAX_LINES):
                self._settle(run.piece(text[:position], taken, ends=False))
                self._run = replace(
                    run, skip=0, is_first=False, joint="\n", after_blank=after_blank
                )
                return
            if len(line) > MAX_CHARS:
                end = position + MAX_CHARS
                head = text[position:end]
                self._settle(run.piece(text[:end], [head], ends=False))
                # Rows of words lose the spaces at their ends, rows of code do not.
                joint = "" if run.fence else head[len(head.rstrip(" ")) :]
                self._run = replace(run, skip=0, is_first=False, joint=joint, after_blank=False)
                return
            taken.append(text[position:end])
            size += end - position
            after_blank, position = not line.strip(), end
        piece = run.piece(text, taken, ends=True)
        if finished:
            self._end_run(piece)
        else:
            self.tail = [piece]

    def _end_run(self, piece: Piece) -> None:
        self._settle(piece)
        self._run = None


def gap_between(before: Piece | None, piece: Piece) -> int:
    """How many blank rows part two pieces."""
    is_under_title = isinstance(before, MarkdownPiece) and before.is_title
    return int(before is not None and piece.is_apart and not is_under_title)


class VerbatimPieces(MarkdownPieces):
    """The pieces of a text that is shown as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._run = _Run(is_first=False, is_endless=True)


def _blocks(tokens: Sequence[Token], lines: Sequence[str]) -> Iterator[_Block]:
    """The blocks of the first level, in order, lists as their items."""
    block: _Block | None = None
    list_open: Token | None = None
    for token in tokens:
        if block is not None:
            block.cells += token.type in ("th_open", "td_open")
            block.depth = max(block.depth, token.level)
            block.is_formula |= token.level == 1 and "math" in token.meta
        if token.map is None:
            continue
        line = token.map[0]
        if token.level == 0:
            list_open = token if token.type in _LISTS else None
            if block is not None:
                yield block
            block = None if list_open else _Block(line, run=_code_run(token, lines))
            if block is not None:
                block.is_title = token.tag == "h1"
        elif list_open is not None and token.level == 1:
            if block is None:
                start = token.info if list_open.type == _LISTS[1] else ""
                block = _Block(line, token.markup, int(start) if start else None)
            elif _indent(lines[line]) == _indent(lines[list_open.map[0]]):  # type: ignore[index]
                yield block
                block = _Block(line, token.markup, block.next_number)
            else:
                # Where this item would go depends on the ones before it.
                block.items += 1
    if block is not None:
        yield block


def _settled(blocks: Sequence[_Block], lines: Sequence[str]) -> int:
    """How many of the blocks cannot change any more, whatever follows.

    The last line is not whole, and a formula turns out to be none if it is not closed; so what
    begins there may still belong to the block before, unless a blank line parts them.
    """
    last = blocks[-1].line
    is_open = last == len(lines) - 1 or blocks[-1].is_formula
    is_open = is_open and last > 0 and lines[last - 1].strip() != ""
    return max(0, len(blocks) - (2 if is_open else 1))


def _code_run(token: Token, lines: Sequence[str]) -> _Run | None:
    if token.type != "fence" or token.map is None:
        return None
    return _Run(
        fence=token.markup,
        indent=_indent(lines[token.map[0]]),
        language=language_of(token),
        skip=1,
    )


def language_of(token: Token) -> str:
    """What the code of this token is written in; empty where that is not told."""
    return next(iter(token.info.split()), "")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _dedented(line: str, indent: int) -> str:
    return line[min(indent, _indent(line)) :]


def _offsets(lines: Sequence[str], numbers: Sequence[int]) -> list[int]:
    """Where the lines with these growing numbers begin in the joined text."""
    offsets = []
    number = offset = 0
    for wanted in numbers:
        offset += sum(len(line) + 1 for line in lines[number:wanted])
        number = wanted
        offsets.append(offset)
    return offsets


def _slices(text: str) -> Iterator[str]:
    """Text in parts that can be parsed in one step; a line that may open code ends one."""
    start = 0
    while start < len(text):
        end = start
        while end < len(text) and end - start < SLICE_CHARS:
            newline = text.find("\n", end, start + SLICE_CHARS)
            if newline < 0:
                end = min(len(text), start + SLICE_CHARS)
                break
            opens = _MAY_OPEN_CODE.match(text, end, newline)
            end = newline + 1
            if opens:
                break
        yield text[start:end]
        start = end


def _parse(text: str, references: References) -> list[Token]:
    is_dense = text.count("[") > MAX_LINKS or text.count(":/") > MAX_LINKS
    return _parser(links=not is_dense).parse(text, {"references": references})


@cache
def _parser(*, links: bool) -> MarkdownIt:
    return reply_parser(links=links)


def code_blocks(text: str) -> list[str]:
    """The raw code of every block in `text` that is shown as code, in order."""
    if not _MAY_HOLD_CODE.search(text):
        return []
    pieces = MarkdownPieces()
    for steps in (pieces.feed(text), pieces.finish()):
        for _ in steps:
            pass
    found: list[str] = []
    for piece in pieces.settled:
        if isinstance(piece, CodePiece) and not piece.is_first:
            found[-1] += piece.text
        else:
            found += piece.code_blocks()
    return found
