import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import REPLY, MakeApp  # type: ignore[import-not-found]
from textual.events import Key
from textual.pilot import Pilot

from tui_chat.config import Config, LoadedConfig
from tui_chat.engine.base import PollSettings
from tui_chat.engine.echo import EchoEngine
from tui_chat.types import (
    EngineEvent,
    GenerationFinished,
    GenerationSettings,
    LoadProgress,
    Message,
    Mode,
    ModelSpec,
    ReplyMetrics,
    Role,
    TextDelta,
)
from tui_chat.ui.app import TuiChat
from tui_chat.ui.ink import InkText, OneLine
from tui_chat.ui.message_view import AssistantTurn, Reply
from tui_chat.ui.status_bar import Activity
from tui_chat.ui.user_turn import UserTurn


async def until(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    """Wait for the app to get there; the test's own time limit is far away."""
    for _ in range(400):
        await pilot.pause()
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the app never got there")


async def ready(pilot: Pilot[int]) -> TuiChat:
    app = pilot.app
    assert isinstance(app, TuiChat)
    await until(pilot, lambda: app.engine is not None)
    return app


async def ask(pilot: Pilot[int], text: str) -> None:
    """Type a prompt, send it and wait for the end of the reply."""
    app = pilot.app
    assert isinstance(app, TuiChat)
    before = len(app.chat.session.conversation.messages)
    await type_text(pilot, text)
    await pilot.press("enter")
    await until(
        pilot,
        lambda: not app.chat.busy and len(app.chat.session.conversation.messages) == before + 2,
    )


async def type_text(pilot: Pilot[int], text: str) -> None:
    names = {" ": "space", "/": "slash", "?": "question_mark", "\n": "ctrl+j"}
    for character in text:
        await pilot.press(names.get(character, character))


async def command(pilot: Pilot[int], line: str) -> None:
    app = pilot.app
    assert isinstance(app, TuiChat)
    app.chat.box.set_text(line)
    await pilot.press("enter")
    await pilot.pause()


def shown(app: TuiChat) -> str:
    """The whole screen as text."""
    return "\n".join(
        "".join(segment.text for segment in strip)
        for strip in app.screen._compositor.render_strips()
    )


def told(app: TuiChat) -> str:
    """The sentences of the toasts, which wrap on the screen."""
    return " ".join(notification.message for notification in app._notifications)


async def test_a_prompt_is_answered_shown_and_stored(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        screen = shown(app)
        assert "what matters?" in screen
        assert "dump the database first" in screen
        assert 'print("first block")' in screen
        assert app.screen.query_one(Reply).source == REPLY.rstrip()
    (path,) = (tmp_path / "chats").glob("*.jsonl")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert any("what matters?" in json.dumps(record) for record in records)
    assert any("That is all." in json.dumps(record) for record in records)


async def test_the_figures_stand_under_the_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        message = app.chat.session.conversation.messages[-1]
        assert message.metrics is not None
        line = next(row for row in shown(app).splitlines() if "tokenize" in row)
        assert f"{message.metrics.completion_tokens:,} tok" in line
        assert "prefill" in line and "tok/s" in line and line.rstrip().endswith("speed")


async def test_context_tells_all_figures_of_the_last_reply_at_any_width(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await ask(pilot, "one")
        await ask(pilot, "two")
        await command(pilot, "/context")
        await until(pilot, lambda: "last reply:" in shown(app))
        words = " ".join(shown(app).partition("last reply:")[2].split())
        for figure in ("tokenize", "prefill", "(reused", "total", "tok/s · speed"):
            assert figure in words
        assert words.index("tok/s") < words.index("total")


async def test_what_a_model_could_not_do_for_a_reply_is_said_once(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        engine = app.chat.session.engine
        assert isinstance(engine, EchoEngine)
        plain = engine.stream

        def noting(*arguments: Any) -> Iterator[EngineEvent]:
            for event in plain(*arguments):
                if isinstance(event, GenerationFinished):
                    metrics = replace(event.metrics, cache_note="a full window cannot be cut back")
                    event = replace(event, metrics=metrics)
                yield event

        engine.stream = noting  # type: ignore[method-assign]
        await ask(pilot, "one")
        await ask(pilot, "two")
        sentence = "the whole prompt was read again: a full window cannot be cut back"
        await command(pilot, "/context")
        page = "\n".join(str(line.render()) for line in app.screen.query(InkText))
        assert page.count(sentence) == 1


async def test_a_prompt_sent_while_the_model_loads_runs_when_it_is_ready(
    make_app: MakeApp,
) -> None:
    gate = threading.Event()
    app = make_app(gate=gate)
    async with app.run_test(size=(100, 40)) as pilot:
        await type_text(pilot, "early")
        await pilot.press("enter")
        await until(pilot, lambda: "waiting" in shown(app))
        assert app.engine is None
        gate.set()
        await until(pilot, lambda: "That is all." in shown(app))
        assert "waiting" not in shown(app)


async def test_a_prompt_that_waits_is_taken_back_with_the_arrow_from_an_empty_box(
    make_app: MakeApp,
) -> None:
    gate = threading.Event()
    app = make_app(gate=gate)
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: app.takes_keys.is_set())
        for text in ("first", "second"):
            await type_text(pilot, text)
            await pilot.press("enter")
        await until(pilot, lambda: "second  waiting · ↑ takes it back" in shown(app))
        assert app.chat.replies.waiting == ("first", "second")
        assert shown(app).count("takes it back") == 1
        await pilot.press("up")
        await until(pilot, lambda: app.chat.box.text == "second")
        assert app.chat.replies.waiting == ("first",)
        await until(pilot, lambda: shown(app).count("waiting") == 1)
        assert "first  waiting · ↑ takes it back" in shown(app)
        await pilot.press("up")  # the box is not empty: an earlier prompt is recalled, or none
        assert app.chat.replies.waiting == ("first",)
        gate.set()
        await until(pilot, lambda: "That is all." in shown(app) and not app.chat.busy)
        asked = [m.content for m in app.chat.session.conversation.messages if m.role is Role.USER]
        assert asked == ["first"] and app.chat.box.text == "second"


async def test_a_prompt_typed_before_the_first_frame_is_not_lost(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        for key in ("h", "i"):
            app.post_message(Key(key, key))
        app.post_message(Key("enter", "\r"))
        await until(pilot, lambda: "That is all." in shown(app))
        assert app.chat.session.conversation.messages[0].content == "hi"


async def test_prompts_sent_during_a_reply_are_answered_one_after_another(
    make_app: MakeApp,
) -> None:
    app = make_app(rate=100)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        for text in ("one", "two", "three"):
            await type_text(pilot, text)
            await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 6)
        asked = [m.content for m in app.chat.session.conversation.messages if m.role is Role.USER]
        assert asked == ["one", "two", "three"]


async def test_a_long_name_leaves_room_for_the_meter(make_app: MakeApp, tmp_path: Path) -> None:
    script = tmp_path / "A-Model-With-A-Long-Name-32B-Instruct.md"
    script.write_text("Yes.", encoding="utf-8")
    app = make_app(model=f"echo:{script}")
    async with app.run_test(size=(40, 15)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: "echo:A-Mode…" in shown(app) and "/8.2k" in shown(app))


async def test_a_narrow_status_bar_still_tells_the_mode(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(40, 15)) as pilot:
        await ready(pilot)
        await ask(pilot, "a first prompt")
        for mode in ("speed", "accuracy"):
            await until(pilot, lambda mode=mode: f" · {mode} " in shown(app).splitlines()[-1])
            assert "/8.2k" in shown(app).splitlines()[-1]
            await pilot.press("shift+tab")


async def test_a_narrow_row_still_tells_the_rate_and_the_key_that_stops(make_app: MakeApp) -> None:
    app = make_app(reply="word " * 2000, rate=200)
    async with app.run_test(size=(40, 15)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        row = app.screen.query_one(Activity)
        await until(pilot, lambda: "tok/s" in str(row.render()))
        await until(pilot, lambda: "Esc stop" in str(row.render()))
        assert "…" not in str(row.render())
        await pilot.press("escape")
        await until(pilot, lambda: not app.chat.busy)


async def test_prompts_that_waited_stand_before_their_replies(make_app: MakeApp) -> None:
    app = make_app(reply="word " * 40, rate=100)
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot)
        for prompt in ("first", "second", "third", "fourth"):
            await command(pilot, prompt)
        await until(pilot, lambda: "waiting" in shown(app))
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 8)
        await until(pilot, lambda: not app.chat.busy)
        page = [message_id for message_id, _ in app.chat.transcript._page.turns()]
        assert page == [message.id for message in app.chat.session.conversation.messages]


async def test_a_reply_that_goes_while_something_lies_over_it_ends_nothing(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        await pilot.press("ctrl+p")
        await until(pilot, lambda: app.screen is not app.chat)
        await app.chat.query_one(AssistantTurn).remove()
        app.screen.refresh()
        await pilot.pause()
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        assert "hello" in shown(app)


async def test_the_row_above_the_box_says_that_the_model_thinks(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        row = app.screen.query_one(Activity)
        for kind, verb in (("reasoning", "thinking"), ("content", "writing")):
            delta = TextDelta("so", kind, 9, 1.0)  # type: ignore[arg-type]
            row.show_writing(delta, below=False, stop_key="Esc", follow_key="End")
            await pilot.pause()
            assert f"{verb}  9 tok · 1.0 s · 8.0 tok/s" in str(row.render())


@pytest.mark.parametrize("columns", [80, 100, 140])
async def test_a_download_tells_how_far_and_fast_it_is_at_any_usual_width(
    make_app: MakeApp, columns: int
) -> None:
    app = make_app()
    detail = "Qwen/Qwen3-0.6B: 0.6 of 1.5 GB · 12.0 MB/s · 75 s left"
    progress = LoadProgress("downloading", 0.4, detail)
    async with app.run_test(size=(columns, 24)) as pilot:
        await ready(pilot)
        row = app.screen.query_one(Activity)
        row.show_loading(progress, below=False, stop_key="Ctrl+C", follow_key="End")
        await pilot.pause()
        told = str(row.render())
        assert "0.6 of 1.5 GB · 12.0 MB/s · 75 s left" in told and "Ctrl+C cancel" in told
        assert ("━" in told) is (columns >= 100)


async def test_escape_stops_the_reply_and_keeps_its_text(make_app: MakeApp) -> None:
    app = make_app(reply="word " * 4000, rate=200)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: "word word" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: not app.chat.busy)
        message = app.chat.session.conversation.messages[-1]
        assert message.status == "interrupted"
        assert message.finish_reason == "cancelled"
        assert message.content.startswith("word word")
        assert "stopped after" in shown(app)


async def test_the_mode_key_changes_the_mode_of_the_next_reply(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "first")
        await pilot.press("shift+tab")
        await ask(pilot, "second")
        replies = [m for m in app.chat.session.conversation.messages if m.role is Role.ASSISTANT]
        assert [reply.mode for reply in replies] == [Mode.SPEED, Mode.ACCURACY]
        assert "accuracy" in shown(app).splitlines()[-1]


async def test_the_mode_key_changes_the_mode_of_a_running_reply(make_app: MakeApp) -> None:
    app = make_app(reply="word " * 4000, rate=100)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: "word word" in shown(app))
        await pilot.press("shift+tab")
        await until(pilot, lambda: "from the next token on" in shown(app))
        assert "accuracy" in shown(app).splitlines()[-1]
        before = shown(app).count("word")
        await until(pilot, lambda: shown(app).count("word") > before + 5)
        await pilot.press("escape")
        await until(pilot, lambda: not app.chat.busy)
        message = app.chat.session.conversation.messages[-1]
        assert message.modes == (Mode.SPEED, Mode.ACCURACY)


def short_replies(limit: int) -> Config:
    settings = GenerationSettings(max_new_tokens=limit)
    return Config(speed=settings, accuracy=settings)


async def test_a_reply_that_was_cut_grows_in_place_when_it_is_continued(
    make_app: MakeApp,
) -> None:
    app = make_app(config=short_replies(24))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        cut = app.chat.session.conversation.messages[-1]
        assert cut.finish_reason == "length"
        assert "cut at 24 tok" in shown(app)
        assert f"{app.chat.key('continue')} continue" in shown(app)
        await pilot.press("f4")
        await until(pilot, lambda: "That is all." in shown(app) and not app.chat.busy)
        (view,) = app.screen.query(AssistantTurn)
        assert view.message_id == cut.id
        assert app.screen.query_one(Reply).source == REPLY.rstrip()
        assert shown(app).count("restic") == shown(app).count("/copy 1") == 1
        assert "in 2 parts" in shown(app) and "cut at" not in shown(app)
        assert len(app.chat.session.conversation.messages) == 2


async def test_a_stored_reply_that_was_cut_in_a_code_block_is_continued_in_the_block(
    make_app: MakeApp,
) -> None:
    script = "```python\none = 1\ntwo = 2\nthree = 3\nfour = 4\n```\n\nDone."
    app = make_app(reply=script, config=short_replies(9))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "code")
        cut = app.chat.session.conversation
        await command(pilot, "/new")
        await app._doer.open_chat(cut.id)
        await until(pilot, lambda: "two = 2" in shown(app))
        await command(pilot, "/continue")
        await until(pilot, lambda: "Done." in shown(app) and not app.chat.busy)
        assert app.screen.query_one(Reply).source == script
        assert shown(app).count("/copy") == shown(app).count("one = 1") == 1


async def test_an_unfinished_sentence_that_is_held_back_comes_with_the_continuation(
    make_app: MakeApp,
) -> None:
    script = "One is done. Two is not done yet."
    app = make_app(reply=script, config=replace(short_replies(5), trim_incomplete=True))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "go")
        assert app.screen.query_one(Reply).source == "One is done."
        await pilot.press("f4")
        await until(
            pilot, lambda: app.screen.query_one(Reply).source == script and not app.chat.busy
        )


