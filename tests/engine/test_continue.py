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


def test_an_edited_reply_goes_on_from_its_last_token_and_with_what_is_cached(
    guide: Engine, tmp_path: Path
) -> None:
    log = ConversationStore(tmp_path).create()
    session = Session(guide, log)
    whole = reply(session, 200)
    shortened = " ".join(whole.content.split(" ")[:-3])
    edited = session.edit_reply(whole.id, shortened)
    grown = reply(session, 200, goes_on=True)
    assert (grown.id, grown.content) == (edited.id, whole.content)
    assert grown.metrics is not None
    # All but the last token of the edited text was in the cache already.
    assert grown.metrics.cached_tokens == grown.metrics.prompt_tokens - 1
    other = session.edit_reply(grown.id, "Press ")
    grown = reply(session, 200, goes_on=True)
    assert grown.id == other.id and grown.content.startswith("Press ")
    assert [m.content for m in log.siblings(grown.id)][:2] == [whole.content, whole.content]


def test_switching_back_to_a_branch_reads_only_what_the_branches_do_not_share(
    guide: Engine, tmp_path: Path
) -> None:
    session = Session(guide, ConversationStore(tmp_path).create())
    first = reply(session, 200)
    reply(session, 200)
    question = session.conversation.messages[2]
    session.open_version(session.edit_reply(session.conversation.messages[3].id, "Other.").id)
    session.log.select(question.id)
    *_, end = session.regenerate(
        mode=lambda: Mode.SPEED, settings=lambda _: settings(5), cancel=threading.Event()
    )
    assert isinstance(end, ReplyFinished) and end.message.metrics is not None
    metrics = end.message.metrics
    assert metrics.cached_tokens == metrics.prompt_tokens - 1
    assert first.id in [message.id for message in session.conversation.messages]
