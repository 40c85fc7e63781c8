import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, told, type_text, until
from textual.events import Key, Paste
from textual.widgets import OptionList

from tui_chat.config import Config
from tui_chat.ui.commands import ACTIONS


async def test_ctrl_j_starts_a_new_line_and_enter_sends_both(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "one")
        await pilot.press("ctrl+j")
        await type_text(pilot, "two")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 2)
        assert app.chat.session.conversation.messages[0].content == "one\ntwo"


async def test_keys_that_arrive_at_once_act_in_the_order_they_were_typed(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        for character in "fast":
            app.post_message(Key(character, character))
        app.post_message(Key("enter", "\r"))
        app.post_message(Key("ctrl+n", None))
        await until(pilot, lambda: len(app.store.summaries()) == 1)
        assert app.store.summaries()[0].title == "fast"
        assert app.chat.box.text == ""


@pytest.mark.parametrize("action", ["model", "chats", "help", "palette", "theme", "preset"])
async def test_a_screen_that_is_left_before_it_is_there_ends_nothing(
    make_app: MakeApp, action: str
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await app._doer.do(action, "")
        assert app.screen is not app.chat
        await app.run_action("move(1)", app.screen)  # an arrow right behind the key
        app.screen.dismiss(None)  # and Esc
        await until(pilot, lambda: app.screen is app.chat)
        await type_text(pilot, "on")
        assert app.chat.box.text == "on"
        assert "did not work" not in told(app)


async def test_what_is_pasted_stands_in_the_box_once(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        app.post_message(Paste("one\ntwo"))
        app.post_message(Key("x", "x"))
        await until(pilot, lambda: app.chat.box.text.endswith("x"))
        assert app.chat.box.text == "one\ntwox"


async def test_up_recalls_earlier_prompts_and_down_returns_to_the_draft(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "alpha")
        await ask(pilot, "beta")
        await pilot.press("up")
        assert app.chat.box.text == "beta"
        await pilot.press("up")
        assert app.chat.box.text == "alpha"
        await pilot.press("down", "down")
        assert app.chat.box.text == ""


async def test_recall_is_filtered_by_what_was_typed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "alpha")
        await ask(pilot, "beta")
        await type_text(pilot, "al")
        await pilot.press("up")
        assert app.chat.box.text == "alpha"
        await pilot.press("down")
        assert app.chat.box.text == "al"


async def test_ctrl_c_clears_the_box_but_the_text_can_be_recalled(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "long thought")
        await pilot.press("ctrl+c")
        assert app.chat.box.text == ""
        await pilot.press("up")
        assert app.chat.box.text == "long thought"


async def test_ctrl_c_and_ctrl_d_leave_only_when_pressed_twice(make_app: MakeApp) -> None:
    for key in ("ctrl+c", "ctrl+d"):
        app = make_app()
        async with app.run_test(size=(100, 40)) as pilot:
            await ready(pilot)
            await pilot.press(key)
            await until(pilot, lambda app=app: "again to quit" in told(app))  # type: ignore[misc]
            assert app.return_code is None
            await pilot.press(key)
            await until(pilot, lambda app=app: app.return_code == 0)  # type: ignore[misc]


async def test_escape_does_nothing_when_nothing_runs(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "draft")
        await pilot.press("escape", "escape")
        assert app.chat.box.text == "draft"
        assert app.return_code is None


async def test_tab_completes_a_slash_command(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "/ren")
        await until(pilot, lambda: "/rename TITLE" in shown(app))
        await pilot.press("tab")
        assert app.chat.box.text == "/rename "


async def test_an_unknown_command_is_not_sent_to_the_model_and_can_be_mended(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/nonsense")
        await until(pilot, lambda: "no command /nonsense" in told(app))
        assert app.chat.box.text == "/nonsense"
        assert not app.chat.session.conversation.messages


async def test_a_remapped_key_does_the_action_and_the_old_one_does_not(
    make_app: MakeApp,
) -> None:
    app = make_app(config=Config(keymap={"mode": "f6"}))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await pilot.press("f6")
        await pilot.pause()
        assert app.chat.mode == "accuracy"
        await pilot.press("f3")
        await pilot.pause()
        assert app.chat.mode == "accuracy"


async def test_every_action_of_the_table_has_a_handler(make_app: MakeApp) -> None:
    app = make_app()
    in_the_box = {"send", "newline", "history-previous", "history-next", "complete"}
    for action in ACTIONS:
        if action.id not in in_the_box:
            assert hasattr(app._doer, f"do_{action.id.replace('-', '_')}"), action.id


async def test_a_key_that_fails_in_a_widget_is_told_and_the_app_goes_on(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        hits = OptionList("one", "two")
        hits.highlighted = 0
        # A list that was not laid out yet.
        await app.run_action("page_up", hits)
        await until(pilot, lambda: "That did not work" in told(app))
        await ask(pilot, "still there?")
    caplog.clear()


@pytest.mark.parametrize("opening", ["ctrl+o", "ctrl+l", "f1", "ctrl+p"])
async def test_a_screen_is_left_once_however_often_its_key_is_pressed(
    make_app: MakeApp, opening: str
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await pilot.press(opening)
        await until(pilot, lambda: app.screen is not app.chat)
        opened = app.screen
        opened.dismiss()
        opened.dismiss()
        await until(pilot, lambda: app.screen is app.chat)
        await ask(pilot, "still there?")


@pytest.mark.parametrize("way", ["/theme", "/palette", "/chats", "/model", "/help", "/preset"])
async def test_ctrl_c_leaves_every_screen_and_ctrl_q_the_program(
    make_app: MakeApp, way: str
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        theme = app.theme
        for key in ("ctrl+c", "ctrl+q"):
            await command(pilot, way)
            await until(pilot, lambda: app.screen is not app.chat)
            await pilot.press("down", key)
            if key == "ctrl+c":
                await until(pilot, lambda: app.screen is app.chat)
                assert app.theme == theme
        await until(pilot, lambda: not app.is_running)
        assert app.return_code == 0
