import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ready, shown, until
from textual.content import Content

from tui_chat.ui.commands import ACTIONS, GROUPS
from tui_chat.ui.help_screen import GUTTER, WIDE, WIDER, HelpScreen, KeyTable


async def table(make_app: MakeApp, width: int) -> list[str]:
    """The rows of the whole table in a terminal of that width, also those out of sight."""
    app = make_app()
    async with app.run_test(size=(width, 24)) as pilot:
        await ready(pilot)
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        widget = app.screen.query_one(KeyTable)
        await until(pilot, lambda: widget.size.width > 0)
        drawn = widget.render()
        assert isinstance(drawn, Content)
        rows = drawn.plain.split("\n")
        assert max(len(row.rstrip()) for row in rows) <= widget.size.width
        assert widget.size.height == len(rows)
        return rows


@pytest.mark.parametrize("width", [40, 80, WIDE + 6, 120, WIDER + 6, 300])
async def test_no_key_command_or_word_is_lost_at_any_width(make_app: MakeApp, width: int) -> None:
    text = "\n".join(await table(make_app, width))
    words = text.split()
    for action in ACTIONS:
        assert not action.keys or action.key_label in text
        assert not action.slash or f"/{action.slash}" in words
        assert not action.argument or action.argument in text
        assert all(word in words for word in action.help.split())


@pytest.mark.parametrize(("width", "columns"), [(80, 1), (120, 2), (160, 3)])
async def test_wide_terminals_get_more_columns(make_app: MakeApp, width: int, columns: int) -> None:
    rows = await table(make_app, width)
    heads = [group for group in GROUPS if rows[0].find(group) >= 0]
    assert len(heads) == columns
    assert rows[0].split(" " * GUTTER)[0].strip() == heads[0]


async def test_the_help_scrolls_with_the_arrows_and_says_so(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(40, 15)) as pilot:
        await ready(pilot)
        await pilot.press("f1")
        await until(pilot, lambda: "scroll · Esc back" in shown(app))
        assert "/context" not in shown(app)
        await pilot.press("end")
        await until(pilot, lambda: "/context" in shown(app))
        await pilot.resize_terminal(200, 50)
        await until(pilot, lambda: "scroll ·" not in shown(app))
        await pilot.press("escape")
        assert app.screen is app.chat