async def test_nothing_is_offered_under_a_reply_that_is_no_longer_the_last(
    make_app: MakeApp,
) -> None:
    app = make_app(config=short_replies(5))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "one")
        await ask(pilot, "two")
        assert shown(app).count("cut at 5 tok") == 2
        assert shown(app).count(" continue") == 1


async def test_continue_says_so_when_there_is_nothing_to_continue(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        await command(pilot, "/continue")
        await until(pilot, lambda: "nothing to continue" in told(app))
        assert not app.chat.busy


async def test_regenerate_shows_the_new_reply_in_place_of_the_old(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        first = app.chat.session.conversation.messages[-1].id
        await pilot.press("ctrl+r")
        await until(pilot, lambda: app.chat.session.conversation.messages[-1].id != first)
        await until(pilot, lambda: not app.chat.busy)
        assert len(app.screen.query(AssistantTurn)) == 1
        last = app.chat.session.conversation.messages[-1]
        assert {m.id for m in app.open_log.siblings(last.id)} == {first, last.id}


async def test_a_new_start_finds_the_conversation(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "remember me")
        await pilot.press("ctrl+q")
    assert app.return_code == 0
    again = make_app()
    async with again.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "remember me" in shown(again))
        await pilot.press("enter")
        await until(pilot, lambda: len(again.screen.query(UserTurn)) == 1)
        assert "That is all." in shown(again)


async def test_new_chat_leaves_the_old_one_stored(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "old chat")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not app.screen.query(UserTurn))
        assert [summary.title for summary in app.store.summaries()] == ["old chat"]


