from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, ready, shown, type_text, until
from textual.pilot import Pilot

from tui_chat.types import Mode
from tui_chat.ui.app import TuiChat
from tui_chat.ui.palette_screen import PaletteScreen


async def opened(pilot: Pilot[int], search: str = "") -> TuiChat:
    app = await ready(pilot)
    await pilot.press("ctrl+p")
    await until(pilot, lambda: isinstance(app.screen, PaletteScreen))
    await type_text(pilot, search)
    return app


def titles(app: TuiChat) -> list[str]:
    """The rows of the palette."""
    assert isinstance(app.screen, PaletteScreen)
    return [action.id for action in app.screen._shown]


async def test_every_action_but_the_palette_itself_can_be_found(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        assert titles(app) == [action.id for action in app.palette_actions()]
        assert {"mode", "theme", "help", "quit", "rename", "send"} <= set(titles(app))
        assert not {"palette", "message-copy"} & set(titles(app)), "nobody walks"


async def test_words_are_searched_in_the_help_the_keys_and_the_commands(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, "accuracy switch")
        assert titles(app) == ["mode"]
        await pilot.press("ctrl+u")
        await type_text(pilot, "shift+tab")
        assert titles(app) == ["mode"]
        await pilot.press("ctrl+u")
        await type_text(pilot, "con")
        assert titles(app)[:2] == ["continue", "context"]
        await type_text(pilot, "xyz")
        assert titles(app) == []
        assert "Nothing is called that" in shown(app)
        await pilot.press("enter", "pagedown", "down")
        assert isinstance(app.screen, PaletteScreen)


async def test_enter_does_the_action_and_esc_does_none(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, "accuracy")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.chat)
        await until(pilot, lambda: app.chat.mode is Mode.ACCURACY)
        await opened(pilot, "accuracy")
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        await ask(pilot, "still there?")
        assert app.chat.mode is Mode.ACCURACY


async def test_a_small_terminal_shows_what_an_action_does_before_its_keys(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(40, 15)) as pilot:
        await opened(pilot, "cut-off")
        await until(pilot, lambda: "Go on with a cut-off" in shown(app))
        assert "Ctrl+T" in shown(app) and "/continue" not in shown(app)
