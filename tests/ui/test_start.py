"""Which chat is there at the start: --continue and --resume."""

import threading
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ready, shown, told, type_text, until
from test_library import add_chat

from tui_chat.config import Config, Resume
from tui_chat.store.conversations import ConversationStore
from tui_chat.ui.library_screen import LibraryScreen
from tui_chat.ui.prompt_input import PromptInput
from tui_chat.ui.search_list import SearchField


@pytest.fixture
def chats(tmp_path: Path) -> list[str]:
    """Ids of stored chats, the oldest first."""
    store = ConversationStore(tmp_path)
    return [add_chat(store, f"Chat {day}", f"prompt {day}", day) for day in (1, 2, 3)]


async def test_continue_opens_the_chat_that_was_used_last(
    make_app: MakeApp, chats: list[str]
) -> None:
    app = make_app(resume=Resume(None))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert app.chat.session.conversation.id == chats[-1]
        assert "prompt 3" in shown(app)
        await type_text(pilot, "more")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 4)


async def test_continue_without_a_chat_says_so_and_starts_a_new_one(make_app: MakeApp) -> None:
    app = make_app(resume=Resume(None))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert told(app) == "There is no chat to continue yet."
        assert app.chat.session.conversation.messages == ()


async def test_resume_with_an_id_opens_that_chat(make_app: MakeApp, chats: list[str]) -> None:
    app = make_app(resume=Resume(chats[0][:-1]))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert app.chat.session.conversation.id == chats[0]
        assert not isinstance(app.screen, LibraryScreen)


@pytest.mark.parametrize("text", ["", "prompt 2", "2"])
async def test_resume_with_anything_else_opens_the_library(
    make_app: MakeApp, chats: list[str], text: str
) -> None:
    app = make_app(resume=Resume(text))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: isinstance(app.screen, LibraryScreen))
        assert app.screen.query_one("#library-find", SearchField).value == text
        await until(pilot, lambda: "Chat 2" in shown(app))
        if text == "prompt 2":
            await until(pilot, lambda: "1 hit in 1 chat" in shown(app))
            await pilot.press("enter")
            await until(pilot, lambda: app.chat.session.conversation.id == chats[1])
        await pilot.press("escape")


async def test_a_prompt_that_was_typed_at_once_goes_to_the_chat_that_is_continued(
    make_app: MakeApp, chats: list[str]
) -> None:
    gate = threading.Event()
    app = make_app(resume=Resume(None), gate=gate)
    show_first = app.chat.sessions.show_first

    async def sent_before(session: object) -> None:
        await app.chat.submit(PromptInput.Submitted("typed early"))
        await show_first(session)  # type: ignore[arg-type]

    app.chat.sessions.show_first = sent_before  # type: ignore[method-assign]
    try:
        async with app.run_test(size=(100, 40)) as pilot:
            await until(pilot, lambda: app.takes_keys.is_set())
            screen = shown(app)
            assert screen.index("prompt 3") < screen.index("typed early") < screen.index("waiting")
            gate.set()
            await until(pilot, lambda: len(app.chat.session.conversation.messages) == 4)
            assert app.chat.session.conversation.id == chats[-1]
            assert shown(app).count("typed early") == 1
    finally:
        gate.set()


async def test_the_problems_of_many_files_share_one_toast(make_app: MakeApp, home: Path) -> None:
    folder = home / "config" / "themes"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.toml").write_text("nam = 1\n")
    app = make_app(config=Config(theme="nowhere"))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: bool(app._notifications))
        (toast,) = app._notifications
        assert "Theme 0.toml on line 1: nam" in toast.message
        assert "5 more problems; tui-chat config names them all." in toast.message
