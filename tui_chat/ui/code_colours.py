"""Code in the palette's words for syntax."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Token, _TokenType
from pygments.util import ClassNotFound

from tui_chat.ui.wrapping import TAB, Run

MAX_LINE = 2_000
"""Characters of a line; with a longer one the code has no colours, for some lexers would stall."""
MAX_LEXERS = 64
"""Kept at once; the names of languages come from models."""

STYLES = {
    Token.Comment: "comment",
    Token.Keyword: "keyword",
    Token.Keyword.Type: "type",
    Token.Operator.Word: "keyword",
    Token.Literal.String: "string",
    Token.Literal.String.Doc: "comment",
    Token.Literal.Number: "number",
    Token.Name.Function: "strong",
    Token.Name.Class: "type strong",
    Token.Name.Builtin: "type",
    Token.Name.Decorator: "type",
    Token.Name.Attribute: "name",
    Token.Name.Variable: "name",
    Token.Name.Tag: "keyword",
    Token.Generic.Heading: "strong",
}


def coloured(code: str, language: str) -> Iterator[list[Run]]:
    """The lines of `code`, made as they are taken; in one colour where `language` is unknown.

    The first code in a language waits for `load`, unless that was called before.
    """
    code = code.replace("\t", TAB)
    lines = code.split("\n")
    lexer = load(language)
    if lexer is None or any(len(line) > MAX_LINE for line in lines):
        return ([Run(line)] for line in lines)
    return islice(_coloured(code, lexer), len(lines))


def _coloured(code: str, lexer: Lexer) -> Iterator[list[Run]]:
    line: list[Run] = []
    for kind, text in lexer.get_tokens(code):
        style = _style(kind)
        first, *others = text.split("\n")
        if first:
            line.append(Run(first, style))
        for other in others:
            yield line
            line = [Run(other, style)] if other else []
    yield line


_lexers: dict[str, Lexer | None] = {}


def is_loaded(language: str) -> bool:
    """Whether `load` takes no time for `language`."""
    return not language or language in _lexers


def load(language: str) -> Lexer | None:
    """What splits code in `language`; takes a tenth of a second, and may run in any thread."""
    if not is_loaded(language):
        try:
            lexer = get_lexer_by_name(language, stripnl=False, ensurenl=True)
        except ClassNotFound:
            lexer = None
        if len(_lexers) >= MAX_LEXERS:
            _lexers.clear()
        _lexers[language] = lexer
    return _lexers.get(language)


@lru_cache(maxsize=512)
def _style(kind: _TokenType) -> str:
    while kind is not None and kind not in STYLES:
        kind = kind.parent
    return STYLES.get(kind, "")