async def test_a_chat_is_pinned_and_archived_by_command_and_both_are_taken_back(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/pin")
        assert told(app) == "This chat is empty."
        await ask(pilot, "hello")
        for line, flags in (
            ("/pin", (True, False)),
            ("/archive", (True, True)),
            ("/pin", (False, True)),
            ("/archive", (False, False)),
        ):
            await command(pilot, line)
            (summary,) = app.store.summaries()
            assert (summary.pinned, summary.archived) == flags
        assert "Back in the list." in told(app)


async def test_delete_moves_the_chat_to_the_trash_and_undo_brings_it_back(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "precious")
        await command(pilot, "/delete")
        await until(pilot, lambda: not app.store.summaries())
        assert list((tmp_path / "trash").glob("*.jsonl"))
        await command(pilot, "/undo")
        await until(pilot, lambda: len(app.screen.query(UserTurn)) == 1)
        assert "precious" in shown(app)


async def test_undo_brings_the_chats_back_from_the_last_deleted_to_the_first(
    make_app: MakeApp,
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/undo")
        await until(pilot, lambda: "nothing to bring back" in told(app))
        for title in ("first", "second", "third"):
            await ask(pilot, title)
            if title != "third":
                await command(pilot, "/delete")
                await until(pilot, lambda title=title: f'"{title}" is in the trash' in told(app))  # type: ignore[misc]
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "third" in shown(app) and app.screen is not app.chat)
        await pilot.press("ctrl+d")
        await until(pilot, lambda: not app.store.summaries())
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat and not app.screen.query(UserTurn))
        for title in ("third", "second", "first"):
            await command(pilot, "/undo")
            await until(pilot, lambda title=title: f'"{title}" is back' in told(app))  # type: ignore[misc]
            assert app.chat.session.conversation.messages[0].content == title
        assert {summary.title for summary in app.store.summaries()} == {"first", "second", "third"}


