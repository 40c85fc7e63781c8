import os
import tomllib
from itertools import product
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from rich.color import Color as TerminalColour
from rich.color import ColorSystem
from test_chat_flow import command, ready, shown, told, type_text, until
from textual.color import Color
from textual.pilot import Pilot
from textual.theme import BUILTIN_THEMES, Theme

from tui_chat.config import Config, load_config
from tui_chat.ui import themes
from tui_chat.ui.app import TuiChat
from tui_chat.ui.theme_proof import prove, proven_themes
from tui_chat.ui.theme_screen import ThemeScreen

SHIPPED = sorted(themes.shipped_themes_dir().glob("*.toml"))
RGB = [path for path in SHIPPED if not themes.read_theme(path).ansi]
"""Those with colours of their own; the others have those of the terminal."""
HIGH_CONTRAST = ("high-contrast", "high-contrast-light")
PAIRS = {
    "foreground": ("background", "surface", "code", "panel"),
    "bright": ("background", "surface", "panel", "hit", "selection"),
    "text-muted": ("background", "surface", "code", "panel"),
    **dict.fromkeys(
        ("primary", "secondary", "accent", "success", "warning", "error"),
        ("background", "surface"),
    ),
    "background": ("primary",),
    "syntax-name": ("code", "background", "surface"),
    **{f"syntax-{name}": ("code",) for name in ("keyword", "string", "number", "comment", "type")},
}
"""Each colour of text, and the grounds that it is shown on."""
GROUNDS = ("background", "surface", "panel", "code")
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


def colour(theme: Theme, name: str, *, deep: bool = True) -> Color:
    """A colour of the theme, as a terminal with true colour or with 256 colours shows it."""
    value = Color.parse(theme.variables.get(name) or getattr(theme, name))
    if deep:
        return value
    drawn = TerminalColour.from_rgb(*value.rgb).downgrade(ColorSystem.EIGHT_BIT)
    return Color(*drawn.get_truecolor())


def low_pairs(theme: Theme, least: float, *, deep: bool = True) -> dict[tuple[str, str], float]:
    pairs = [pair for text, grounds in PAIRS.items() for pair in product([text], grounds)]
    ratios = {
        (text, ground): contrast(colour(theme, text, deep=deep), colour(theme, ground, deep=deep))
        for text, ground in pairs
    }
    return {pair: round(ratio, 2) for pair, ratio in ratios.items() if ratio < least}


