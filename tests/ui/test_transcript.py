"""Reading a long chat: more of it comes as it is scrolled to, and what is read stays in place."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import command, ready, shown, told, until  # type: ignore[import-not-found]
from textual.pilot import Pilot

from tui_chat.engine.echo import EchoEngine
from tui_chat.store import loading, tail
from tui_chat.store.records import encode, message_record
from tui_chat.types import Message, Role
from tui_chat.ui.app import TuiChat

ID = "20260301-120000-0000000a"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def write_chat(folder: Path, count: int, reply: Callable[[int], str]) -> None:
    lines = [encode({"t": "meta", "v": 1, "title": "A long chat"})]
    for number in range(count):
        role = (Role.USER, Role.ASSISTANT)[number % 2]
        text = reply(number) if number % 2 else f"question {number:04}"
        moment = START + timedelta(minutes=number)
        parent = f"m{number - 1}" if number else None
        message = Message(f"m{number}", role, text, moment, parent)
        lines.append(encode(message_record("msg", message)))
    (folder / "chats").mkdir(exist_ok=True)
    (folder / "chats" / f"{ID}.jsonl").write_bytes(b"".join(lines))


def plain(number: int) -> str:
    return f"answer {number:04}\n\n" + "\n\n".join(f"line {number:04}.{n}" for n in range(3))


def coded(number: int) -> str:
    return f"answer {number:04}\n\n```\ncode {number:04}\n```"


@pytest.fixture(autouse=True)
def small_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few messages are loaded at first as of a chat that is a hundred times as long."""
    monkeypatch.setattr(tail, "FIRST_BYTES", 3000)
    monkeypatch.setattr(loading, "FIRST_BYTES", 3000)


async def opened(pilot: Pilot[int], *, window: int = 8192) -> TuiChat:
    app = await ready(pilot)
    assert isinstance(app.engine, EchoEngine)
    app.engine.context_window = window
    await app._doer.open_chat(ID)
    await pilot.pause()
    return app  # type: ignore[no-any-return]


def rows(app: TuiChat) -> list[str]:
    """What stands in the transcript."""
    height = app.chat.transcript.size.height
    return [row[:-2].strip(" ▌") for row in shown(app).splitlines()[:height]]


def texts(app: TuiChat) -> list[str]:
    return [row for row in rows(app) if row.startswith(("question", "answer", "line"))]


def all_texts(count: int) -> list[str]:
    found: list[str] = []
    for number in range(count):
        lines = plain(number).split("\n\n") if number % 2 else [f"question {number:04}"]
        found += lines
    return found


def mounted(app: TuiChat) -> int:
    return len(app.chat.transcript._page.turns())


async def settled(pilot: Pilot[int]) -> None:
    app = pilot.app
    assert isinstance(app, TuiChat)
    await until(pilot, lambda: not app.chat.transcript._is_moving)
    await pilot.pause()


async def test_a_long_chat_opens_at_its_end_and_loads_no_more(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 400, plain)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, window=700)  # what a prompt can hold is loaded for the meter
        assert texts(app) == all_texts(400)[-len(texts(app)) :]
        conversation = app.chat.session.conversation
        assert conversation.has_earlier and len(conversation.messages) < 40
        assert mounted(app) == 12


async def test_scrolling_up_reads_every_message_once_and_moves_no_text(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 70, plain)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        transcript = app.chat.transcript
        seen = texts(app)
        while transcript.scroll_y > 0 or not transcript._window.is_at_beginning:
            before = rows(app)
            transcript.scroll_relative(y=-6, animate=False)
            await settled(pilot)
            after = rows(app)
            assert any(before[: 18 - n] == after[n:18] for n in range(7))
            fresh = texts(app)
            known = fresh.index(seen[0])
            seen = fresh[:known] + seen
            assert mounted(app) <= 70
        assert seen == all_texts(70)