async def test_undo_waits_for_a_deletion_that_waits_for_the_model(make_app: MakeApp) -> None:
    gate = threading.Event()
    app = make_app(gate=gate)
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.pause()
        app.open_log.append(Message("u1", Role.USER, "kept", datetime.now(UTC)))
        await command(pilot, "/delete")
        await command(pilot, "/undo")
        assert not app.chat.session.conversation.messages
        gate.set()
        await until(pilot, lambda: bool(app.chat.session.conversation.messages))
        assert app.chat.session.conversation.messages[0].content == "kept"


async def test_deleting_the_open_chat_from_the_list_leaves_a_new_one(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "gone soon")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "gone soon" in shown(app))
        await pilot.press("ctrl+d")
        await until(pilot, lambda: not app.store.summaries())
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat and not app.screen.query(UserTurn))
        await ask(pilot, "fresh")
        assert [summary.title for summary in app.store.summaries()] == ["fresh"]


async def test_rename_changes_the_title_in_the_file(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        await command(pilot, "/rename Backups")
        assert [summary.title for summary in app.store.summaries()] == ["Backups"]


async def test_leaving_a_chat_while_it_is_answered_keeps_the_text(make_app: MakeApp) -> None:
    app = make_app(reply="word " * 4000, rate=200)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: "word word" in shown(app))
        left = app.chat.session.conversation.id
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.chat.session.conversation.id != left)
        await until(pilot, lambda: bool(app.store.summaries()))
        stored = app.store.open(left)
        await until(pilot, lambda: stored.conversation.messages[-1].status == "interrupted")
        stored.close()


