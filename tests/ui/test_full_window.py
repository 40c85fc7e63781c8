"""What the screen says about the context window, and what it does when it is full."""

import threading

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, ready, shown, until

from tui_chat.chat import draft_meter
from tui_chat.config import Config
from tui_chat.types import Role
from tui_chat.ui import draft_counter
from tui_chat.ui.app import TuiChat
from tui_chat.ui.status_bar import StatusBar
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


def box_and_meter(app: TuiChat) -> tuple[int, int]:
    """Tokens of the prompt and of the draft that the status bar shows."""
    status = app.chat.query_one(StatusBar).status
    return status.prompt_tokens, status.draft_tokens


async def test_the_meter_follows_every_key_press(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever is counted after a pause, or slowly, would never come.
    monkeypatch.setattr(draft_counter, "COUNT_DELAY", 3600.0)
    monkeypatch.setattr(draft_meter, "QUICK_SECONDS", 3600.0)
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        app.chat.count()
        plan = app.chat.session.plan()
        assert plan is not None
        await until(pilot, lambda: box_and_meter(app)[0] == plan.prompt_tokens)
        for number in range(1, 6):
            await pilot.press("w", "space")
            await pilot.pause()
            assert box_and_meter(app) == (plan.prompt_tokens, number)
        assert "draft ≈5 tok" in shown(app)
        await pilot.press(*["backspace"] * 10)
        await pilot.pause()
        assert box_and_meter(app) == (plan.prompt_tokens, 0)


def dimmed(app: TuiChat) -> list[str]:
    return [view.text for view in app.chat.query(UserTurn) if view.has_class("-dropped")]


async def test_turns_that_will_not_be_sent_are_told_and_dimmed_before_sending(
    make_app: MakeApp,
) -> None:
    app = make_app(config=Config(context_budget=300))
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot)
        for number in range(5):
            await ask(pilot, f"question {number}")
        assert dimmed(app) == []
        app.chat.box.set_text("word " * 150)
        await until(pilot, lambda: dimmed(app) != [])
        plan = app.chat.session.plan(app.chat.box.text)
        assert plan is not None
        asked = [m.content for m in plan.dropped if m.role is Role.USER]
        assert dimmed(app) == asked
        count = len(asked)
        assert f"the oldest {count} turns will not be sent" in shown(app)
        tokens = sum(map(app.engine.count_message, plan.dropped))  # type: ignore[union-attr]
        line = f"The {count} turns above (≈{tokens:,} tok) do not fit any more and are not sent."
        assert line in shown(app)
        app.chat.box.set_text("")
        await until(pilot, lambda: dimmed(app) == [])
        assert "not sent" not in shown(app)
        app.chat.box.set_text("word " * 150)
        await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 12)
        await until(pilot, lambda: not app.chat.busy)
        assert dimmed(app)[:count] == asked


async def test_a_draft_that_is_too_long_even_alone_is_told_while_it_is_typed(
    make_app: MakeApp,
) -> None:
    app = make_app(config=Config(context_budget=150))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        app.chat.box.set_text(LONG)
        await until(pilot, lambda: "58 too many, even alone: shorten it" in shown(app))


async def test_a_chat_that_does_not_fit_any_more_says_so_when_it_is_opened(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        for number in range(4):
            await ask(pilot, f"question {number}")
        chat = app.open_log.id
    app = make_app(config=Config(context_budget=130))
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot)
        await app._doer.open_chat(chat)
        await until(pilot, lambda: "do not fit any more" in shown(app))
        plan = app.chat.session.plan()
        assert plan is not None and plan.dropped
        assert dimmed(app) == [m.content for m in plan.dropped if m.role is Role.USER]


async def test_the_line_about_turns_that_are_not_sent_stays_between_them_and_the_others(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        for number in range(14):
            await ask(pilot, f"question {number}")
        chat = app.open_log.id
    app = make_app(config=Config(context_budget=500))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await app._doer.open_chat(chat)
        await until(pilot, lambda: box_and_meter(app)[0] > 0)
        app.chat.transcript.go_to_top()
        await until(pilot, lambda: len(app.chat.query(UserTurn)) == 14)
        await until(pilot, lambda: len(app.chat.query(".dropped-notice")) == 1)
        views = list(app.chat.query(".user-turn, .dropped-notice"))
        (at,) = [n for n, view in enumerate(views) if view.has_class("dropped-notice")]
        assert 0 < at < len(views) - 1
        assert [view.has_class("-dropped") for view in views[:at]] == [True] * at
        assert not any(view.has_class("-dropped") for view in views[at:])
