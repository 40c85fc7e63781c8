"""themes/*.toml to Textual themes: the shipped ones and the user's.

A file names the colours of `TOKENS`. What it leaves out, and what Textual's own parts ask for,
is taken from the colours that it has.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textual.color import Color, ColorParseError
from textual.theme import Theme

from tui_chat import files, settings
from tui_chat.config import EntryReader, read_toml

DEFAULT_THEME = "tidepool"
TERMINAL_THEME = "terminal"
"""For sixteen colours and NO_COLOR."""

TOKENS: Mapping[str, str] = {
    "background": "the page",
    "surface": "your turns, the box, a search field, the chosen row",
    "panel": "the chosen row of the palette, toasts",
    "code": "the ground of code",
    "foreground": "text",
    "bright": "your text, titles, the one number that counts",
    "text-muted": "labels, figures, hints, turns that are not sent",
    "primary": "you: the bar, the cursor, the draft in the meter",
    "secondary": "the model: meters, progress, live rates",
    "accent": "what can be pointed at: links, /commands, versions",
    "success": "it fits, it is loaded",
    "warning": "stopped, cut, short of memory, left out",
    "error": "failed",
    "rule": "thin lines",
    "bar-off": "the empty part of a meter, a bar without the focus",
    "bar-past": "the older bars of a plot",
    "hit": "the ground of a search hit",
    "selection": "the ground of selected text",
    "syntax-keyword": "code: keywords",
    "syntax-string": "code: strings",
    "syntax-number": "code: numbers",
    "syntax-name": "code: names, code and formulas in a sentence",
    "syntax-type": "code: types and built-ins",
    "syntax-comment": "code: comments",
}
"""The colours of a theme, and what each is for."""

_FIELDS = frozenset(
    {"background", "surface", "panel", "foreground", "primary", "secondary", "accent"}
    | {"success", "warning", "error"}
)
OWN_TOKENS = tuple(name for name in TOKENS if name not in {*_FIELDS, "text-muted"})
"""Those that Textual does not know."""

VARIABLE_DEFAULTS = dict.fromkeys(OWN_TOKENS, "#808080")
"""Until a theme of ours is set, the style sheet needs any value for our own tokens."""

_WIDGETS = {
    "text": "foreground",
    "text-disabled": "text-muted",
    "border": "primary",
    "border-blurred": "rule",
    "block-cursor-background": "panel",
    "block-cursor-foreground": "bright",
    "block-cursor-blurred-background": "surface",
    "block-cursor-blurred-foreground": "foreground",
    "block-hover-background": "surface",
    "input-cursor-background": "primary",
    "input-cursor-foreground": "background",
    "input-selection-background": "selection",
    "input-selection-foreground": "bright",
    "screen-selection-background": "selection",
    "screen-selection-foreground": "bright",
    "scrollbar": "rule",
    "scrollbar-hover": "bar-off",
    "scrollbar-active": "primary",
    "scrollbar-background": "background",
    "scrollbar-corner-color": "background",
    "link-color": "accent",
    "link-color-hover": "bright",
    "link-background-hover": "panel",
    "footer-background": "background",
    "footer-key-foreground": "foreground",
}
"""Variables of Textual's widgets, and the token that each one is."""


def _colour(value: Any) -> str:
    try:
        Color.parse(settings.name(value))
    except (ColorParseError, ValueError):
        raise ValueError('a colour such as "#e8b462"') from None
    return str(value)


