"""themes/*.toml to Textual themes: the shipped ones and the user's."""

import tomllib
from pathlib import Path

from textual.app import App
from textual.color import ColorParseError
from textual.command import CommandPalette
from textual.css.errors import StyleValueError
from textual.css.stylesheet import Stylesheet, StylesheetParseError
from textual.css.tokenizer import TokenError
from textual.dom import DOMNode
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget
from textual.widgets import Footer, Input, Markdown, OptionList, TextArea
from textual.widgets._toast import Toast

from tui_chat import files

DEFAULT_THEME = "tidepool"
TERMINAL_THEME = "terminal"
"""For sixteen colours and NO_COLOR."""

VARIABLE_DEFAULTS = {
    "bright": "#ffffff",
    "rule": "#808080",
    "code": "#000000",
    "bar-off": "#808080",
    "hit": "#303030",
    **{
        f"syntax-{name}": "#c0c0c0"
        for name in ("keyword", "string", "number", "name", "comment", "type")
    },
}
"""Our own theme variables, for themes that do not set them (Textual's built-in ones)."""


_STYLED: tuple[type[DOMNode], ...] = (
    App,
    Widget,
    Screen,
    TextArea,
    Footer,
    Markdown,
    Input,
    OptionList,
    CommandPalette,
    Toast,
)
"""What reads the variables of a theme, among Textual's own parts."""


def shipped_themes_dir() -> Path:
    """The folder of the themes that come along: inside the wheel, or beside the checkout."""
    package = Path(__file__).parent.parent
    inside, beside = package / "themes", package.parent / "themes"
    return inside if inside.is_dir() else beside


def load_theme(path: Path, *, prove: bool = True) -> Theme:
    """Read one theme file and, unless told not to, prove that it can be applied.

    Raises:
        ValueError: one sentence that names the file and what is wrong with it.
    """
    try:
        theme = Theme(**tomllib.loads(path.read_text(encoding="utf-8")))
        if prove:
            _prove(theme)
    except OSError as error:
        raise ValueError(f"Theme {path.name} cannot be read ({error.strerror}).") from error
    except (TokenError, StylesheetParseError, StyleValueError) as error:
        raise ValueError(f"Theme {path.name} has a value that is not a colour or style.") from error
    except (ColorParseError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"Theme {path.name} cannot be used: {error}") from error
    return theme


def _prove(theme: Theme) -> None:
    """Apply the theme to a style sheet: a bad value would else end the app when it is chosen."""
    colours = theme.to_color_system().generate()
    variables = {**VARIABLE_DEFAULTS, **App().get_css_variables(), **colours, **theme.variables}
    sheet = Stylesheet(variables=variables)
    for widget in _STYLED:
        sheet.add_source(widget.DEFAULT_CSS, read_from=(widget.__name__, ""))
    own = "".join(f"App {{ color: ${name}; }}" for name in VARIABLE_DEFAULTS)
    sheet.add_source(own, read_from=("own variables", ""))
    sheet.parse()


def load_themes() -> tuple[dict[str, Theme], tuple[str, ...]]:
    """All themes by name, the user's after the shipped ones, and one sentence per bad file."""
    themes: dict[str, Theme] = {}
    problems: list[str] = []
    shipped = shipped_themes_dir()
    for folder in (shipped, files.config_dir() / "themes"):
        for path in sorted(folder.glob("*.toml")) if folder.is_dir() else ():
            try:
                # The shipped ones are proven by the tests, not at every start.
                theme = load_theme(path, prove=folder != shipped)
            except ValueError as error:
                problems.append(str(error))
            else:
                themes[theme.name] = theme
    return themes, tuple(problems)
