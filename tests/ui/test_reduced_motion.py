import asyncio
import time
from itertools import pairwise

from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ready, type_text

from tui_chat.config import Config
from tui_chat.ui.message_view import Reply


async def test_with_reduced_motion_a_reply_is_painted_once_a_second_at_most(
    make_app: MakeApp,
) -> None:
    app = make_app(reply="word " * 150, rate=50, config=Config(reduced_motion=True))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await type_text(pilot, "go")
        await pilot.press("enter")
        painted: list[tuple[float, int]] = []
        while app.chat.busy or not painted:
            sizes = [len(reply.source) for reply in app.screen.query(Reply)]
            if sizes and sizes[-1] and sizes[-1] != (painted[-1][1] if painted else 0):
                painted.append((time.monotonic(), sizes[-1]))
            await asyncio.sleep(0.02)
        moments = [moment for moment, _ in painted[:-1]]  # the end is painted when it comes
        gaps = [later - earlier for earlier, later in pairwise(moments)]
        assert gaps and min(gaps) > 0.9
        assert app.screen.query_one(Reply).source == "word " * 149 + "word"


async def test_with_reduced_motion_nothing_glides(make_app: MakeApp) -> None:
    app = make_app(config=Config(reduced_motion=True))
    assert app.animation_level == "none"
