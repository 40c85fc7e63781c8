"""One line of Markdown without its marks, for a row or a small pane that shows no Markdown."""

import re
from collections.abc import Sequence

from tui_chat.store.search import fold, holds

_MARKS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", r"\2"),
        (r"!?\[([^\[\]]+)\]\([^()\s]*\)", r"\1"),
        (r"!?\[([^\[\]]+)\]\([^()\s]*…$", r"\1…"),
        (r"(?<![\w*\\])(\*{1,3})(?=[^\s*])([^*]+?)(?<=[^\s*\\])\1(?![\w*])", r"\2"),
        (r"~~(?=\S)([^~]+?)(?<=\S)~~", r"\1"),
        (r"^(\s*)#{1,6} (?=\S)", r"\1"),
    )
)
_OPENED, _CLOSED = re.compile(r"(?<![\w*])\*\*(?=\w)"), re.compile(r"(?<=\w)\*\*(?![\w*])")


def plain_line(line: str, words: Sequence[str] = ()) -> str:
    """`line` without the marks of emphasis, code, links and headings.

    It stays as it is where one of the folded `words`, which are searched for, is found only with
    the marks. An ellipsis at either end says that it is cut there, so that half of a pair may be
    missing.
    """
    plain = line
    for pattern, replacement in _MARKS:
        plain = pattern.sub(replacement, plain)
    if plain.endswith("…"):
        plain = _lone(_OPENED, plain, -1)
    if plain.startswith("…"):
        plain = _lone(_CLOSED, plain, 0)
    folded = fold(line)
    wanted = [word for word in words if word in folded]
    return plain if holds(fold(plain), wanted) else line


def _lone(mark: re.Pattern[str], text: str, which: int) -> str:
    """`text` without a mark whose partner is cut off."""
    found = list(mark.finditer(text))
    if text.count("**") % 2 == 0 or not found:
        return text
    start, end = found[which].span()
    return text[:start] + text[end:]
