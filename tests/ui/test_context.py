"""What the screen says about the context window, and what it does when it is full."""

import threading

from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, ready, shown, until

from tui_chat.config import Config
from tui_chat.ui.user_turn import UserTurn

LONG = "word " * 200 + "end"


async def test_a_message_that_is_too_long_comes_back_into_the_box(make_app: MakeApp) -> None:
    app = make_app(config=Config(context_budget=150))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        before = app.chat.session.conversation
        app.chat.box.set_text(LONG)
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.box.text == LONG and not app.chat.busy)
        assert app.chat.session.conversation == before
        assert "needs about 208 tokens, but the context budget is 150" in " ".join(
            shown(app).split()
        )
        assert [view.text for view in app.chat.query(UserTurn)] == ["first"]
        app.chat.box.set_text("")
        await ask(pilot, "second")
        assert "context budget" not in shown(app)
        contents = [m.content for m in app.chat.session.conversation.messages[::2]]
        assert contents == ["first", "second"]


async def test_a_refused_message_does_not_stop_those_that_wait_or_the_draft(
    make_app: MakeApp,
) -> None:
    gate = threading.Event()
    app = make_app(config=Config(context_budget=150), gate=gate)
    async with app.run_test(size=(100, 40)) as pilot:
        for text in (LONG, "second"):
            app.chat.box.set_text(text)
            await pilot.press("enter")
        app.chat.box.set_text("a draft")
        gate.set()
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 2)
        await until(pilot, lambda: not app.chat.busy)
        assert app.chat.box.text == f"{LONG}\na draft"
        assert app.chat.session.conversation.messages[0].content == "second"
