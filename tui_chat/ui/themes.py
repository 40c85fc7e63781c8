"""themes/*.toml to Textual themes: the shipped ones and the user's."""

import tomllib
from pathlib import Path

from textual.theme import Theme

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
    try:
        return Theme(**tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"Theme {path.name} cannot be read ({error.strerror}).") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"Theme {path.name} cannot be used: {error}") from error


def shipped_theme_files() -> dict[str, Path]:
    """The files of the themes that come along, each under the name of its theme.

    The tests prove the themes; that is not done at every start.
    """
    return {path.stem: path for path in sorted(shipped_themes_dir().glob("*.toml"))}


def user_theme_files() -> list[Path]:
    """The theme files in the config folder; `theme_proof` reads them."""
    return sorted((files.config_dir() / "themes").glob("*.toml"))
