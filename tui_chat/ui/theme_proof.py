"""Reads the user's themes and proves that they can be applied: a bad value would else end the
app when it is chosen.

Imported when there are such themes: it loads every widget that a theme colours.
"""

from collections.abc import Iterable
from pathlib import Path

from textual.app import App
from textual.color import ColorParseError
from textual.css.errors import StyleValueError
from textual.css.stylesheet import Stylesheet, StylesheetParseError
from textual.css.tokenizer import TokenError
from textual.dom import DOMNode
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget
from textual.widgets import Footer, Input, Markdown, OptionList, TextArea
from textual.widgets._toast import Toast

from tui_chat.ui.themes import OWN_TOKENS, read_theme

STYLED: tuple[type[DOMNode], ...] = (
    App,
    Widget,
    Screen,
    TextArea,
    Footer,
    Markdown,
    Input,
    OptionList,
    Toast,
)
"""What reads the variables of a theme, among Textual's own parts."""


def prove(theme: Theme, name: str) -> None:
    """Apply `theme` to a style sheet of its own.

    Raises:
        ValueError: one sentence that names the file `name` and what is wrong with it.
    """
    try:
        colours = theme.to_color_system().generate()
        variables = {**App().get_css_variables(), **colours, **theme.variables}
        sheet = Stylesheet(variables=variables)
        for widget in STYLED:
            sheet.add_source(widget.DEFAULT_CSS, read_from=(widget.__name__, ""))
        own = "".join(f"App {{ color: ${name}; }}" for name in OWN_TOKENS)
        sheet.add_source(own, read_from=("own variables", ""))
        sheet.parse()
    except (TokenError, StylesheetParseError, StyleValueError) as error:
        sentence = f"Theme {name} has a value that is not a colour or style; the file is left out."
        raise ValueError(sentence) from error
    except (ColorParseError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"Theme {name} cannot be applied; the file is left out.") from error


def proven_themes(paths: Iterable[Path]) -> tuple[list[Theme], tuple[str, ...]]:
    """The themes of `paths` that can be applied, and one sentence for each file that cannot."""
    found: list[Theme] = []
    problems: list[str] = []
    for path in paths:
        try:
            theme = read_theme(path)
            prove(theme, path.name)
        except ValueError as error:
            problems.append(str(error))
        else:
            found.append(theme)
    return found, tuple(problems)
