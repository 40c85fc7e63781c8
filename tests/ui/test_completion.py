"""What is offered while one types, and what Tab, the arrows, Enter and Esc make of it."""

from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, told, type_text, until
from test_model_screen import save_model
from textual.pilot import Pilot

from tui_chat.config import Config
from tui_chat.ui.app import TuiChat
from tui_chat.ui.commands import ACTIONS, TYPING_ACTIONS
from tui_chat.ui.completion_list import ROWS, CompletionList


def offered(app: TuiChat) -> list[str]:
    """What the list holds, or nothing while it is closed."""
    return [candidate.shown for candidate in app.chat.box.completer.candidates]


async def offers(pilot: Pilot[int], *names: str) -> None:
    """Wait until exactly these are offered."""
    app = pilot.app
    assert isinstance(app, TuiChat)
    await until(pilot, lambda: offered(app) == list(names))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some files."""
    folder = tmp_path / "here"
    (folder / "sub dir").mkdir(parents=True)
    for name in ("alpha.txt", "Alphabet.md", "beta.txt", ".hidden", "sub dir/inner.txt"):
        (folder / name).write_text("some text\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    return folder


async def test_a_slash_lists_all_commands_and_typing_narrows_them(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "/")
        await until(pilot, lambda: len(offered(app)) > ROWS)
        assert len(offered(app)) == len(ACTIONS) - len(TYPING_ACTIONS)
        await type_text(pilot, "co")
        await offers(pilot, "/continue", "/copy [N]", "/copy-code [N]", "/copy-chat", "/context")
        await until(pilot, lambda: "go on with a cut-off reply" in shown(app))
        await pilot.press("escape")
        assert offered(app) == []
        await until(pilot, lambda: "go on with a cut-off reply" not in shown(app))
        assert app.chat.box.text == "/co"


async def test_the_arrows_walk_and_tab_takes(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "/co")
        await pilot.press("down", "down", "up", "tab")
        assert app.chat.box.text == "/copy "


async def test_enter_does_the_highlighted_command(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        await type_text(pilot, "/ne")
        await pilot.press("enter")
        await until(pilot, lambda: not app.chat.session.conversation.messages)
        assert app.chat.box.text == ""


async def test_a_command_that_needs_an_argument_waits_for_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        await type_text(pilot, "/ren")
        await pilot.press("enter")
        assert app.chat.box.text == "/rename "
        await type_text(pilot, "other")
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.session.conversation.title == "other")


async def test_a_command_without_a_name_goes_by_its_id(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/palette")
        await until(pilot, lambda: app.screen is not app.chat)


async def test_arguments_are_offered_where_there_is_a_set(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "about restic")
        for line, first in (
            ("/mode ", "speed"),
            ("/theme fore", "foreshore"),
            ("/copy a", "all"),
            ("/print ", "exit"),
            ("/preset n", "none"),
            ("/set temp", "temperature"),
            ("/chats rest", "about restic"),
            ("/model gui", "guide"),
        ):
            app.chat.box.set_text(line)
            await until(pilot, lambda first=first: offered(app)[:1] == [first])  # type: ignore[misc]


async def test_enter_takes_a_begun_argument_but_not_one_that_was_not_begun(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "/mode acc")
        await offers(pilot, "accuracy")
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.mode == "accuracy")
        await type_text(pilot, "/mode ")
        await offers(pilot, "speed", "accuracy")
        await pilot.press("enter")  # with nothing chosen it switches
        await until(pilot, lambda: app.chat.mode == "speed")
        await type_text(pilot, "/mode ")
        await offers(pilot, "speed", "accuracy")
        await pilot.press("down", "enter")
        await pilot.pause()
        assert app.chat.mode == "speed"


async def test_the_models_of_the_folders_of_the_config_are_offered(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tmp_path / "models" / "Small-Instruct")
    app = make_app(config=Config(model_dirs=("~/models",)))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "/model small")
        await offers(pilot, "~/models/Small-Instruct")
        await pilot.press("tab")
        assert app.chat.box.text == "/model ~/models/Small-Instruct"


async def test_a_chat_is_opened_by_its_title(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "about restic")
        await command(pilot, "/new")
        await type_text(pilot, "/chats ab")
        await offers(pilot, "about restic")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 2)


async def test_a_path_is_completed_after_an_at_sign(make_app: MakeApp, here: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "see @al")
        await offers(pilot, "alpha.txt", "Alphabet.md")
        await pilot.press("tab")
        assert app.chat.box.text == "see @alpha.txt "
        await type_text(pilot, "and @s")
        await offers(pilot, "sub dir/")
        await pilot.press("tab")
        assert app.chat.box.text == 'see @alpha.txt and @"sub dir/'
        await offers(pilot, "sub dir/inner.txt")
        await pilot.press("tab")
        assert app.chat.box.text == 'see @alpha.txt and @"sub dir/inner.txt" '
        await until(pilot, lambda: "+ inner.txt" in shown(app))


async def test_hidden_files_are_offered_when_a_dot_is_typed_and_the_home_by_its_sign(
    make_app: MakeApp, here: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "@")
        await offers(pilot, "alpha.txt", "Alphabet.md", "beta.txt", "sub dir/")
        await type_text(pilot, ".")
        await offers(pilot, ".hidden")
        app.chat.box.set_text("@~/be")
        await offers(pilot, "~/beta.txt")


async def test_enter_sends_a_message_although_paths_are_offered(
    make_app: MakeApp, here: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "hello @al")
        await offers(pilot, "alpha.txt", "Alphabet.md")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 2)
        assert app.chat.session.conversation.messages[0].content == "hello @al"


async def test_tab_waits_for_a_slow_folder(make_app: MakeApp, here: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "@be")
        await pilot.press("tab")
        await until(pilot, lambda: app.chat.box.text == "@beta.txt ")
        assert app.focused is app.chat.box


async def test_a_path_is_completed_for_attach(make_app: MakeApp, here: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "/attach sub")
        await offers(pilot, "sub dir/")
        await pilot.press("enter")
        assert app.chat.box.text == "/attach sub dir/"
        await offers(pilot, "sub dir/inner.txt")
        await pilot.press("tab", "enter")
        await until(pilot, lambda: "+ inner.txt" in shown(app))


async def test_a_click_takes_a_row(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "/co")
        await until(pilot, lambda: "/continue" in shown(app))
        await pilot.click(CompletionList, offset=(5, 1))
        assert app.chat.box.text == "/copy "
        assert app.focused is app.chat.box


async def test_the_list_does_not_come_between_the_prompts_that_are_recalled(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "alpha")
        await command(pilot, "/mode")
        await pilot.press("up")
        assert app.chat.box.text == "/mode"
        await pilot.press("up")
        assert app.chat.box.text == "alpha"


async def test_every_action_is_in_the_palette(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        await pilot.press("f8")  # walking, so that there is a message to act on
        there = {action.id for action in app.palette_actions()}
        assert [action.id for action in ACTIONS if action.id not in there] == ["palette"]


async def test_what_the_palette_does_for_the_box_is_done_in_the_box(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "one")
        await app._doer.do("newline", None)
        await type_text(pilot, "two")
        await app._doer.do("send", None)
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 2)
        assert app.chat.session.conversation.messages[0].content == "one\ntwo"
        await app._doer.do("history-previous", None)
        assert app.chat.box.text == "one\ntwo"


async def test_an_action_with_an_argument_is_begun_in_an_empty_box(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await app._doer.do("rename", None)
        assert app.chat.box.text == "/rename "
        app.chat.box.set_text("a draft")
        await app._doer.do("attach", None)
        assert app.chat.box.text == "a draft"
        await until(pilot, lambda: "Write @ and the path" in told(app))
