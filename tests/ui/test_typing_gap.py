import asyncio

import pytest

from tui_chat.ui import typing_gap
from tui_chat.ui.typing_gap import TypingGap


async def test_where_nobody_types_nothing_waits() -> None:
    called: list[str] = []
    gap = TypingGap()
    gap.call(lambda: called.append("at once"))
    assert called == ["at once"]
    await gap.wait()


async def test_while_someone_types_it_waits_for_the_key_to_be_shown() -> None:
    called: list[str] = []
    gap = TypingGap()
    gap.key_pressed()
    gap.call(lambda: called.append("after the key"))
    assert called == []
    gap.frame_sent()
    assert called == ["after the key"]
    gap.call(lambda: called.append("after the next key"))
    gap.frame_sent()  # with something else than a key
    assert called == ["after the key"]
    gap.key_pressed()
    gap.frame_sent()
    assert called == ["after the key", "after the next key"]


async def test_it_does_not_wait_for_a_key_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing_gap, "TYPING_SECONDS", 0.05)
    called: list[str] = []
    gap = TypingGap()
    gap.key_pressed()
    gap.frame_sent()
    gap.call(lambda: called.append("later"))
    waiting = asyncio.create_task(gap.wait())
    assert called == []
    await waiting
    assert called == ["later"]