async def test_quitting_during_a_reply_saves_what_was_written(make_app: MakeApp) -> None:
    app = make_app(reply="word " * 4000, rate=200)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: "word word" in shown(app))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: app.return_code == 0)
    (summary,) = app.store.summaries()
    stored = app.store.open(summary.id)
    assert stored.conversation.messages[-1].status == "interrupted"
    assert stored.conversation.messages[-1].content.startswith("word word")


async def test_a_model_that_cannot_be_loaded_leaves_the_app_usable(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(model=f"echo:{tmp_path}/missing.md")
    async with app.run_test(size=(100, 40)) as pilot:
        await until(pilot, lambda: "×" in shown(app))
        assert "no model" in shown(app)
        await command(pilot, f"/model echo:{tmp_path}/reply.md")
        await ready(pilot)
        await ask(pilot, "now?")
        assert "That is all." in shown(app)


async def test_the_system_prompt_of_the_config_is_sent(make_app: MakeApp) -> None:
    app = make_app(config=Config(system_prompt="Answer in rhyme."))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        plan = app.chat.session.plan("hello")
        assert plan is not None
        assert plan.kept[0].role is Role.SYSTEM
        assert plan.kept[0].content == "Answer in rhyme."


async def test_the_view_stays_where_the_reader_scrolled_to(make_app: MakeApp) -> None:
    app = make_app(reply="line\n\n" * 2000, rate=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.transcript.max_scroll_y > 30)
        await pilot.press("pageup")
        await pilot.pause()
        position = app.chat.transcript.scroll_y
        grown = app.chat.transcript.max_scroll_y
        await until(pilot, lambda: app.chat.transcript.max_scroll_y > grown + 5)
        assert app.chat.transcript.scroll_y == position
        await until(pilot, lambda: "new text below" in shown(app))
        await pilot.press("ctrl+end")
        await until(pilot, lambda: app.chat.transcript.at_end)
        await pilot.press("escape")
        await until(pilot, lambda: not app.chat.busy)


async def test_the_end_of_a_read_chat_is_no_new_text(make_app: MakeApp) -> None:
    app = make_app(reply="line\n\n" * 40)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await ask(pilot, "go")
        await pilot.press("pageup")
        await until(pilot, lambda: "more below  Ctrl+End to the end" in shown(app))
        assert "new text" not in shown(app)
        await pilot.press("ctrl+end")
        await until(pilot, lambda: "more below" not in shown(app))


async def test_a_reply_that_ended_out_of_sight_stays_new_until_it_is_scrolled_to(
    make_app: MakeApp,
) -> None:
    app = make_app(reply="line\n\n" * 100, rate=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.transcript.max_scroll_y > 30)
        await pilot.press("pageup")
        await until(pilot, lambda: not app.chat.busy)
        await until(pilot, lambda: "new text below" in shown(app) and "writing" not in shown(app))
        await pilot.press("ctrl+end")
        await until(pilot, lambda: app.chat.transcript.at_end)
        await pilot.press("pageup")
        await until(pilot, lambda: "more below" in shown(app))


async def test_text_of_the_model_is_neither_markup_nor_control_sequence(
    make_app: MakeApp,
) -> None:
    app = make_app(reply="[@click=app.quit]x[/] [/x] \x1b]52;c;YQ==\x07 \x9b31m <div>kept</div>")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "[/x] [bold]you")
        screen = shown(app)
        assert "[/x] [bold]you" in screen
        assert "[@click=app.quit]x[/] [/x]" in screen
        assert "<div>kept</div>" in screen
        assert not any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 for c in screen)


