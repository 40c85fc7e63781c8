"""Something that nobody foresaw, in a task beside the keys: it is told, and the app goes on."""

import asyncio
import contextlib
import gc
import logging
import warnings

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, ready, until  # type: ignore[import-not-found]
from textual.screen import Screen


async def test_a_task_that_fails_is_told_and_the_app_goes_on(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    async def fail() -> None:
        raise KeyError("a key that is a secret")

    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        app.chat.run_worker(fail(), exit_on_error=False)
        await until(pilot, lambda: bool(app._notifications))
        (told,) = app._notifications
        assert told.message.startswith("That did not work; the log has the details")
        await ask(pilot, "still there?")
        app.ending.by_user()
        app.chat.run_worker(fail(), exit_on_error=False)  # what comes too late is no failure
    failed = [each for each in caplog.records if each.message.startswith("a task of the screen")]
    assert [each.levelno for each in failed if each.levelno > logging.INFO] == [logging.ERROR]
    caplog.clear()


async def test_a_task_of_a_screen_that_is_being_left_is_no_failure(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()
    left = asyncio.Event()

    async def look_for_the_field(screen: Screen[None]) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the node that it belongs to goes
            await left.wait()
        screen.query_one("#library-find")

    async with app.run_test(size=(100, 30)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: bool(app.screen.query("#library-find")))
        library = app.screen
        library.run_worker(look_for_the_field(library), exit_on_error=False)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is not library and not library.children)
        left.set()
        await pilot.pause()
        await ask(pilot, "still there?")
        assert not app._notifications
    assert not [each for each in caplog.records if each.levelno > logging.INFO]


async def test_a_task_that_is_cancelled_before_it_begins_is_no_complaint(make_app: MakeApp) -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("work")

    app = make_app()
    async with app.run_test() as pilot:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            app.run_worker(work(), exit_on_error=False).cancel()
            await pilot.pause()
            gc.collect()
    assert begun == []
    assert not [each for each in told if "never awaited" in str(each.message)]
