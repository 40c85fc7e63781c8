"""Sentences that are shown for a moment."""

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ready, until
from textual.pilot import Pilot
from textual.widgets._toast import Toast


def lowest_row(pilot: Pilot[int]) -> int:
    """The row under the last toast."""
    return max(toast.region.bottom for toast in pilot.app.screen.query(Toast))


@pytest.mark.parametrize("size", [(40, 15), (80, 24), (160, 50)])
async def test_a_toast_never_covers_the_box_however_tall_it_is(
    make_app: MakeApp, size: tuple[int, int]
) -> None:
    app = make_app()
    async with app.run_test(size=size, notifications=True) as pilot:
        await ready(pilot)
        app.notify("Copied the last code block.", markup=False)
        app.notify("A long sentence, such as one that names a file, " * 3, markup=False)
        await until(pilot, lambda: len(app.screen.query(Toast)) == 2)
        await until(pilot, lambda: 0 < lowest_row(pilot) <= app.chat.desk.region.y)
        assert all(toast.region.right <= size[0] for toast in app.screen.query(Toast))
        app.chat.box.set_text("one\ntwo\nthree\nfour\nfive")
        await until(pilot, lambda: app.chat.box.region.height == 5)
        await until(pilot, lambda: lowest_row(pilot) <= app.chat.desk.region.y)