async def test_a_code_block_that_arrives_in_pieces_gets_its_language(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        view = await app.chat.transcript.open_reply("id")
        view.feed("```")
        await until(pilot, lambda: "/copy 1" in shown(app))
        view.feed("python\nprint(1)\n```\n")
        await until(pilot, lambda: "print(1)" in shown(app))
        head = next(row for row in shown(app).splitlines() if "/copy 1" in row)
        assert head.split() == ["python", "/copy", "1"]


async def test_a_click_on_a_link_copies_it_and_opens_nothing(make_app: MakeApp) -> None:
    opened: list[str] = []
    app = make_app(reply="[bank](https://evil.example/x)")
    app.open_url = lambda url, *, new_tab=True: opened.append(url)  # type: ignore[method-assign]
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "link")
        await pilot.click(Reply, offset=(1, 0))
        await until(pilot, lambda: "https://evil.example/x" in told(app))
        assert opened == []


async def test_what_is_no_web_link_is_shown_and_neither_opened_nor_copied(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url, *_, **__: opened.append(url))
    hrefs = (
        *("file:///etc/passwd", "/etc/passwd", "../../x", "--gpu-launcher=x", "-x", "%action"),
        *("ssh://host", "smb://host/x", "vscode://x", "javascript:alert(1)", "data:text/html,x"),
        *("http://[::1", "http://[bad]x/", "//host", "", "\x1b]8;;x\x07", "mailto:x@example.test"),
    )
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        app._doer.copy = lambda text, what: opened.append(text)  # type: ignore[method-assign]
        for href in hrefs:
            app.clear_notifications()
            app.action_link(href)
            await until(pilot, lambda: "Not a web link" in told(app))
            assert "\x1b" not in told(app)
        assert opened == []