def _styles(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError('a table of colours such as code = "#0d1111"')
    return dict(value)


_CHECKS: Mapping[str, settings.Check] = {
    **dict.fromkeys([*_FIELDS, "boost"], _colour),
    "name": settings.name,
    "dark": settings.truth,
    "ansi": settings.truth,
    "luminosity_spread": settings.number(0.0, 1.0),
    "text_alpha": settings.number(0.0, 1.0),
    "variables": _styles,
}
"""The fields of Textual's `Theme`."""
_REQUIRED = frozenset({"name", "primary"})


def shipped_themes_dir() -> Path:
    """The folder of the themes that come along: inside the wheel, or beside the checkout."""
    package = Path(__file__).parent.parent
    inside, beside = package / "themes", package.parent / "themes"
    return inside if inside.is_dir() else beside


def read_theme(path: Path) -> Theme:
    """Read one theme file; that its values can be applied is not proven yet.

    Raises:
        ValueError: one sentence that names the file and what is wrong with it.
    """
    name, fate = f"Theme {path.name}", "the file is left out"
    try:
        text = files.read_bytes(path).decode("utf-8")
        data = read_toml(text, name)
    except OSError as error:
        raise ValueError(f"{name} cannot be read ({error.strerror}); {fate}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text; {fate}.") from error
    except ValueError as error:
        raise ValueError(f"{error}; {fate}.") from error
    reader = EntryReader(text, name, wrong=fate, unknown=fate)
    values = reader.take(data, _CHECKS)
    for missing in sorted(_REQUIRED - data.keys()):
        reader.complain(missing, "", f"is missing; {fate}")
    if reader.problems:
        raise ValueError(reader.problems[0])
    return completed(Theme(**values))


def completed(theme: Theme) -> Theme:
    """The theme with every variable that its file leaves out.

    Raises:
        ColorParseError: a colour is none.
    """
    if theme.ansi:
        theme.variables = {**mixed_tokens(theme), **theme.variables}
        return theme
    if theme.background and not theme.surface:  # Textual's own is a grey, whatever the page is
        base = theme.to_color_system().generate()
        page, ink = Color.parse(base["background"]), Color.parse(base["foreground"])
        theme.surface = page.blend(ink, 0.06).hex
    named = {name: getattr(theme, name) for name in _FIELDS if getattr(theme, name)}
    known = {**named, **theme.variables}
    if not known.keys() >= TOKENS.keys():
        known = {**theme.to_color_system().generate(), **mixed_tokens(theme), **known}
    own = {name: known[name] for name in (*OWN_TOKENS, "text-muted")}
    widgets = {name: known[token] for name, token in _WIDGETS.items()}
    theme.variables = {**own, **widgets, "block-cursor-text-style": "none", **theme.variables}
    return theme


def mixed_tokens(theme: Theme) -> dict[str, str]:
    """Tokens that a theme does not set, mixed from the colours that it has."""
    if theme.ansi:
        # Textual's own rules ask for the last two, and its ansi themes do not have them.
        own = dict.fromkeys(OWN_TOKENS, "ansi_default")
        return {**own, "ansi-background": "ansi_black", "ansi-foreground": "ansi_white"}
    base = theme.to_color_system().generate()
    page, ink = Color.parse(base["background"]), Color.parse(base["foreground"])
    model, link = Color.parse(base["secondary"]), Color.parse(base["accent"])
    muted = page.blend(ink, 0.65).hex
    return {
        "text-muted": muted,
        "code": page.darken(0.03).hex if theme.dark else page.lighten(0.03).hex,
        "bright": base["foreground"],
        "rule": page.blend(ink, 0.2).hex,
        "bar-off": page.blend(ink, 0.4).hex,
        "bar-past": page.blend(model, 0.5).hex,
        "hit": page.blend(link, 0.25).hex,
        "selection": page.blend(link, 0.35).hex,
        "syntax-keyword": base["accent"],
        "syntax-string": base["success"],
        "syntax-number": base["warning"],
        "syntax-name": base["primary"],
        "syntax-type": base["secondary"],
        "syntax-comment": muted,
    }


def shipped_theme_files() -> dict[str, Path]:
    """The files of the themes that come along, each under the name of its theme.

    The tests prove the themes; that is not done at every start.
    """
    return {path.stem: path for path in sorted(shipped_themes_dir().glob("*.toml"))}


def user_theme_files() -> list[Path]:
    """The theme files in the config folder; `theme_proof` reads them."""
    return files.toml_names(files.themes_dir())
