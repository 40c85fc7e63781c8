"""What is typed and not sent survives a switch of chats, the end, and a kill."""

import json
import threading
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, type_text, until
from textual.pilot import Pilot

from tui_chat.store.drafts import NEW_CHAT, Draft, Drafts
from tui_chat.ui.app import TuiChat


def stored(folder: Path) -> list[Draft]:
    """The drafts on the disk."""
    found = []
    for path in sorted((folder / "drafts").glob("*.json")):
        record = json.loads(path.read_bytes())
        found.append(Draft(record["text"], tuple(record["queued"]), tuple(record["files"])))
    return found


async def quit_app(pilot: Pilot[int]) -> None:
    app = pilot.app
    await pilot.press("ctrl+q")
    for _ in range(400):
        if app._exit:
            return
        await pilot.pause(0.02)
    raise AssertionError("the app does not end")


async def test_each_chat_keeps_its_own_draft(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "first chat")
        first = app.chat.session.conversation.id
        await type_text(pilot, "more of it")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.chat.session.conversation.id != first)
        assert app.chat.box.text == ""
        await type_text(pilot, "half a new one")
        await app._doer.open_chat(first)
        assert app.chat.box.text == "more of it"
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.chat.box.text == "half a new one")


async def test_a_draft_comes_back_after_a_restart(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "kept\nfor later")
        await quit_app(pilot)
    assert stored(tmp_path) == [Draft("kept\nfor later")]
    again = make_app()
    async with again.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert again.chat.box.text == "kept\nfor later"
        await pilot.press("enter")
        await until(pilot, lambda: not stored(tmp_path))
    third = make_app()
    async with third.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert third.chat.box.text == ""


async def test_attached_files_come_back_after_a_restart_also_in_another_folder(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("to keep\n")
    monkeypatch.chdir(tmp_path)
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/attach notes.txt")
        kept = Draft("", (), (str(tmp_path / "notes.txt"),))
        await until(pilot, lambda: stored(tmp_path) == [kept])  # a kill would not lose it either
        await quit_app(pilot)
    again = make_app()
    async with again.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert again.chat.desk.attached == ["notes.txt"]
        await until(pilot, lambda: "+ notes.txt" in shown(again))
        await type_text(pilot, "look")
        await quit_app(pilot)
    monkeypatch.chdir("/")
    third = make_app()
    async with third.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert third.chat.box.text == "look"
        await pilot.press("enter")
        await until(pilot, lambda: len(third.chat.session.conversation.messages) == 2)
        assert "to keep" in third.chat.session.conversation.messages[0].content
        await until(pilot, lambda: not stored(tmp_path))
        assert not third.chat.desk.attached


async def test_a_draft_is_written_while_it_is_typed(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "one")
        await until(pilot, lambda: stored(tmp_path) == [Draft("one")])
        await type_text(pilot, " two")
        await until(pilot, lambda: stored(tmp_path) == [Draft("one two")])
        await pilot.press("ctrl+c")  # clears the box
        await until(pilot, lambda: not stored(tmp_path))


async def test_while_earlier_prompts_are_recalled_the_draft_is_what_was_typed(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello there")
        await type_text(pilot, "hel")
        await pilot.press("up")
        assert app.chat.box.text == "hello there"
        await quit_app(pilot)
    assert stored(tmp_path) == [Draft("hel")]


async def test_what_is_typed_next_while_a_reply_runs_belongs_to_the_chat(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(rate=20.0)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.chat.session.conversation.messages))
        await type_text(pilot, "and then")
        await until(pilot, lambda: stored(tmp_path) == [Draft("and then")])
        (path,) = (tmp_path / "drafts").iterdir()
        assert path.stem == app.chat.session.conversation.id
        await pilot.press("escape")


async def test_prompts_that_waited_come_back_in_the_box(make_app: MakeApp, tmp_path: Path) -> None:
    gate = threading.Event()
    app = make_app(gate=gate)
    try:
        async with app.run_test(size=(100, 40)) as pilot:
            await until(pilot, lambda: app.takes_keys.is_set())
            for text in ("first", "second"):
                await type_text(pilot, text)
                await pilot.press("enter")
            await type_text(pilot, "third")
            await quit_app(pilot)
    finally:
        gate.set()
    assert stored(tmp_path) == [Draft("third", ("first", "second"))]
    again = make_app()
    async with again.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert again.chat.box.text == "first\n\nsecond\n\nthird"
        assert again.chat.session.conversation.messages == ()


async def test_what_is_typed_before_the_first_chat_is_shown_stays_and_so_does_the_old_draft(
    make_app: MakeApp, tmp_path: Path
) -> None:
    held = Drafts(tmp_path / "drafts").hold(NEW_CHAT)
    held.save(Draft("of last time"))
    held.close()
    app = make_app()
    show_first = app.chat.sessions.show_first

    async def typed_before(session: object) -> None:
        app.chat.box.set_text("typed early")
        await show_first(session)  # type: ignore[arg-type]

    app.chat.sessions.show_first = typed_before  # type: ignore[method-assign]
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        assert app.chat.box.text == "typed early"
        await until(pilot, lambda: len(stored(tmp_path)) == 2)
    assert Draft("of last time") in stored(tmp_path)


async def test_a_prompt_that_was_sent_just_before_a_kill_is_no_draft(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "question")
        chat = app.chat.session.conversation.id
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.chat.session.conversation.id != chat)
        # As if the process had ended between the two writes.
        held = Drafts(tmp_path / "drafts").hold(chat)
        held.save(Draft("question", ("next one",)))
        held.close()
        await app._doer.open_chat(chat)
        assert app.chat.box.text == "next one"


async def test_two_running_copies_keep_both_drafts(make_app: MakeApp, tmp_path: Path) -> None:
    one: TuiChat = make_app()
    async with one.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "from one")
        await until(pilot, lambda: stored(tmp_path) == [Draft("from one")])
        other: TuiChat = make_app()
        async with other.run_test(size=(100, 40)) as second:
            await ready(second)
            assert other.chat.box.text == ""
            await type_text(second, "from two")
            await quit_app(second)
        await quit_app(pilot)
    assert sorted(draft.text for draft in stored(tmp_path)) == ["from one", "from two"]
