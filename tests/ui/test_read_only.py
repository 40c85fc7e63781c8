"""A chat that another running copy writes: here it is read, and nothing is asked in it."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, until  # type: ignore[import-not-found]
from textual.pilot import Pilot

from tui_chat.config import Resume
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import Message, Role
from tui_chat.ui.app import TuiChat
from tui_chat.ui.message_view import AssistantTurn
from tui_chat.ui.user_turn import UserTurn

WHY = "This chat is open in another tui-chat; here it can be read, not continued."


@pytest.fixture
def held(tmp_path: Path) -> Iterator[str]:
    """The id of a chat that is open elsewhere."""
    log = ConversationStore(tmp_path).create(title="Held")
    start = datetime(2026, 3, 2, tzinfo=UTC)
    log.append(Message("u1", Role.USER, "first question", start))
    log.append(Message("a1", Role.ASSISTANT, "first answer", start, "u1", finish_reason="length"))
    yield log.conversation.id
    log.close()


def texts(app: TuiChat) -> list[str]:
    """The turns on the page."""
    turns = app.chat.query("UserTurn, AssistantTurn")
    return [
        turn.text if isinstance(turn, UserTurn) else turn.query_one("Reply").source  # type: ignore[attr-defined]
        for turn in turns
        if isinstance(turn, UserTurn | AssistantTurn)
    ]


async def refused(pilot: Pilot[int], app: TuiChat) -> None:
    """Wait for the refusal; the page is as it was."""
    await until(pilot, lambda: not app.chat.busy and "starts a new chat" in shown(app))
    assert texts(app) == ["first question", "first answer"]
    assert app.is_running and not app.failed


async def test_a_prompt_comes_back_into_the_box_and_a_new_chat_takes_it(
    make_app: MakeApp, held: str
) -> None:
    app = make_app(resume=Resume(held))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: WHY in shown(app))
        await command(pilot, "a question of mine")
        await refused(pilot, app)
        assert app.chat.box.text == "a question of mine"
        await pilot.press("enter")
        await refused(pilot, app)
        assert len(app.chat.query(".refused")) == 1
        app.chat.box.set_text("")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not app.chat.session.conversation.messages)
        await ask(pilot, "and here")


async def test_prompts_that_waited_for_the_model_come_back_in_their_order(
    make_app: MakeApp, held: str
) -> None:
    gate = threading.Event()
    app = make_app(resume=Resume(held), gate=gate)
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: WHY in shown(app))
        for text in ("one", "two", "three"):
            await command(pilot, text)
        gate.set()
        await refused(pilot, app)
        assert app.chat.box.text == "one\ntwo\nthree"


async def test_no_reply_is_written_again_continued_or_asked_otherwise(
    make_app: MakeApp, held: str
) -> None:
    app = make_app(resume=Resume(held))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: WHY in shown(app))
        for line in ("/regen", "/continue"):
            await command(pilot, line)
            await refused(pilot, app)
        await pilot.press("alt+up", "up", "e")
        await until(pilot, lambda: app.chat.box.text == "first question")
        await command(pilot, "another question")
        await refused(pilot, app)
        assert app.chat.box.text == "another question"
