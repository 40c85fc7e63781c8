"""Memory that runs out in the middle of a reply, on a real model and in a stored conversation."""

import threading
from pathlib import Path

import pytest
import torch
from test_local import Planted
from tiny_models import GREEDY, make_engine

from tui_chat.chat.session import Session
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import GenerationSettings, Mode, ReplyFinished

pytestmark = pytest.mark.engine

SETTINGS = GenerationSettings(max_new_tokens=60, do_sample=False)


def ask(session: Session, text: str, settings: GenerationSettings = GREEDY) -> ReplyFinished:
    replies = session.reply(
        text, mode=lambda: Mode.SPEED, settings=lambda _: settings, cancel=threading.Event()
    )
    finished = list(replies)[-1]
    assert isinstance(finished, ReplyFinished)
    return finished


@pytest.mark.parametrize("times", [1, 99], ids=["once", "always"])
@pytest.mark.parametrize("token", [0, 1, 50])
def test_memory_that_runs_out_at_a_token_keeps_the_text_and_is_tried_once_with_less(
    token: int, times: int, tmp_path: Path
) -> None:
    store = ConversationStore(tmp_path)
    engine = make_engine()
    session = Session(engine, store.create())
    for question in ("one", "two", "three"):
        ask(session, question)
    faults = 0

    def runs_out(logits: torch.Tensor) -> torch.Tensor:
        nonlocal faults
        if faults == times:
            return logits
        faults += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    planted = Planted(engine, token, runs_out)
    end = ask(session, "four", SETTINGS)

    assert faults == min(times, 2)
    assert end.message.status == ("complete" if times == 1 else "failed")
    assert bool(end.message.content) == (token > 0 or times == 1)
    if times > 1:
        assert "memory after" in end.message.error
    stored = store.read(session.log.id).messages[end.message.id]
    assert (stored.content, stored.status) == (end.message.content, end.message.status)
    planted.remove()
    assert ask(session, "five").message.status == "complete"