def test_contrast_is_measured_as_wcag_does() -> None:
    assert contrast(Color.parse("#000000"), Color.parse("#ffffff")) == pytest.approx(21)
    assert contrast(Color.parse("#777777"), Color.parse("#ffffff")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_theme_is_complete_and_can_be_applied(path: Path) -> None:
    written = tomllib.loads(path.read_text(encoding="utf-8"))
    assert themes.TOKENS.keys() <= {**written, **written["variables"]}.keys()
    prove(themes.read_theme(path), path.name)


@pytest.mark.parametrize("path", RGB, ids=lambda path: path.stem)
def test_text_is_readable_on_every_ground_it_is_shown_on(path: Path) -> None:
    theme = themes.read_theme(path)
    assert low_pairs(theme, 7 if path.stem in HIGH_CONTRAST else 4.5) == {}
    assert low_pairs(theme, 4.5, deep=False) == {}


@pytest.mark.parametrize("path", RGB, ids=lambda path: path.stem)
def test_the_grounds_differ_in_256_colours_too(path: Path) -> None:
    theme = themes.read_theme(path)
    for deep in (True, False):
        assert len({colour(theme, name, deep=deep) for name in GROUNDS}) == len(GROUNDS)


@pytest.mark.parametrize("name", HIGH_CONTRAST)
def test_lines_and_meters_can_be_seen_in_high_contrast(name: str) -> None:
    theme = themes.read_theme(themes.shipped_theme_files()[name])
    page = colour(theme, "background")
    assert all(contrast(colour(theme, shape), page) >= 3 for shape in ("rule", "bar-off"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_file_has_the_name_of_its_theme(path: Path) -> None:
    assert themes.read_theme(path).name == path.stem


def test_there_are_six_themes_dark_and_light_and_one_for_sixteen_colours() -> None:
    found = {name: themes.read_theme(path) for name, path in themes.shipped_theme_files().items()}
    assert found[themes.DEFAULT_THEME].dark
    assert any(not theme.dark for theme in found.values())
    assert found[themes.TERMINAL_THEME].ansi
    assert len(found) >= 6
    assert {found[name].dark for name in HIGH_CONTRAST} == {True, False}


@pytest.mark.parametrize(
    "text",
    [
        "name = ",
        "primary = '#ff0000'",
        'name = "mine"',
        'name = "mine"\nprimary = "no colour"',
        'name = "mine"\nprimary = 7',
        'name = 7\nprimary = "#ff0000"',
        'name = ""\nprimary = "#ff0000"',
        'name = "mine"\nprimary = "#ff0000"\nflavour = "mint"',
        MINIMAL + '[variables]\ninput-cursor-text-style = "sparkling"',
        MINIMAL + '[variables]\nscrollbar = "no colour"',
        MINIMAL + '[variables]\nhit = "no colour"',
        MINIMAL + '[variables]\nsyntax-name = "?"',
        MINIMAL + 'variables = "none"',
        "\ufeff\x00",
        "",
        "nam = 'x'",
        MINIMAL + 'accent = "auto"',
        MINIMAL + "text_alpha = nan",
        MINIMAL + "dark = 1",
        MINIMAL + "luminosity_spread = 7" + "0" * 5000,
        MINIMAL + "x = " + "[" * 3000,
        MINIMAL + '[variables]\nrule = "red; } App { background: blue"',
        MINIMAL + '[variables]\nhit = "$rule"\nrule = "$hit"',
        MINIMAL + "[variables.rule]\nx = 1",
        "[" * 10 + "\n",
    ],
)
def test_a_broken_theme_file_is_one_sentence_that_names_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^Theme mine\.toml\b") as caught:
        prove(themes.read_theme(path), path.name)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith("left out.")
    assert "__" not in sentence  # no words of Python


def test_a_theme_file_that_is_not_text_or_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe name")
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    for wrong in (path, *map(tmp_path.joinpath, ("gone.toml", "pipe.toml", "endless.toml", "."))):
        with pytest.raises(ValueError, match=r"^Theme "):
            themes.read_theme(wrong)


def test_a_broken_theme_of_the_user_leaves_the_others(home: Path) -> None:
    folder = home / "config" / "themes"
    folder.mkdir(parents=True)
    (folder / "broken.toml").write_text("name =")
    (folder / "mine.toml").write_text(MINIMAL)
    found, problems = proven_themes(themes.user_theme_files())
    assert [theme.name for theme in found] == ["mine"]
    assert len(problems) == 1 and "broken.toml" in problems[0]


def test_a_short_theme_gets_readable_colours_for_all_that_it_leaves_out() -> None:
    for page, ink in (("#101010", "#e0e0e0"), ("#fafafa", "#202020")):
        theme = Theme("mine", "#ff8800", foreground=ink, background=page, dark=page < "#8")
        done = themes.completed(theme)
        assert themes.TOKENS.keys() <= {*done.variables, *vars(done)}
        for text in ("bright", "text-muted", "syntax-comment"):
            assert contrast(colour(done, text), Color.parse(page)) >= 4.5
        assert colour(done, "input-cursor-background") == Color.parse("#ff8800")
        prove(done, "mine.toml")


@pytest.mark.parametrize(("page", "ink"), [("#001b33", "#d8e4f0"), ("#fdf0d5", "#3b2f20")])
def test_a_short_theme_has_a_surface_of_its_own_colour(page: str, ink: str) -> None:
    theme = Theme("mine", "#e08030", foreground=ink, background=page, dark=page < "#8")
    surface, ground = colour(themes.completed(theme), "surface"), Color.parse(page)
    assert 1.05 < contrast(surface, ground) < 1.3
    assert contrast(Color.parse(ink), surface) >= 4.5
    assert abs(surface.hsl.h - ground.hsl.h) < 0.05 and surface.hsl.s > 0.2


# ---- in the app ----


def write_theme(home: Path, text: str, name: str = "mine.toml") -> Path:
    path = home / "config" / "themes" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
    return path


def page_colour(app: TuiChat) -> str:
    return app.screen.styles.background.hex6.lower()


async def picking(pilot: Pilot[int]) -> TuiChat:
    app = await ready(pilot)
    await command(pilot, "/theme")
    await until(pilot, lambda: isinstance(app.screen, ThemeScreen))
    return app


async def test_moving_through_the_list_shows_each_theme_and_esc_brings_the_old_one_back(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(config=Config(theme="kelp"))
    async with app.run_test(size=(100, 30)) as pilot:
        await picking(pilot)
        assert "current · dark" in shown(app)
        await pilot.press("down")
        await until(pilot, lambda: app.theme == "nightswim")
        await until(pilot, lambda: app.chat.styles.background.hex6.lower() == "#191820")
        await pilot.press("down", "down")
        await until(pilot, lambda: app.theme == "tidepool")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        assert app.theme == "kelp"
    assert not (tmp_path / "config.toml").exists()


@pytest.mark.parametrize("name", ["terminal", "catppuccin-frappe", "high-contrast-light"])
@pytest.mark.parametrize("width", [60, 80, 120])
async def test_the_list_tells_the_kind_of_the_current_theme_in_whole_words(
    make_app: MakeApp, name: str, width: int
) -> None:
    app = make_app(config=Config(theme=name))
    async with app.run_test(size=(width, 30)) as pilot:
        await picking(pilot)
        row = next(line for line in shown(app).split("\n") if name in line and "current" in line)
        assert row.rstrip().endswith(("16 colours", "dark", "light"))
        assert "…" not in row
        assert ("textual" in row) == (name == "catppuccin-frappe" and width != 120)


async def test_enter_keeps_the_theme_for_the_next_start(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(60, 24)) as pilot:
        await picking(pilot)
        await type_text(pilot, "drift")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.chat)
        await until(pilot, lambda: page_colour(app) == "#f7f2ec")
    assert load_config(tmp_path / "config.toml").config.theme == "driftwood"


async def test_a_theme_of_textual_is_shown_with_colours_for_our_own_parts(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        before = dict(BUILTIN_THEMES["nord"].variables)
        await command(pilot, "/theme nord")
        await until(pilot, lambda: app.theme == "nord")
        assert app.theme_variables["rule"] != themes.VARIABLE_DEFAULTS["rule"]
        assert BUILTIN_THEMES["nord"].variables == before


async def test_the_sixteen_colours_are_left_for_a_theme_with_colours_of_its_own(
    make_app: MakeApp,
) -> None:
    app = make_app(config=Config(theme="terminal"))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        assert app.native_ansi_color
        await command(pilot, "/theme tidepool")
        await until(pilot, lambda: app.theme == "tidepool")
        assert not app.native_ansi_color
        await command(pilot, "/theme terminal")
        await until(pilot, lambda: app.theme == "terminal")
        assert app.native_ansi_color


async def test_a_theme_of_the_user_is_reloaded_when_it_is_saved(
    make_app: MakeApp, home: Path
) -> None:
    path = write_theme(home, MINIMAL + 'background = "#101010"\n')
    app = make_app(config=Config(theme="mine"))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        assert page_colour(app) == "#101010"
        write_theme(home, MINIMAL + 'background = "#202020"\n')
        await until(pilot, lambda: page_colour(app) == "#202020")
        write_theme(home, MINIMAL + 'background = "no colour"\n')
        await until(pilot, lambda: "Theme mine.toml" in told(app))
        assert page_colour(app) == "#202020"
        assert told(app).count("Theme mine.toml") == 1
        assert "the file is left out" in told(app)  # not the theme: that stays
        path.unlink()
        await app.themes.reload()
        assert page_colour(app) == "#202020"


async def test_a_theme_that_is_saved_while_the_app_runs_can_be_chosen(
    make_app: MakeApp, home: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        write_theme(home, MINIMAL)
        await until(pilot, lambda: "mine" in app.available_themes)
        await picking(pilot)
        await type_text(pilot, "mine")
        await until(pilot, lambda: "yours · dark" in shown(app))
        await until(pilot, lambda: app.theme == "mine")
