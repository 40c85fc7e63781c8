from itertools import product
from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import Theme

from tui_chat.ui import themes
from tui_chat.ui.theme_proof import prove, user_themes

SHIPPED = sorted(themes.shipped_themes_dir().glob("*.toml"))
RGB = [path for path in SHIPPED if not themes.read_theme(path).ansi]
"""Those with colours of their own; the others have those of the terminal."""
PAIRS = {
    "foreground": ("background", "surface", "code", "panel"),
    "bright": ("background", "surface", "panel", "hit", "input-selection-background"),
    "text-muted": ("background", "surface", "code", "panel"),
    **dict.fromkeys(
        (
            "text-disabled",
            "primary",
            "secondary",
            "accent",
            "success",
            "warning",
            "error",
        ),
        ("background", "surface"),
    ),
    "background": ("primary",),
    "syntax-name": ("code", "background", "surface"),
    **{f"syntax-{name}": ("code",) for name in ("keyword", "string", "number", "comment", "type")},
}
"""Each colour of text, and the grounds that it is shown on."""
MINIMAL = 'name = "mine"\nprimary = "#ff0000"\n'


def luminance(colour: Color) -> float:
    """Relative luminance as WCAG 2 defines it, 0 to 1."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in colour.normalized
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Color, other: Color) -> float:
    """Contrast ratio as WCAG 2 defines it, 1 to 21."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def colour(theme: Theme, name: str) -> Color:
    value = theme.variables.get(name) or getattr(theme, name)
    return Color.parse(value)


def test_contrast_is_measured_as_wcag_does() -> None:
    assert contrast(Color.parse("#000000"), Color.parse("#ffffff")) == pytest.approx(21)
    assert contrast(Color.parse("#777777"), Color.parse("#ffffff")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_theme_can_be_applied(path: Path) -> None:
    theme = themes.read_theme(path)
    prove(theme, path.name)
    assert theme.name == path.stem
    missing = set(themes.VARIABLE_DEFAULTS) - set(theme.variables)
    assert missing == set()


@pytest.mark.parametrize("path", RGB, ids=lambda path: path.stem)
def test_text_is_readable_on_every_ground_it_is_shown_on(path: Path) -> None:
    theme = themes.read_theme(path)
    pairs = [pair for text, grounds in PAIRS.items() for pair in product([text], grounds)]
    low = {
        pair: round(ratio, 2)
        for pair in pairs
        if (ratio := contrast(colour(theme, pair[0]), colour(theme, pair[1]))) < 4.5
    }
    assert low == {}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_has_the_name_of_its_theme(path: Path) -> None:
    assert themes.read_theme(path).name == path.stem


def test_there_is_a_dark_a_light_and_a_sixteen_colour_theme() -> None:
    found = {name: themes.read_theme(path) for name, path in themes.shipped_theme_files().items()}
    assert found[themes.DEFAULT_THEME].dark
    assert any(not theme.dark for theme in found.values())
    assert found[themes.TERMINAL_THEME].ansi


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        "primary = '#ff0000'",
        'name = "mine"',
        'name = "mine"\nprimary = "no colour"',
        'name = "mine"\nprimary = 7',
        'name = "mine"\nprimary = "#ff0000"\nflavour = "mint"',
        MINIMAL + '[variables]\ninput-cursor-text-style = "sparkling"',
        MINIMAL + '[variables]\nscrollbar = "no colour"',
        MINIMAL + '[variables]\nhit = "no colour"',
        MINIMAL + '[variables]\nsyntax-name = "?"',
        MINIMAL + 'variables = "none"',
        "\ufeff\x00",
    ],
)
def test_a_broken_theme_file_is_one_sentence_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^Theme mine\.toml .*[^\n]$") as caught:
        prove(themes.read_theme(path), path.name)
    assert "\n" not in str(caught.value)


def test_a_theme_file_that_is_not_text_or_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe name")
    for wrong in (path, tmp_path / "gone.toml", tmp_path):
        with pytest.raises(ValueError, match=r"^Theme "):
            themes.read_theme(wrong)


def test_a_broken_theme_of_the_user_leaves_the_others(home: Path) -> None:
    folder = home / "config" / "themes"
    folder.mkdir(parents=True)
    (folder / "broken.toml").write_text("name =")
    (folder / "mine.toml").write_text(MINIMAL)
    found, problems = user_themes()
    assert [theme.name for theme in found] == ["mine"]
    assert len(problems) == 1 and "broken.toml" in problems[0]