async def test_copy_takes_the_raw_reply_or_one_code_block(
    make_app: MakeApp,
) -> None:
    app = make_app()
    copied: list[str] = []
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        app._doer.copy = lambda text, what: copied.append(text)  # type: ignore[method-assign]
        await pilot.press("ctrl+y")
        await command(pilot, "/copy 1")
        assert copied == [REPLY.rstrip(), 'print("first block")\n']


async def test_a_problem_in_the_config_file_is_told_on_the_screen(
    make_app: MakeApp,
) -> None:
    app = make_app(config=Config(theme="no-such-theme"))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await until(pilot, lambda: 'no theme "no-such-theme"' in told(app))
        assert app.theme == "tidepool"


async def test_the_meter_counts_the_draft(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "some words that are not sent yet")
        await until(pilot, lambda: "left" in str(app.screen.query_one("#hint", OneLine).render()))
        status = app.screen.query_one("#status-bar").status  # type: ignore[attr-defined]
        plan = app.chat.session.plan("some words that are not sent yet")
        assert plan is not None
        assert status.prompt_tokens + status.draft_tokens == plan.prompt_tokens


async def test_a_theme_of_the_user_can_be_set_and_replaces_a_shipped_one(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own" / "themes"
    folder.mkdir(parents=True)
    (folder / "tidepool.toml").write_text('name = "tidepool"\nprimary = "#123456"\n')
    (folder / "mine.toml").write_text('name = "mine"\nprimary = "#654321"\n')
    monkeypatch.setenv("TUI_CHAT_CONFIG_DIR", str(tmp_path / "own"))
    app = make_app(config=Config(theme="mine"))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert app.current_theme.primary == "#654321"
        await command(pilot, "/theme tidepool")
        assert app.current_theme.primary == "#123456"


class ForgetfulEngine(EchoEngine):
    """Runs out of memory in the middle of its third reply."""

    replies = 0

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        self.replies += 1
        for count, event in enumerate(super().stream(messages, settings, cancel)):
            if self.replies == 3 and count == 4:
                metrics = ReplyMetrics(completion_tokens=3)
                error = "Out of memory after 3 tokens; start a new chat."
                yield GenerationFinished("error", metrics, error=error, out_of_memory=True)
                return
            yield event


async def test_a_reply_that_runs_out_of_memory_goes_on_in_its_place_and_says_so(
    tmp_path: Path,
) -> None:
    script = tmp_path / "reply.txt"
    script.write_text("one two three four five six", encoding="utf-8")
    app = TuiChat(
        loaded=LoadedConfig(Config(), tmp_path / "config.toml"),
        spec=ModelSpec(f"echo:{script}"),
        data_dir=tmp_path,
        open_engine=lambda *_: ForgetfulEngine(script),
    )
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        for prompt in ("first", "second", "third"):
            await ask(pilot, prompt)
        last = app.chat.session.conversation.messages[-1]
        assert (last.status, last.content) == ("complete", "one two three four five six")
        page = shown(app)
        assert "the reply goes on without the oldest turn" in page
        assert page.count("one two three four five six") == 3
