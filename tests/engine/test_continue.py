"""A reply of the built-in guide that is cut and continued, through the session."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tui_chat.chat.session import Session
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine
from tui_chat.store.conversations import ConversationStore
from tui_chat.types import GenerationSettings, Message, Mode, ModelSpec, ReplyFinished

pytestmark = pytest.mark.engine

QUESTION = "How do I copy the last reply?"


@pytest.fixture(scope="module")
def guide() -> Iterator[Engine]:
    engine = open_engine(ModelSpec(device="cpu"), lambda _: None, threading.Event())
    yield engine
    engine.close()


def settings(limit: int) -> GenerationSettings:
    return GenerationSettings(max_new_tokens=limit, do_sample=False)


def reply(session: Session, limit: int, *, goes_on: bool = False) -> Message:
    """The reply to the question, or what it is after it was continued; greedy."""
    cancel = threading.Event()
    events = (
        session.continue_reply(
            mode=lambda: Mode.SPEED, settings=lambda _: settings(limit), cancel=cancel
        )
        if goes_on
        else session.reply(
            QUESTION, mode=lambda: Mode.SPEED, settings=lambda _: settings(limit), cancel=cancel
        )
    )
    *_, end = events
    assert isinstance(end, ReplyFinished)
    return end.message


@pytest.mark.parametrize("part", [1, 2, 5])
def test_a_greedy_reply_in_parts_is_the_reply_in_one(
    guide: Engine, tmp_path: Path, part: int
) -> None:
    store = ConversationStore(tmp_path)
    whole = reply(Session(guide, store.create()), 200)
    assert whole.finish_reason == "stop"
    log = store.create()
    session = Session(guide, log)
    grown = reply(session, part)
    parts = 1
    while grown.finish_reason == "length":
        before = grown.content + grown.cut_tail
        grown = reply(session, part, goes_on=True)
        assert grown.metrics is not None
        assert grown.metrics.cached_tokens >= grown.metrics.prompt_tokens - 1
        assert (grown.content + grown.cut_tail).startswith(before.rstrip())
        parts += 1
    assert grown.content == whole.content
    assert grown.continuations == parts - 1 > 0
    assert grown.token_count == whole.token_count


def test_a_stored_reply_goes_on_with_a_model_that_was_loaded_since(
    guide: Engine, tmp_path: Path
) -> None:
    store = ConversationStore(tmp_path)
    whole = reply(Session(guide, store.create()), 200)
    log = store.create()
    cut = reply(Session(guide, log), 7)
    log.close()
    other = open_engine(ModelSpec(device="cpu"), lambda _: None, threading.Event())
    grown = reply(Session(other, store.open(log.id)), 200, goes_on=True)
    other.close()
    assert (grown.id, grown.content) == (cut.id, whole.content)
