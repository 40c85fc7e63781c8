"""A title by the model costs the conversation nothing: what was read of it stays read."""

import threading
from itertools import pairwise

import pytest
from tiny_models import make_engine

from tui_chat.chat import titles
from tui_chat.chat.session import Session
from tui_chat.chat.titles import REQUEST, wants_title, write_title
from tui_chat.engine.local import LocalEngine
from tui_chat.store.log import MemoryLog
from tui_chat.types import GenerationSettings, Message, Mode, ReplyFinished

pytestmark = pytest.mark.engine

QUESTION = "the quick brown fox jumps over the lazy dog, and the weather is nice"


@pytest.fixture(autouse=True)
def tiny_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tokenizer of a tiny model makes a token of every two characters or so."""
    monkeypatch.setattr(titles, "_MOST_TO_READ", 1000)


def reply(session: Session, text: str, stop: str = "") -> Message:
    stops = (stop,) if stop else ()
    settings = GenerationSettings(max_new_tokens=40, do_sample=False, stop_strings=stops)
    events = session.reply(
        text, mode=lambda: Mode.SPEED, settings=lambda _: settings, cancel=threading.Event()
    )
    *_, finished = events
    assert isinstance(finished, ReplyFinished)
    return finished.message


def first_reply(engine: LocalEngine) -> Session:
    """A conversation with one reply that ended by itself."""
    whole = reply(Session(engine, MemoryLog()), QUESTION).content
    session = Session(engine, MemoryLog())
    stop = next(a + b for a, b in pairwise(whole[20:]) if a + b not in whole[:20])
    assert reply(session, QUESTION, stop).finish_reason == "stop"
    assert wants_title(session.conversation)
    return session


def is_read(session: Session, engine: LocalEngine) -> bool:
    """Whether the model has read the request for a title."""
    plan = session.plan(REQUEST, False)
    assert plan is not None
    return engine.count_cached(plan.kept, False) == plan.prompt_tokens - 1


@pytest.mark.parametrize("kind", ["llama", "qwen3", "mixtral"])
def test_the_prompt_after_a_title_reuses_as_much_and_gets_the_same_reply(kind: str) -> None:
    plain, titled = make_engine(kind), make_engine(kind)
    without, with_title = first_reply(plain), first_reply(titled)
    write_title(with_title, None, threading.Event())
    assert is_read(with_title, titled)
    a, b = (reply(session, "and then?") for session in (without, with_title))
    assert a.content == b.content
    assert a.metrics is not None and b.metrics is not None
    assert b.metrics.cached_tokens >= a.metrics.cached_tokens > 30
    assert b.metrics.cache_note == ""


def test_a_reply_that_is_written_again_after_a_title_reuses_the_question() -> None:
    engine = make_engine()
    session = first_reply(engine)
    write_title(session, None, threading.Event())
    settings = GenerationSettings(max_new_tokens=8, do_sample=False)
    *_, finished = session.regenerate(
        mode=lambda: Mode.SPEED, settings=lambda _: settings, cancel=threading.Event()
    )
    assert isinstance(finished, ReplyFinished) and finished.message.metrics is not None
    metrics = finished.message.metrics
    assert metrics.cached_tokens == metrics.prompt_tokens - 1


@pytest.mark.parametrize("kind", ["gemma3", "lfm2", "qwen3_next"])
def test_a_model_whose_cache_cannot_be_cut_back_is_not_asked(kind: str) -> None:
    engine = make_engine(kind)
    session = first_reply(engine)
    assert write_title(session, None, threading.Event()) == ""
    assert not is_read(session, engine)


def test_without_anything_in_the_cache_nothing_is_read() -> None:
    session = first_reply(make_engine())
    session.engine = engine = make_engine()
    assert write_title(session, None, threading.Event()) == ""
    assert not is_read(session, engine)


def test_a_title_that_is_cancelled_leaves_the_cache_to_the_next_prompt() -> None:
    engine = make_engine()
    session = first_reply(engine)
    cancel = threading.Event()
    cancel.set()
    assert write_title(session, None, cancel) == ""
    after = reply(session, "and then?")
    assert after.metrics is not None and after.metrics.cached_tokens > 30