async def test_the_beginning_and_what_follows_it_is_read_without_mounting_all_of_it(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 600, plain)
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+home")
        await settled(pilot)
        assert texts(app)[0] == "question 0000"
        transcript = app.chat.transcript
        seen = texts(app)
        while len(seen) < 400:
            before = rows(app)
            transcript.scroll_relative(y=8, animate=False)
            await settled(pilot)
            after = rows(app)
            assert any(after[: 18 - n] == before[n:18] for n in range(9))
            fresh = texts(app)
            seen += fresh[fresh.index(seen[-1]) + 1 :]
            assert mounted(app) <= 120
        assert seen == all_texts(600)[: len(seen)]
        await pilot.press("ctrl+end")
        await pilot.pause()
        assert texts(app)[-1] == "line 0599.2"
        for _ in range(12):
            transcript.scroll_relative(y=-12, animate=False)
            await settled(pilot)
        numbers = [all_texts(600).index(text) for text in texts(app)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(seen) < numbers[0] < 1450


async def test_a_title_that_the_first_glance_misses_is_shown_soon(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_GLANCE", 1000)
    write_chat(tmp_path, 400, plain)
    path = tmp_path / "chats" / f"{ID}.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines.insert(200, encode({"t": "title", "title": "The chosen title"}))
    path.write_bytes(b"".join(lines))
    app = make_app()
    async with app.run_test(size=(160, 30)) as pilot:
        await ready(pilot)
        await app._doer.open_chat(ID)
        await until(pilot, lambda: "The chosen title" in shown(app))
        assert texts(app)[-1] == "line 0399.2"


async def test_a_page_that_does_not_fill_the_screen_gets_more(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 60, lambda number: f"answer {number:04}")
    app = make_app()
    async with app.run_test(size=(80, 100)) as pilot:
        await opened(pilot)
        await settled(pilot)
        assert len(texts(app)) > 24
        assert texts(app)[-1] == "answer 0059"


async def test_code_blocks_keep_the_numbers_that_they_were_shown_with(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 60, coded)
    app = make_app(reply="```\nnew code\n```")
    async with app.run_test(size=(80, 40)) as pilot:
        await opened(pilot, window=64)
        copied: list[str] = []
        app._doer.copy = lambda text, what: copied.append(text)  # type: ignore[method-assign]
        transcript = app.chat.transcript
        numbers: dict[str, str] = {}

        def note_numbers() -> None:
            found = rows(app)
            for at, row in enumerate(found[:-1]):
                if "/copy" in row and "code" in found[at + 1]:
                    number = row.split()[-1]
                    assert numbers.setdefault(found[at + 1], number) == number

        note_numbers()
        await command(pilot, "/copy 900")
        assert "No code block has the number 900" in told(app)
        assert "6" in numbers.values() and "7" not in numbers.values()
        await command(pilot, "hello")
        await until(pilot, lambda: not app.chat.busy)
        note_numbers()
        assert numbers["new code"] == "7"
        while transcript.scroll_y > 0 or not transcript._window.is_at_beginning:
            transcript.scroll_relative(y=-20, animate=False)
            await settled(pilot)
            note_numbers()
        transcript.follow()
        await pilot.pause()
        note_numbers()
        assert len(set(numbers.values())) == len(numbers) == 31
        for code, number in numbers.items():
            await command(pilot, f"/copy {number}")
            assert copied[-1].strip() == code
        await command(pilot, "/copy 900")
        assert "This chat has 31 code blocks" in told(app)


async def test_a_reply_that_is_written_while_the_beginning_is_read_is_there_at_the_end(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 300, plain)
    app = make_app(reply="word " * 400, rate=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await command(pilot, "hello")
        await until(pilot, lambda: "word" in shown(app))
        await pilot.press("ctrl+home")
        await settled(pilot)
        assert app.chat.busy
        top = texts(app)
        assert top[0] == "question 0000"
        await until(pilot, lambda: not app.chat.busy)
        assert texts(app) == top
        await pilot.press("ctrl+end")
        await pilot.pause()
        assert "word word" in shown(app) and "tok/s" in shown(app)


async def test_a_prompt_right_behind_what_scrolled_the_page_is_followed(
    make_app: MakeApp, tmp_path: Path
) -> None:
    """What scrolls does it with the next frame, which may come after the prompt."""
    write_chat(tmp_path, 12, plain)
    app = make_app(reply="\n\n".join(f"paragraph {n}" for n in range(60)))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        chat, transcript = app.chat, app.chat.transcript

        async def is_followed() -> None:
            await chat.replies.ask("go")
            await until(pilot, lambda: not chat.busy)
            await pilot.pause()
            assert "paragraph 59" in shown(app) and "tok/s" in shown(app)

        transcript.scroll_page_up(animate=False)
        await is_followed()
        await transcript.walk_to("m1")
        await is_followed()
        await transcript.show_welcome()
        await is_followed()


async def test_a_prompt_is_followed_though_the_beginning_was_on_its_way(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 300, plain)
    app = make_app(reply="fine")
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        app.chat.transcript.go_to_top()
        await app.chat.replies.ask("go")
        await until(pilot, lambda: not app.chat.busy)
        await settled(pilot)
        assert "fine" in shown(app) and "tok/s" in shown(app)
        app.chat.transcript.go_to_top()
        while not app.chat.transcript._changing.locked():
            await asyncio.sleep(0)
        app.chat.transcript.follow()  # while the beginning is mounted
        await settled(pilot)
        assert "fine" in shown(app) and "tok/s" in shown(app)
        await pilot.press("ctrl+home")
        await settled(pilot)
        assert texts(app)[0] == "question 0000"


async def test_what_does_not_fit_is_said_without_loading_it(
    make_app: MakeApp, tmp_path: Path
) -> None:
    write_chat(tmp_path, 3000, plain)
    app = make_app(reply="fine")
    async with app.run_test(size=(100, 40)) as pilot:
        await opened(pilot, window=1500)
        await command(pilot, "hello")
        await until(pilot, lambda: not app.chat.busy)
        assert app.chat.session.conversation.has_earlier
        await command(pilot, "/context")
        await until(pilot, lambda: "the older turns do not fit" in shown(app))
        transcript = app.chat.transcript
        for _ in range(100):
            if "Everything above does not fit any more and is not sent." in shown(app):
                break
            transcript.scroll_relative(y=-20, animate=False)
            await settled(pilot)
        else:
            raise AssertionError("nothing says what is not sent")
        transcript.scroll_relative(y=-40, animate=False)
        await settled(pilot)
        dropped = [view for _, view in transcript._page.turns() if view.has_class("-dropped")]
        assert len(dropped) >= 12
