"""Markdown as replies write it: GitHub's, without HTML, with mathematics kept as it was written,
task lists, and images as links. It gives tokens; `markdown_layout` makes rows of them.
"""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

_INLINE_PAIRS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$", "$": "$"}
_BLOCK_PAIRS = {"$$": "$$", "\\[": "\\]"}
_TEX = re.compile(r"[\\^_{}=]")
"""What a formula has and a text in brackets, or a price, has not."""
_TASK = re.compile(r"\[([ xX])\][ \t]+")
_TARGET_LENGTH = 40
MAX_NESTING = 100
"""Levels of blocks in each other; the parser drops what is deeper."""
_LONGEST_FORMULA = 2000


def reply_parser(*, links: bool = True) -> MarkdownIt:
    """A parser for replies. One parser must not be used by two threads at a time.

    Without `links` it looks for none, which takes long where many begin and none ends.
    """
    parser = MarkdownIt("gfm-like", {"html": False, "maxNesting": MAX_NESTING})
    parser.inline.ruler.before("escape", "math", _inline_math)
    interrupts = ["paragraph", "reference", "blockquote", "list"]
    parser.block.ruler.before("fence", "math", _block_math, {"alt": interrupts})
    parser.core.ruler.push("tasks and links", _tasks_and_links)
    if not links:
        parser.disable(["link", "image", "linkify"])
    return parser


def _inline_math(state: StateInline, silent: bool) -> bool:
    """`\\(a\\)`, `\\[a\\]`, `$$a$$` and `$a$`, with their delimiters and backslashes."""
    opener = state.src[state.pos : state.pos + 2]
    if opener not in _INLINE_PAIRS:
        opener = opener[:1]
    closer = _INLINE_PAIRS.get(opener)
    if closer is None:
        return False
    start = state.pos + len(opener)
    end = state.src.find(closer, start, min(state.posMax, start + _LONGEST_FORMULA))
    after = end + len(closer)
    if end < 0 or not _is_math(opener, state.src[start:end], state.src[after : after + 1]):
        return False
    if not silent:
        state.push("math", "", 0).content = state.src[state.pos : after]
    state.pos = after
    return True


def _is_math(opener: str, formula: str, following: str) -> bool:
    """Whether what stands between two delimiters is a formula, not prices or escaped brackets."""
    if not formula.strip():
        return False
    if opener == "\\[":
        return bool(_TEX.search(formula))
    if opener != "$":
        return True
    if formula != formula.strip() or following.isalnum():
        return False
    return bool(_TEX.search(formula)) or not formula[0].isdigit()


def _block_math(state: StateBlock, line: int, end_line: int, silent: bool) -> bool:
    """Lines from `$$` or `\\[` to their closing delimiter; while a reply streams, to its end."""
    start = state.bMarks[line] + state.tShift[line]
    closer = _BLOCK_PAIRS.get(state.src[start : start + 2])
    if closer is None or state.is_code_block(line):
        return False
    first = _line(state, line).strip()
    last, rest = line, first[2:]
    if closer in rest:
        return False  # on one line it is for `_inline_math`
    while not rest.rstrip().endswith(closer):
        last += 1
        if last >= end_line:
            break  # not closed yet
        if state.isEmpty(last) or state.sCount[last] < state.blkIndent:
            return False
        rest = _line(state, last)
    if silent:
        return True
    last = min(last, end_line - 1)
    state.line = last + 1
    state.push("paragraph_open", "p", 1).map = [line, state.line]
    inline = state.push("inline", "", 0)
    # Empty, so that nothing in it is parsed; `_tasks_and_links` gives it its children.
    inline.content, inline.map, inline.children = "", [line, state.line], []
    inline.meta["math"] = [_line(state, number).rstrip() for number in range(line, state.line)]
    state.push("paragraph_close", "p", -1)
    return True


def _line(state: StateBlock, line: int) -> str:
    return state.getLines(line, line + 1, state.blkIndent, False)


def _tasks_and_links(state: StateCore) -> None:
    for index, token in enumerate(state.tokens):
        if token.type != "inline":
            continue
        if "math" in token.meta:
            token.children = _math_lines(token.meta["math"])
            continue
        _mark_task(state.tokens[max(0, index - 2) : index], token)
        if any(child.type in ("image", "link_open") for child in token.children or ()):
            token.children = _plain_links(token.children or [])


def _math_lines(lines: Sequence[str]) -> list[Token]:
    children: list[Token] = []
    for number, line in enumerate(lines):
        if number:
            children.append(Token("hardbreak", "br", 0))
        children.append(Token("math", "", 0, content=line))
    return children


def _mark_task(before: Sequence[Token], inline: Token) -> None:
    """Take the box of a task out of its text and note it at its list item."""
    children = inline.children
    if [token.type for token in before] != ["list_item_open", "paragraph_open"] or not children:
        return
    box = _TASK.match(children[0].content) if children[0].type == "text" else None
    if box is not None:
        before[0].meta["done"] = box.group(1) != " "
        children[0].content = children[0].content[box.end() :]


def _plain_links(children: Sequence[Token]) -> list[Token]:
    """Images as links, and behind a link where it leads if its text does not tell."""
    found: list[Token] = []
    href, text = "", ""
    for child in children:
        if child.type == "image":
            href = str(child.attrGet("src") or "")
            alt = "".join(part.content for part in child.children or ())
            text = f"image: {alt}" if alt else "image"
            found.append(Token("link_open", "a", 1, attrs={"href": href}))
            found.append(Token("text", "", 0, content=text))
            found.append(Token("link_close", "a", -1))
            found += _target(href, text)
            continue
        found.append(child)
        if child.type == "link_open":
            href, text = str(child.attrGet("href") or ""), ""
        elif child.type == "link_close":
            found += _target(href, text)
        else:
            text += child.content
    return found


def _target(href: str, text: str) -> list[Token]:
    """Where a link leads, in a few letters; nothing if its text says it."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return []
    is_web = parts.scheme in ("http", "https")
    # What stands before an @ is no place, however much it looks like one.
    shown = parts.netloc.rpartition("@")[2] if is_web else href.removeprefix("mailto:")
    if not shown:
        return []
    name = re.escape(shown.removeprefix("www."))
    if re.search(rf"(?<![\w.-])(www\.)?{name}(?![\w-]|\.\w)", text, re.IGNORECASE):
        return []
    if len(shown) > _TARGET_LENGTH:  # the owner of a name stands at its end
        left = _TARGET_LENGTH - 1
        shown = f"…{shown[-left:]}" if is_web else f"{shown[:left]}…"
    return [Token("target", "", 0, content=f" ({shown})")]
