"""Words are found in the chat that is shown, and opening a hit of the library leads to it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, told, type_text, until
from test_library import marked
from textual.pilot import Pilot

from tui_chat.config import Resume
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import Message, Role
from tui_chat.ui.app import TuiChat
from tui_chat.ui.find import FindField

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def add(tmp_path: Path, *texts: str, title: str = "Needles") -> str:
    """A stored chat whose messages u0, a1, u2, … have these texts."""
    log = ConversationStore(tmp_path).create(title=title)
    parent = None
    for number, text in enumerate(texts):
        role, letter = ((Role.USER, "u"), (Role.ASSISTANT, "a"))[number % 2]
        message = Message(f"{letter}{number}", role, text, START + timedelta(minutes=number))
        log.append(replace(message, parent_id=parent))
        parent = message.id
    log.close()
    return log.id


def long_chat(tmp_path: Path, count: int = 120) -> str:
    """A chat with the word needle in messages 10, 11 and 100."""
    texts = [
        f"message {number}. " + ("a Needle in the hay " if number in (10, 11, 100) else "hay ") * 9
        for number in range(count)
    ]
    return add(tmp_path, *texts)


async def opened(pilot: Pilot[int]) -> TuiChat:
    app = await ready(pilot)
    await until(pilot, lambda: bool(app.chat.session.conversation.messages))
    return app


def selected(app: TuiChat) -> list[str]:
    return [view.message_id for view in app.chat.transcript.query(".-selected")]  # type: ignore


def shows(app: TuiChat, text: str) -> bool:
    return text in shown(app)


async def test_typing_goes_to_the_newest_hit_and_keys_to_the_others(
    make_app: MakeApp, tmp_path: Path
) -> None:
    long_chat(tmp_path)
    async with make_app(resume=Resume(None)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await pilot.press("ctrl+f")
        await type_text(pilot, "needle")
        await until(
            pilot, lambda: "message 100" in shown(app) and marked(pilot).count("Needle") > 2
        )
        assert selected(app) == ["u100"]
        assert "3 of 3" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: "message 11." in shown(app) and selected(app) == ["a11"])
        await pilot.press("up")
        await until(pilot, lambda: "message 10." in shown(app) and selected(app) == ["u10"])
        assert "1 of 3" in shown(app)
        await pilot.press("down", "down")
        await until(pilot, lambda: "message 100" in shown(app))
        await pilot.press("down")  # behind the last comes the first
        await until(pilot, lambda: "message 10." in shown(app))


async def test_escape_takes_row_and_marks_away_and_the_page_stays(
    make_app: MakeApp, tmp_path: Path
) -> None:
    long_chat(tmp_path)
    async with make_app(resume=Resume(None)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await command(pilot, "/find needle hay")
        await until(pilot, lambda: "message 100" in shown(app) and bool(marked(pilot)))
        await pilot.press("escape")
        await until(pilot, lambda: not marked(pilot) and not selected(app))
        assert "message 100" in shown(app) and app.focused is app.chat.box
        await type_text(pilot, "next")
        assert app.chat.box.text == "next"


async def test_what_is_not_there_is_told(make_app: MakeApp, tmp_path: Path) -> None:
    add(tmp_path, "one", "two")
    async with make_app(resume=Resume(None)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await command(pilot, "/find [b]zebra")
        await until(pilot, lambda: "not in this chat" in shown(app))
        await pilot.press("enter", "down")
        assert not marked(pilot)


async def test_an_empty_chat_has_nothing_to_find(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await pilot.press("ctrl+f")
        assert told(app) == "This chat is empty."


@pytest.mark.parametrize(
    ("text", "query", "marks"),
    [
        ("a **bold** `code` word", "code BOLD", ["bold", "code"]),
        ("Straße und Café", "STRASSE cafe", ["Straße", "Café"]),
        ("a+b (c) [d] \\o/ 100%", "(C) 100%", ["(c)", "100%"]),
        ("```sh\nrestic backup\n```", "restic", ["restic"]),
        ("| a | b |\n|---|---|\n| one | two |", "two", ["two"]),
        ("[text](http://example.org/needle)", "needle", []),  # found, but not shown
    ],
)
async def test_words_are_marked_as_they_stand_in_a_reply(
    make_app: MakeApp, tmp_path: Path, text: str, query: str, marks: list[str]
) -> None:
    add(tmp_path, "question", text)
    async with make_app(resume=Resume(None)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await app.chat.find.open(query)
        await until(pilot, lambda: "1 of 1" in shown(app) and marked(pilot) == marks)
        assert selected(app) == ["a1"]


async def test_a_word_that_is_broken_into_two_rows_is_marked_in_both(
    make_app: MakeApp, tmp_path: Path
) -> None:
    word = "界" * 60
    add(tmp_path, "question", f"世 {word}")
    async with make_app(resume=Resume(None)).run_test(size=(80, 30)) as pilot:
        app = await opened(pilot)
        await app.chat.find.open(word)
        await until(pilot, lambda: "".join(marked(pilot)) == word)
        assert len(marked(pilot)) > 1


LINES = [f"line {number}" + " needle" * (number in (5, 100, 200)) for number in range(220)]


@pytest.mark.parametrize(
    "text",
    ["\n\n".join(LINES), "```\n" + "\n".join(LINES) + "\n```"],
    ids=["paragraphs", "code"],
)
async def test_marks_far_apart_in_one_long_message_are_all_reached(
    make_app: MakeApp, tmp_path: Path, text: str
) -> None:
    add(tmp_path, "question", text, "thanks")
    async with make_app(resume=Resume(None)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await app.chat.find.open("needle")
        # Up to the first one, and from there again to the last one of the only message.
        for number, key in ((200, "up"), (100, "up"), (5, "up"), (200, "up"), (100, "down")):
            await until(pilot, partial(shows, app, f"line {number} needle"))
            assert marked(pilot) == ["needle"]
            await pilot.press(key)
        await until(pilot, partial(shows, app, "line 200 needle"))


async def test_marks_in_a_long_prompt_are_reached(make_app: MakeApp, tmp_path: Path) -> None:
    lines = [f"line {number} " + "word " * 30 for number in range(120)]
    lines[7] += "needle"
    lines[110] += "needle"
    add(tmp_path, "\n".join(lines), "answer")
    async with make_app(resume=Resume(None)).run_test(size=(80, 30)) as pilot:
        app = await opened(pilot)
        await app.chat.find.open("needle")
        await until(pilot, lambda: "line 110" in shown(app) and marked(pilot) == ["needle"])
        await pilot.press("enter")
        await until(pilot, lambda: "line 7" in shown(app) and marked(pilot) == ["needle"])


async def test_a_new_reply_is_found_too(make_app: MakeApp) -> None:
    async with make_app(reply="a needle in the reply").run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, "first")
        await app.chat.find.open("needle")
        await until(pilot, lambda: "1 of 1" in shown(app))
        await pilot.press("escape")
        await ask(pilot, "second")
        await pilot.press("ctrl+f")
        await until(pilot, lambda: "2 of 2" in shown(app))


async def test_keys_lead_from_hit_to_hit_while_a_reply_is_written(
    make_app: MakeApp, tmp_path: Path
) -> None:
    long_chat(tmp_path, 30)
    app = make_app(resume=Resume(None), reply="word " * 4000, rate=100.0)
    async with app.run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: app.engine is not None)
        await type_text(pilot, "go")
        await pilot.press("enter")
        await until(pilot, lambda: "writing" in shown(app))
        await app.chat.find.open("needle")
        await until(pilot, lambda: selected(app) == ["a11"])
        before = app.chat.session.conversation.messages
        await until(pilot, lambda: app.chat.session.conversation.messages is not before)
        await pilot.press("up")
        await until(pilot, lambda: selected(app) == ["u10"] and shows(app, "message 10."))
        assert app.chat.busy
        await pilot.press("escape", "escape")
        await until(pilot, lambda: not app.chat.busy)


async def test_a_click_into_the_box_ends_the_search(make_app: MakeApp, tmp_path: Path) -> None:
    add(tmp_path, "one needle", "two")
    async with make_app(resume=Resume(None)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await app.chat.find.open("needle")
        await until(pilot, lambda: bool(marked(pilot)))
        await pilot.click("#box")
        await until(pilot, lambda: not marked(pilot))
        assert not app.chat.find.is_open


async def test_walking_ends_the_search(make_app: MakeApp, tmp_path: Path) -> None:
    add(tmp_path, "one needle", "two")
    async with make_app(resume=Resume(None)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await app.chat.find.open("needle")
        await until(pilot, lambda: bool(marked(pilot)))
        await pilot.press("alt+up")
        await until(pilot, lambda: app.chat.walked is not None)
        assert not app.chat.find.is_open and not marked(pilot)
        await pilot.press("ctrl+f")
        await until(pilot, lambda: app.chat.find.is_open)
        assert app.chat.walked is None and isinstance(app.focused, FindField)


# From the library


async def test_a_hit_of_the_library_opens_the_chat_at_the_message(
    make_app: MakeApp, tmp_path: Path
) -> None:
    long_chat(tmp_path)
    add(tmp_path, "something else", "entirely", title="Other")
    async with make_app().run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await pilot.press("ctrl+o")
        await type_text(pilot, "message 10. needle")
        await until(pilot, lambda: "1 hit in 1 chat" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: selected(app) == ["u10"])
        await until(pilot, lambda: {"message", "10.", "Needle"} <= set(marked(pilot)))
        # Only what is around it is mounted, and the end, not all that stands between.
        assert len(app.chat.transcript.query(".user-turn, .assistant-turn")) < 80
        await pilot.press("escape")
        await type_text(pilot, "goes on")
        assert app.chat.box.text == "goes on"


async def test_a_hit_before_what_is_loaded_of_a_large_chat_is_gone_to(
    make_app: MakeApp, tmp_path: Path
) -> None:
    texts = [f"message {number}. " + "hay " * 1500 for number in range(120)]
    texts[3] = "a needle"
    chat = add(tmp_path, *texts)
    async with make_app(resume=Resume(chat)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        assert app.chat.session.conversation.has_earlier
        await app.chat.find.open("needle")
        await until(pilot, lambda: selected(app) == ["a3"] and marked(pilot) == ["needle"])
    async with make_app().run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await pilot.press("ctrl+o")
        await type_text(pilot, "needle")
        await until(pilot, lambda: "1 hit in 1 chat" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: selected(app) == ["a3"] and marked(pilot) == ["needle"])


async def test_a_hit_in_the_chat_that_is_open_is_gone_to(make_app: MakeApp, tmp_path: Path) -> None:
    chat = long_chat(tmp_path)
    async with make_app(resume=Resume(chat)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        await pilot.press("ctrl+o")
        await type_text(pilot, "message 11. needle")
        await until(pilot, lambda: "1 hit in 1 chat" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: selected(app) == ["a11"] and "message 11." in shown(app))


async def test_a_hit_on_another_branch_opens_that_branch(make_app: MakeApp, tmp_path: Path) -> None:
    chat = add(tmp_path, "question", "first needle", "then")
    log = ConversationStore(tmp_path).open(chat)
    log.append(Message("b1", Role.ASSISTANT, "second", START, "u0"))
    log.close()
    async with make_app(resume=Resume(chat)).run_test(size=(100, 30)) as pilot:
        app = await opened(pilot)
        assert "second" in shown(app)
        await pilot.press("ctrl+o")
        await type_text(pilot, "needle")
        await until(pilot, lambda: "1 hit in 1 chat" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: selected(app) == ["a1"] and "first needle" in shown(app))
        ids = [message.id for message in app.chat.session.conversation.messages]
        assert ids == ["u0", "a1", "u2"]


async def test_a_title_that_is_the_hit_opens_the_chat_at_its_end(
    make_app: MakeApp, tmp_path: Path
) -> None:
    add(tmp_path, "question", "answer", title="The needle")
    async with make_app().run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await pilot.press("ctrl+o")
        await type_text(pilot, "needle")
        await until(pilot, lambda: "1 chat ·" in shown(app) and "searching" not in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.chat.session.conversation.messages))
        assert app.focused is app.chat.box
