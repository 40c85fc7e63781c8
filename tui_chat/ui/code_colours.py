"""Code in the palette's words for syntax."""

from functools import lru_cache

from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.token import Token, _TokenType
from pygments.util import ClassNotFound

from tui_chat.ui.wrapping import Run

MAX_LINE = 2_000
"""Characters of a line; with a longer one the code has no colours, for some lexers would stall."""
TAB = "    "

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


def coloured(code: str, language: str) -> list[list[Run]]:
    """The lines of `code`; in one colour where `language` is unknown."""
    code = code.replace("\t", TAB)
    lines = code.split("\n")
    lexer = _lexer(language)
    if lexer is None or any(len(line) > MAX_LINE for line in lines):
        return [[Run(line)] for line in lines]
    rows: list[list[Run]] = [[]]
    for kind, text in lexer.get_tokens(code):
        first, *others = text.split("\n")
        style = _style(kind)
        if first:
            rows[-1].append(Run(first, style))
        rows += [[Run(other, style)] if other else [] for other in others]
    return rows[: len(lines)]


@lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    if not language:
        return None
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=True)
    except ClassNotFound:
        return None


@lru_cache(maxsize=512)
def _style(kind: _TokenType) -> str:
    while kind is not None and kind not in STYLES:
        kind = kind.parent
    return STYLES.get(kind, "")
