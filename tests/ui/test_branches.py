"""Walking from message to message, and what can be done there."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import REPLY, MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, short_replies, shown, told, type_text, until
from textual.events import Key, Paste
from textual.pilot import Pilot

from tui_chat.config import Config
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import Message, Role
from tui_chat.ui.app import TuiChat
from tui_chat.ui.message_view import AssistantTurn
from tui_chat.ui.status_bar import StatusBar
from tui_chat.ui.user_turn import UserTurn

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def stored(folder: Path, turns: int, reply: str = "reply") -> str:
    """A chat of some turns, as an earlier run left it; returns its id."""
    log = ConversationStore(folder).create(title="Stored")
    parent = None
    for number in range(1, turns + 1):
        for message_id, role, text in (
            (f"u{number}", Role.USER, f"question {number}"),
            (f"a{number}", Role.ASSISTANT, f"{reply} {number}"),
        ):
            log.append(Message(message_id, role, text, START, parent, reasoning=""))
            parent = message_id
    log.close()
    return log.id


async def opened(pilot: Pilot[int], chat_id: str) -> TuiChat:
    app = await ready(pilot)
    await app._doer.open_chat(chat_id)
    await until(pilot, lambda: bool(app.screen.query(AssistantTurn)))
    return app


def walked(app: TuiChat) -> str | None:
    """Id of the one message that has the bar, as the page shows it."""
    marked = [view.message_id for view in app.screen.query(".-selected")]  # type: ignore[attr-defined]
    assert len(marked) <= 1
    return marked[0] if marked else None


def texts(app: TuiChat) -> list[str]:
    return [message.content for message in app.chat.session.conversation.messages]


def on_page(app: TuiChat) -> list[str]:
    """The ids of the mounted messages, from top to bottom."""
    views = app.screen.query(".user-turn, .assistant-turn")
    return [view.message_id for view in views]  # type: ignore[attr-defined]


def row_above_box(app: TuiChat) -> str:
    return shown(app).splitlines()[-4]


async def settled(pilot: Pilot[int], app: TuiChat) -> None:
    await until(pilot, lambda: not app.chat.busy)


async def test_the_bar_goes_from_message_to_message_and_back_to_the_box(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 3))
        await type_text(pilot, "draft")
        path = []
        for key in ("alt+up", "alt+up", "up", "k", "down", "j", "alt+down"):
            await pilot.press(key)
            path.append(walked(app))
        assert path == ["a3", "u3", "a2", "u2", "a2", "u3", "a3"]
        assert "y copy  e edit  r again  x leave out" in row_above_box(app)
        assert row_above_box(app).rstrip().endswith("Esc back")
        assert app.focused is not app.chat.box
        await pilot.press("down")
        assert (walked(app), app.focused) == (None, app.chat.box)
        await pilot.press("alt+up", "escape")
        assert (walked(app), app.focused) == (None, app.chat.box)
        assert app.chat.box.text == "draft"
        assert "copy" not in row_above_box(app)


@pytest.mark.parametrize("order", ["again first", "prompt first"])
async def test_a_prompt_and_another_version_asked_at_once_are_one_after_the_other(
    make_app: MakeApp, order: str
) -> None:
    app = make_app(reply="word " * 20, rate=300)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        chat = app.chat
        first = chat.session.conversation.messages[0].id
        works = [chat.branches.regenerate(first), chat.replies.ask("second")]
        await asyncio.gather(*(works if order == "again first" else reversed(works)))
        await until(pilot, lambda: not chat.busy and not chat.replies.waiting)
        messages = chat.session.conversation.messages
        assert [message.content for message in messages if message.role is Role.USER] == [
            "first",
            "second",
        ]
        assert all(m.status == "complete" for m in messages)
        page = [message_id for message_id, _ in chat.transcript._page.turns()]
        assert page == [message.id for message in messages]


async def test_what_changes_the_chat_is_offered_once_no_reply_runs(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="word " * 2000, rate=100)
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 3))
        await command(pilot, "go")
        await until(pilot, lambda: "word" in shown(app))
        await pilot.press("alt+up", "alt+up", "alt+up")
        assert row_above_box(app).split()[:2] == ["y", "copy"]
        assert "edit" not in row_above_box(app) and "leave out" not in row_above_box(app)
        app.chat.replies.stop()
        await until(pilot, lambda: "e edit  r again  x leave out" in row_above_box(app))


async def test_walking_starts_with_tab_f8_and_a_command_too(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        for start in ("tab", "f8"):
            await pilot.press(start)
            assert walked(app) == "a2"
            await pilot.press("escape" if start == "f8" else "tab")
            assert (walked(app), app.focused) == (None, app.chat.box)
        await command(pilot, "/walk")
        await until(pilot, lambda: walked(app) == "a2")


async def test_typing_and_pasting_while_walking_goes_into_the_box(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        await pilot.press("alt+up")
        await type_text(pilot, "/chats")
        assert app.chat.box.text == "/chats"
        assert walked(app) is None
        await pilot.press("alt+up")
        app.post_message(Paste(" y and more"))
        await until(pilot, lambda: app.chat.box.text == "/chats y and more")
        assert walked(app) is None


async def test_keys_that_come_at_once_mean_the_message_or_the_box_by_their_order(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    copied: list[str] = []
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        app._doer.copy = lambda text, what: copied.append(text)  # type: ignore[method-assign]
        for key in ("alt+up", "y", "slash", "x", "e", "y"):
            character = "/" if key == "slash" else key if len(key) == 1 else None
            app.post_message(Key(key, character))
        await until(pilot, lambda: app.chat.box.text == "/xey")
        assert copied == ["reply 2"]
        assert not any(m.excluded for m in app.chat.session.conversation.messages)


async def test_walking_up_mounts_what_is_earlier(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 20)) as pilot:
        await opened(pilot, stored(tmp_path, 30))
        assert "u1" not in on_page(app)
        for _ in range(60):
            await pilot.press("alt+up")
        await until(pilot, lambda: "question 1 " in shown(app))
        assert walked(app) == "u1"
        await pilot.press("up")
        assert walked(app) == "u1"


async def test_walking_starts_at_what_is_being_read(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 20)) as pilot:
        await opened(pilot, stored(tmp_path, 6))
        await pilot.press("pageup")
        await pilot.pause()
        last = re.findall(r"reply (\d+)", shown(app))[-1]
        await pilot.press("alt+up")
        assert walked(app) in (f"a{last}", f"u{int(last) + 1}")


async def test_there_is_nothing_to_walk_to_in_an_empty_chat(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await pilot.press("alt+up")
        await until(pilot, lambda: "no message to walk to" in told(app))
        await pilot.press("tab")
        assert app.focused is not None and app.focused.id == "starters"


async def test_y_copies_the_raw_text_of_the_message(make_app: MakeApp) -> None:
    app = make_app()
    copied: list[str] = []
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "*what* matters?")
        app._doer.copy = lambda text, what: copied.append(text)  # type: ignore[method-assign]
        await pilot.press("alt+up", "y", "up", "y")
        assert copied == [REPLY.rstrip(), "*what* matters?"]


async def test_an_edited_prompt_is_asked_on_a_new_branch_and_the_draft_comes_back(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="fresh answer")
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 3))
        await type_text(pilot, "draft")
        await pilot.press("alt+up", "up", "up", "up", "e")
        assert app.chat.box.text == "question 2"
        assert "editing your message" in row_above_box(app)
        assert walked(app) == "u2"
        await type_text(pilot, " b")
        await pilot.press("enter")
        await until(pilot, lambda: texts(app)[-1] == "fresh answer" and not app.chat.busy)
        assert texts(app) == ["question 1", "reply 1", "question 2 b", "fresh answer"]
        assert app.chat.box.text == "draft"
        assert "question 2 b  ‹2/2›" in shown(app)
        assert "question 3" not in shown(app)
        assert walked(app) is None and "editing" not in row_above_box(app)
        # From the box: the last turn that has versions.
        await pilot.press("alt+left")
        await until(pilot, lambda: texts(app)[-1] == "reply 3")
        assert on_page(app) == ["u1", "a1", "u2", "a2", "u3", "a3"]
        assert "question 2  ‹1/2›" in shown(app)


async def test_escape_gives_an_edit_up_and_the_changed_text_can_be_recalled(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 1))
        await type_text(pilot, "draft")
        await pilot.press("alt+up", "up", "e")
        await type_text(pilot, "!")
        await pilot.press("escape")
        assert app.chat.box.text == "draft"
        assert walked(app) is None and "editing" not in row_above_box(app)
        await pilot.press("ctrl+c", "up", "up")
        assert app.chat.box.text == "question 1!"
        assert texts(app) == ["question 1", "reply 1"]


async def test_an_edited_prompt_that_is_too_long_stays_in_the_box_to_be_shortened(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="fresh", config=Config(context_budget=60))
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        await command(pilot, "/fork")
        app.chat.box.set_text("word " * 100)
        await pilot.press("enter")
        await until(pilot, lambda: "shorten it" in told(app))
        assert app.chat.box.text == "word " * 100
        assert "editing your message" in shown(app)
        assert on_page(app) == ["u1", "a1", "u2", "a2"]
        app.chat.box.set_text("word")
        await pilot.press("enter")
        await until(pilot, lambda: texts(app)[-2:] == ["word", "fresh"] and not app.chat.busy)


async def test_an_edited_prompt_that_looks_like_a_command_is_sent(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 1))
        await command(pilot, "/fork")
        assert app.chat.box.text == "question 1"
        app.chat.box.set_text("/help")
        await pilot.press("enter")
        await until(pilot, lambda: texts(app)[0] == "/help" and not app.chat.busy)


async def test_leaving_the_chat_gives_an_edit_up_and_keeps_the_draft(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 1))
        await type_text(pilot, "draft")
        await pilot.press("alt+up", "e", "ctrl+n")
        await until(pilot, lambda: not app.screen.query(UserTurn))
        assert "editing" not in row_above_box(app)
        assert "reply 1" not in app.chat.box.text


async def test_switching_the_branch_gives_an_edit_up(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(reply="fresh")
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        await pilot.press("ctrl+r")
        await until(pilot, lambda: texts(app)[-1] == "fresh" and not app.chat.busy)
        for key in ("alt+left", "ctrl+r"):
            await command(pilot, "/amend")
            app.chat.box.set_text("changed")
            await pilot.press(key)
            await settled(pilot, app)
            assert "editing" not in row_above_box(app)
            assert app.chat.box.text == ""
            assert "changed" not in texts(app)


async def test_a_kill_during_an_edit_loses_neither_the_draft_nor_the_edit(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    chat_id = stored(tmp_path, 1)
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, chat_id)
        await type_text(pilot, "draft")
        await pilot.press("alt+up", "up", "e")
        app.chat.drafts.save_now()
        assert app.chat._unsent().text == "draft"
        await type_text(pilot, "!")
        app.chat.drafts.save_now()
        assert app.chat._unsent().text == "draft\nquestion 1!"
        await pilot.press("escape")
        assert app.chat._unsent().text == "draft"


async def test_an_edited_reply_is_a_version_that_can_be_continued(make_app: MakeApp) -> None:
    app = make_app(reply="one two three four")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "count")
        await pilot.press("alt+up", "e")
        assert "editing the reply" in row_above_box(app)
        app.chat.box.set_text("one two")
        await pilot.press("enter")
        await until(pilot, lambda: texts(app) == ["count", "one two"])
        await until(pilot, lambda: "‹2/2›  edited by you" in shown(app))
        assert app.chat.box.text == ""
        await pilot.press("alt+up")
        assert "c continue" in row_above_box(app)
        await pilot.press("c")
        await until(pilot, lambda: texts(app) == ["count", "one two three four"])
        await settled(pilot, app)
        assert "one two three four" in shown(app)
        assert "‹2/2›  edited by you" in shown(app)
        assert len(app.screen.query(AssistantTurn)) == 1
        assert app.focused is app.chat.box


async def test_an_unchanged_reply_is_no_new_version(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        await command(pilot, "/amend 2")
        assert app.chat.box.text == "reply 1"
        await pilot.press("enter")
        await until(pilot, lambda: "editing" not in row_above_box(app))
        assert len(app.open_log.siblings("a1")) == 1
        assert texts(app)[-1] == "reply 2"


async def test_any_reply_is_written_again_and_its_branch_is_kept(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="fresh")
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 3))
        await pilot.press("alt+up", "up", "up", "r")
        await until(pilot, lambda: texts(app)[-1] == "fresh" and not app.chat.busy)
        assert texts(app) == ["question 1", "reply 1", "question 2", "fresh"]
        assert "‹2/2›" in shown(app) and "question 3" not in shown(app)
        await command(pilot, "/regen 2")
        await until(pilot, lambda: texts(app) == ["question 1", "fresh"] and not app.chat.busy)
        assert "question 2" not in shown(app)
        await command(pilot, "/version 1")
        await until(pilot, lambda: texts(app)[-1] == "fresh" and len(texts(app)) == 4)
        await command(pilot, "/version 1")
        await until(pilot, lambda: texts(app)[-1] == "reply 3")


async def test_versions_are_switched_with_everything_below_and_open_where_they_were_left(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="fresh")
    async with app.run_test(size=(100, 40)) as pilot:
        chat_id = stored(tmp_path, 2)
        await opened(pilot, chat_id)
        await pilot.press("alt+up", "up", "up", "r")
        await until(pilot, lambda: texts(app) == ["question 1", "fresh"] and not app.chat.busy)
        await ask(pilot, "more")
        await pilot.press("alt+up", "up", "up", "left")
        await until(pilot, lambda: texts(app)[-1] == "reply 2")
        assert walked(app) == "a1"
        assert "←→" in row_above_box(app)
        assert "‹1/2›" in shown(app) and "more" not in shown(app)
        await pilot.press("right")
        await until(pilot, lambda: texts(app) == ["question 1", "fresh", "more", "fresh"])
        assert "‹2/2›" in shown(app) and "more" in shown(app)
        await pilot.press("right")
        await until(pilot, lambda: "There are 2 versions" in told(app))
        await pilot.press("left")
        await until(pilot, lambda: texts(app)[-1] == "reply 2")
    again = ConversationStore(tmp_path).open(chat_id)
    assert [m.content for m in again.conversation.messages][-1] == "reply 2"


async def test_switching_versions_leaves_the_page_where_it_is(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="fresh\n\n" * 40)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, stored(tmp_path, 12))
        await pilot.press("alt+up", *["up"] * 10)
        assert walked(app) == "a7"
        await pilot.press("r")
        await until(pilot, lambda: len(texts(app)) == 14 and not app.chat.busy)
        await pilot.press("alt+up")
        await pilot.pause()
        view = app.chat.transcript.view_of(app.chat.walk.message_id or "")
        assert view is not None
        row = view.region.y
        for key, end in (("left", "reply 12"), ("right", "fresh"), ("left", "reply 12")):
            await pilot.press(key)
            await until(pilot, lambda end=end: texts(app)[-1].endswith(end))  # type: ignore[misc]
            await pilot.pause()
            view = app.chat.transcript.view_of(app.chat.walk.message_id or "")
            assert view is not None and view.region.y == row


async def test_there_is_nothing_to_switch_where_there_is_one_version(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 1))
        await pilot.press("alt+right")
        await until(pilot, lambda: "one version only; Ctrl+R" in told(app))
        await command(pilot, "/version two")
        await until(pilot, lambda: "/version 2" in told(app))
        assert "‹" not in shown(app)


async def test_a_turn_that_is_left_out_is_shown_muted_and_counted_at_once(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 3))

        def counted() -> int:
            return app.screen.query_one(StatusBar).status.prompt_tokens

        await until(pilot, lambda: counted() > 0)
        whole = counted()
        await pilot.press("alt+up", "up", "up", "x")
        assert "x take in" in row_above_box(app)
        await until(pilot, lambda: counted() < whole)
        assert shown(app).count("╏ left out") == 2
        assert [m.excluded for m in app.chat.session.conversation.messages] == [
            *(False, False, False),
            *(True, False, False),
        ]
        out = [view.message_id for view in app.screen.query(".-left-out")]  # type: ignore[attr-defined]
        assert out == ["u2", "a2"]
        await pilot.press("up", "x")  # the question of the same turn
        await until(pilot, lambda: counted() == whole)
        assert "left out" not in shown(app).replace("x leave out", "")
        await pilot.press("escape")
        await command(pilot, "/exclude 2")
        await until(pilot, lambda: "left out of the context" in told(app))
        await until(pilot, lambda: counted() < whole)
        await command(pilot, "/context")
        await until(pilot, lambda: "╏ 1 turn is left out by you" in shown(app))
        await ask(pilot, "next")
        plan = app.chat.session.plan("more")
        assert plan is not None
        assert "question 2" not in [m.content for m in plan.kept]


async def test_a_left_out_turn_is_shown_so_when_the_chat_is_opened_again(
    make_app: MakeApp, tmp_path: Path
) -> None:
    chat_id = stored(tmp_path, 2)
    log = ConversationStore(tmp_path).open(chat_id)
    log.exclude("a1", True)
    log.close()
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, chat_id)
        await until(pilot, lambda: shown(app).count("╏ left out") == 2)


async def test_enter_opens_and_folds_the_reasoning(make_app: MakeApp, tmp_path: Path) -> None:
    log = ConversationStore(tmp_path).create()
    log.append(Message("u1", Role.USER, "why", START))
    reply = Message("a1", Role.ASSISTANT, "so", START, "u1", reasoning="because of that")
    log.append(reply)
    log.close()
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, log.id)
        await pilot.press("alt+up")
        assert "Enter unfold" in row_above_box(app)
        await pilot.press("enter")
        await until(pilot, lambda: "│ because of that" in shown(app))
        assert "Enter fold" in row_above_box(app)
        await pilot.press("enter")
        await until(pilot, lambda: "because of that" not in shown(app))
        await pilot.press("up", "enter")
        assert app.chat.box.text == "why"
        assert "editing your message" in row_above_box(app)


async def test_nothing_is_changed_while_a_reply_is_written(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(reply="word " * 4000, rate=50)
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: "word word" in shown(app))
        before = app.open_log.siblings("a2")
        await pilot.press("alt+up", "up", "up")
        for key in ("e", "r", "x", "left"):
            await pilot.press(key)
        assert told(app).count("still being written") == 4
        assert app.open_log.siblings("a2") == before
        assert app.chat.busy and app.chat.box.text == ""
        assert walked(app) == "a2"
        # Escape first leads back to the box, and only there stops the reply.
        await pilot.press("escape")
        assert app.chat.busy and walked(app) is None
        await pilot.press("escape")
        await settled(pilot, app)


async def test_keys_of_the_messages_can_be_changed(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app(config=Config(keymap={"message-exclude": "d", "walk-up": "f9"}))
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))
        await pilot.press("f9")
        assert "d leave out" in row_above_box(app)
        await pilot.press("d")
        assert app.chat.session.conversation.messages[-1].excluded
        await pilot.press("x")
        assert (app.chat.box.text, walked(app)) == ("x", None)


async def test_the_palette_means_the_message_that_was_walked_to(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, stored(tmp_path, 2))

        def titles() -> list[str]:
            return [action.help for action in app.palette_actions()]

        assert "copy this message as raw Markdown" not in titles()
        await pilot.press("alt+up", "up", "up", "up")
        assert "copy this message as raw Markdown" in titles()
        await pilot.press("ctrl+p")
        await type_text(pilot, "leave this turn out")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.session.conversation.messages[0].excluded)


async def test_an_edit_of_a_cut_reply_keeps_what_was_held_back_out(make_app: MakeApp) -> None:
    app = make_app(
        reply="One is done. Two is not done yet.",
        config=replace(short_replies(5), trim_incomplete=True),
    )
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "go")
        await command(pilot, "/amend")
        assert app.chat.box.text == "One is done."
        app.chat.box.set_text("One is done. Two")
        await pilot.press("enter")
        await until(pilot, lambda: texts(app)[-1] == "One is done. Two")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: texts(app)[-1] == "One is done. Two is not done yet.")
        await settled(pilot, app)
