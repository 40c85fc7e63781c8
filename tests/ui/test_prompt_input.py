"""Folded pastes and attached files in the box."""

import asyncio
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, told, type_text, until
from textual.events import Paste
from textual.pilot import Pilot

from tui_chat.chat.draft_meter import DraftMeter
from tui_chat.chat.session import Session
from tui_chat.engine.echo import EchoEngine
from tui_chat.types import Message, Role
from tui_chat.ui import draft_counter
from tui_chat.ui.app import TuiChat
from tui_chat.ui.draft import DraftCount, ReadDraft, count_draft
from tui_chat.ui.user_turn import UserTurn

LOG = "".join(f"line {number} of the log\n" for number in range(40))


async def paste(pilot: Pilot[int], text: str) -> None:
    pilot.app.post_message(Paste(text))
    await pilot.pause()


async def send(pilot: Pilot[int]) -> Message:
    """Press Enter and wait for the reply; the message that was stored."""
    app = pilot.app
    assert isinstance(app, TuiChat)
    before = len(app.chat.session.conversation.messages)
    await pilot.press("enter")
    await until(
        pilot,
        lambda: not app.chat.busy and len(app.chat.session.conversation.messages) == before + 2,
    )
    message = app.chat.session.conversation.messages[-2]
    assert message.role is Role.USER
    return message


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with some files."""
    folder = tmp_path / "here"
    (folder / "sub").mkdir(parents=True)
    (folder / "timer.ini").write_text("[Timer]\nOnCalendar=daily\n")
    (folder / "restic.log").write_text(LOG)
    (folder / "sub" / "two words.txt").write_text("spaced")
    (folder / "photo.png").write_bytes(b"\x89PNG\x00\x00")
    monkeypatch.chdir(folder)
    return folder


async def test_a_long_paste_is_one_label_that_is_sent_as_its_text(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "why ")
        await paste(pilot, LOG)
        await type_text(pilot, " so")
        assert app.chat.box.text == "why [≡ pasted 41 lines] so"
        message = await send(pilot)
        assert message.content == f"why {LOG} so"


async def test_a_short_paste_is_text(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await paste(pilot, "one\ntwo")
        assert app.chat.box.text == "one\ntwo"


async def test_the_label_tells_the_tokens_and_the_meter_counts_them(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        await paste(pilot, LOG)
        await until(pilot, lambda: " tok]" in app.chat.box.text)
        tokens = app.chat.session.count_text(LOG)
        assert app.chat.box.text == f"[≡ pasted 41 lines · ≈{tokens:,} tok]"
        await until(pilot, lambda: "draft" in shown(app))
        whole, bare = app.chat.session.plan(LOG), app.chat.session.plan()
        assert whole is not None and bare is not None
        assert f"draft ≈{whole.prompt_tokens - bare.prompt_tokens:,} tok" in shown(app)


async def test_a_label_is_passed_over_and_deleted_as_one_character(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "ab")
        await paste(pilot, LOG)
        await type_text(pilot, "c")
        await until(pilot, lambda: " tok]" in app.chat.box.text)
        label = app.chat.box.labels()[0]
        await pilot.press("left", "left")
        assert app.chat.box.cursor_location == (0, 2)
        await pilot.press("right")
        assert app.chat.box.cursor_location == (0, 2 + len(label))
        await pilot.press("backspace")
        assert app.chat.box.text == "abc"
        await paste(pilot, LOG)
        await pilot.press("left", "delete")
        assert app.chat.box.text == "abc"
        await paste(pilot, LOG)
        await pilot.press("ctrl+w")
        assert app.chat.box.full_text == "abc"


async def test_a_click_into_a_label_does_not_split_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await paste(pilot, LOG)
        await pilot.click("#box", offset=(10, 0))
        await type_text(pilot, "x")
        assert app.chat.box.full_text in (f"x{LOG}", f"{LOG}x")


async def test_tab_at_a_label_shows_the_text_in_its_place(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "a ")
        await paste(pilot, LOG)
        await until(pilot, lambda: "Tab unfold" in shown(app))
        await pilot.press("tab")
        assert app.chat.box.text == f"a {LOG}"


async def test_a_text_that_is_too_long_for_the_box_stays_folded(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await paste(pilot, LOG * 50)
        before = app.chat.box.text
        await pilot.press("f2")
        await until(pilot, lambda: "opens it in your editor" in told(app))
        assert app.chat.box.text == before


async def test_a_folded_prompt_comes_back_from_the_history_in_full(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await paste(pilot, LOG)
        await send(pilot)
        await pilot.press("up")
        assert app.chat.box.full_text == LOG
        assert app.chat.box.labels()
        await pilot.press("down")
        await type_text(pilot, "x")
        await paste(pilot, LOG)
        await pilot.press("ctrl+c", "up")
        assert app.chat.box.full_text == f"x{LOG}"
    again = make_app()
    async with again.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await pilot.press("up")
        assert again.chat.box.full_text == f"x{LOG}"


async def test_undo_takes_back_what_was_typed(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "kept")
        await paste(pilot, LOG)
        await pilot.press("ctrl+underscore")
        assert app.chat.box.text == "kept"


async def test_undo_takes_back_a_paste_whose_tokens_were_counted(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await type_text(pilot, "kept")
        await paste(pilot, LOG)
        await until(pilot, lambda: "tok]" in app.chat.box.text)
        await type_text(pilot, " more")
        for _ in range(4):  # letters, and what is counted anew meanwhile
            if app.chat.box.text != "kept":
                await pilot.press("ctrl+underscore")
                await until(
                    pilot, lambda: "[" not in app.chat.box.text or "tok" in app.chat.box.text
                )
        assert app.chat.box.text == "kept"


async def test_a_path_with_an_at_sign_goes_along_as_a_file(make_app: MakeApp, here: Path) -> None:
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        app.chat.box.set_text("Why @timer.ini, and @alice?")
        await until(pilot, lambda: "+ timer.ini" in shown(app))
        tokens = app.chat.session.count_text(
            f"File: timer.ini\n```ini\n{(here / 'timer.ini').read_text()}```"
        )
        assert f"+ timer.ini 25 B · ≈{tokens} tok" in shown(app)
        message = await send(pilot)
        assert message.content == (
            "File: timer.ini\n```ini\n[Timer]\nOnCalendar=daily\n```\n\nWhy @timer.ini, and @alice?"
        )
        assert app.chat.session.conversation.title == "Why @timer.ini, and @alice?"
        assert "OnCalendar" not in shown(app) and "+ timer.ini 25 B · 2 lines" in shown(app)
        await pilot.press("up")
        assert app.chat.box.text == "Why @timer.ini, and @alice?"


async def test_attached_files_are_shown_sent_once_and_can_be_taken_out(
    make_app: MakeApp, here: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/attach timer.ini")
        await command(pilot, "/attach 'sub/two words.txt'")
        await command(pilot, "/attach ~/../no/such")
        await until(pilot, lambda: "There is no file" in told(app))
        await until(pilot, lambda: "+ timer.ini" in shown(app) and "+ two words.txt" in shown(app))
        await command(pilot, "/detach 1")
        await until(pilot, lambda: "+ timer.ini" not in shown(app))
        await type_text(pilot, "look")
        assert (await send(pilot)).content == "File: sub/two words.txt\n```txt\nspaced\n```\n\nlook"
        await type_text(pilot, "more")
        assert (await send(pilot)).content == "more"


@pytest.mark.parametrize(
    ("name", "word", "why"),
    [
        ("photo.png", "not text", "not a text file"),
        ("sub", "a folder", "folder"),
        ("pipe", "no regular file", "no regular"),
    ],
)
async def test_what_cannot_be_attached_is_said_and_the_text_stays(
    make_app: MakeApp, here: Path, name: str, word: str, why: str
) -> None:
    os.mkfifo(here / "pipe")
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        app.chat.box.set_text(f"see @{name} please")
        await until(pilot, lambda: f"× {name}: {word}" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: why in told(app))
        assert app.chat.box.text == f"see @{name} please"
        assert not app.chat.session.conversation.messages


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (40, "× 2 files refused   + 2 files"),
        (60, "× 2 files refused   + 2 files ≈"),
        (80, "× photo.png: not text   × measurements-of…able.bin: not UTF-8   + 2 files"),
        (
            150,
            "× measurements-of…able.bin: not UTF-8   + timer.ini   + restic.log",
        ),
    ],
)
async def test_a_refused_file_is_told_before_all_others_where_there_is_no_room(
    make_app: MakeApp, here: Path, width: int, line: str
) -> None:
    (here / "measurements-of-the-cable.bin").write_bytes(b"\xff\xfe\xff")
    app = make_app()
    async with app.run_test(size=(width, 24)) as pilot:
        await ready(pilot)
        for name in ("timer.ini", "restic.log", "photo.png", "measurements-of-the-cable.bin"):
            app.chat.desk.attach(name)
        await until(pilot, lambda: line in shown(app))


async def test_what_takes_long_to_count_is_estimated_until_it_is_counted(
    make_app: MakeApp, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_counter, "REST", 0.0)
    (here / "long.log").write_text(LOG * 20)
    counted = threading.Event()
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        engine = app.engine
        assert isinstance(engine, EchoEngine)
        count = engine.count_message

        def slow_count(message: Message) -> int:
            if len(message.content) > 5000:
                counted.wait()
            return count(message)

        monkeypatch.setattr(engine, "count_message", slow_count)
        monkeypatch.setattr(engine, "exact_counts", True)
        app.chat.desk.attach("long.log")
        await paste(pilot, LOG * 10)
        await until(pilot, lambda: "counting… ≈" in shown(app))
        assert re.search(r"\[≡ pasted 401 lines · ≈[\d,]+ tok\]", shown(app))
        assert re.search(r"\+ long\.log 15 kB · ≈[\d,]+ tok", shown(app))
        counted.set()
        await until(pilot, lambda: "counting…" not in shown(app))
        tokens = app.chat.session.count_text(LOG * 10)
        assert f"[≡ pasted 401 lines · {tokens:,} tok]" in shown(app)
        assert re.search(r"\+ long\.log 15 kB · [\d,]+ tok", shown(app))
        counted.clear()  # what is counted stays so while the rest is counted again
        await type_text(pilot, "more")
        await until(pilot, lambda: "counting… ≈" in shown(app))
        assert f"[≡ pasted 401 lines · {tokens:,} tok]" in shown(app)
        counted.set()
        await until(pilot, lambda: "counting…" not in shown(app))


async def test_a_long_draft_is_not_counted_all_the_time(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_counter, "PATIENCE", 0.0)
    monkeypatch.setattr(draft_counter, "REST", 1e9)
    counts: list[str] = []
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)

        def count(session: Session, meter: DraftMeter, read: ReadDraft, **how: Any) -> DraftCount:
            counts.append(read.prompt)
            return count_draft(session, meter, read, **how)

        monkeypatch.setattr("tui_chat.ui.draft.count_draft", count)
        await paste(pilot, LOG)
        await until(pilot, lambda: counts == [LOG] and "counting…" not in shown(app))
        await type_text(pilot, "more")
        await until(pilot, lambda: "counting… ≈" in shown(app))
        await type_text(pilot, "and more")
        assert counts == [LOG]
        monkeypatch.setattr(draft_counter, "REST", 0.0)  # as if the time had passed
        await until(pilot, lambda: "counting…" not in shown(app))
        assert counts == [LOG, f"{LOG}moreand more"]
        monkeypatch.setattr(draft_counter, "REST", 1e3)
        app.chat.box.set_text("")  # what is short is counted soon
        await until(pilot, lambda: counts[2:] == [""])


async def test_without_a_model_the_tokens_of_a_paste_are_an_estimate(make_app: MakeApp) -> None:
    gate = threading.Event()
    app = make_app(gate=gate)
    async with app.run_test(size=(110, 40)) as pilot:
        await until(pilot, lambda: app.takes_keys.is_set())
        await paste(pilot, LOG)
        about = math.ceil(len(LOG) / 4)
        await until(pilot, lambda: f"[≡ pasted 41 lines · ≈{about} tok]" in shown(app))
        gate.set()
        await ready(pilot)


async def test_a_file_is_read_when_the_prompt_is_sent(make_app: MakeApp, here: Path) -> None:
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/attach timer.ini")
        await until(pilot, lambda: "+ timer.ini" in shown(app))
        (here / "timer.ini").write_text("changed\n")
        await type_text(pilot, "look")
        assert "changed" in (await send(pilot)).content


async def test_prompts_with_and_without_files_keep_their_order(
    make_app: MakeApp, here: Path
) -> None:
    app = make_app(rate=200)
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        for text in ("one @restic.log", "two", "three @timer.ini"):
            app.chat.box.set_text(text)
            await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 6)
        asked = [m.content for m in app.chat.session.conversation.messages if m.role is Role.USER]
        assert [text.rsplit("\n", 1)[-1] for text in asked] == [
            "one @restic.log",
            "two",
            "three @timer.ini",
        ]


async def test_a_prompt_goes_to_no_other_chat_than_the_one_it_was_written_in(
    make_app: MakeApp, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        stored = app.chat.session.conversation.id
        gate = asyncio.Event()
        plain = asyncio.to_thread

        async def slow(*arguments: object) -> object:
            await gate.wait()
            return await plain(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr("tui_chat.ui.desk.asyncio.to_thread", slow)
        app.chat.box.set_text("private @timer.ini")
        await pilot.press("enter", "ctrl+n")
        gate.set()
        await until(pilot, lambda: "Nothing was sent" in told(app))
        assert not app.chat.session.conversation.messages
        assert app.chat.box.text == ""
        await app._doer.open_chat(stored)
        assert app.chat.box.text == "private @timer.ini"
        assert len(app.chat.session.conversation.messages) == 2


async def test_a_long_prompt_is_folded_on_the_page_until_it_is_clicked(make_app: MakeApp) -> None:
    app = make_app(reply="ok")
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot)
        await paste(pilot, LOG)
        await send(pilot)
        await until(pilot, lambda: "▸ 29 more lines" in shown(app))
        assert "line 39 of" not in shown(app)
        await pilot.click(UserTurn)
        await until(pilot, lambda: "line 39 of" in shown(app))
        await pilot.click(UserTurn)
        await until(pilot, lambda: "line 39 of" not in shown(app))


async def test_a_folded_prompt_is_opened_with_the_keys_alone(make_app: MakeApp) -> None:
    app = make_app(reply="ok")
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot)
        await paste(pilot, LOG)
        await send(pilot)
        await pilot.press("alt+up", "up")
        await until(pilot, lambda: "Enter unfold" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "line 39 of" in shown(app) and "Enter fold" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: "line 39 of" not in shown(app))
        await ask(pilot, "short")
        await pilot.press("alt+up", "up", "enter")  # nothing is folded: it is edited
        await until(pilot, lambda: app.chat.box.text == "short")


async def test_the_files_of_a_stored_message_can_be_opened(make_app: MakeApp, here: Path) -> None:
    app = make_app(reply="ok")
    async with app.run_test(size=(100, 60)) as pilot:
        await ready(pilot)
        app.chat.box.set_text("see @restic.log")
        await send(pilot)
        await ask(pilot, "thanks")
        stored = app.chat.session.conversation.id
        await command(pilot, "/new")
        await app._doer.open_chat(stored)
        await until(pilot, lambda: "+ restic.log" in shown(app))
        assert "line 3 of the log" not in shown(app)
        await pilot.click(app.screen.query(UserTurn).first())
        await until(pilot, lambda: "line 39 of the log" in shown(app))
