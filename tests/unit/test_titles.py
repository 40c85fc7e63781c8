import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.chat.session import Session
from tui_chat.chat.titles import LONGEST, REQUEST, clean_title, wants_title, write_title
from tui_chat.engine.base import EngineError, PollSettings
from tui_chat.engine.echo import EchoEngine
from tui_chat.store.log import ConversationLog, MemoryLog
from tui_chat.types import EngineEvent, GenerationFinished, Message, Role, TextDelta

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
QUESTION = "how do I copy 40 GB of photos off a laptop that is very slow"


class TitleEngine(EchoEngine):
    """Answers the request for a title, one word at a time; nothing is costly for it."""

    def __init__(self, tmp_path: Path, answer: str = "Moving photos off a laptop") -> None:
        script = tmp_path / "script.txt"
        script.write_text("unused", encoding="utf-8")
        super().__init__(script)
        self.answer = answer
        self.finish = "stop"
        self.asked: list[tuple[Message, ...]] = []
        self.takes_back = True
        self.before_each: Callable[[], None] = lambda: None

    def can_take_back(self, tokens: int) -> bool:
        return self.takes_back

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        self.asked.append(tuple(messages))
        for event in super().stream(messages, settings, threading.Event()):
            if isinstance(event, TextDelta):
                continue
            if isinstance(event, GenerationFinished):
                for word in self.answer.split(" "):
                    self.before_each()
                    if cancel.is_set():
                        yield replace(event, finish_reason="cancelled")
                        return
                    yield TextDelta(word + " ")
                event = replace(event, finish_reason=self.finish)  # type: ignore[arg-type]
            yield event


def talk(log: ConversationLog, status: str = "complete", **fields: object) -> ConversationLog:
    log.append(Message("u1", Role.USER, QUESTION, NOW))
    log.suggest_title("how do I copy 40 GB of photos off a…", "prompt")
    reply = Message("a1", Role.ASSISTANT, "With rsync.", NOW, "u1", finish_reason="stop")
    log.append(replace(reply, status=status, **fields))  # type: ignore[arg-type]
    return log


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ("Moving photos", "Moving photos"),
        ('  "Moving photos."\n\nI hope this helps!', "Moving photos"),
        ("**Title: Moving photos**", "Moving photos"),
        ("# Chat title:   Moving\tphotos", "Moving photos"),
        ("«Fotos umziehen»", "Fotos umziehen"),
        ("「写真の移動」", "写真の移動"),
        ("Why 40 GB is slow?", "Why 40 GB is slow?"),
        ("a\x1b[31mb", "a␛[31mb"),
        ("word " * 14 + "end", "word " * 11 + "word…"),
        ("", ""),
        ("\n \n", ""),
        ("...", ""),
        ("I'm sorry, but I cannot do that.", ""),
        ("Sorry, no.", ""),
        ("I can't help with that", ""),
        ("As an AI language model", ""),
        ("Unfortunately", ""),
        (QUESTION, ""),
        ("How do I copy 40 GB", ""),
        (REQUEST, ""),
        ("Write a title", ""),
        ("Certainly, here is a long answer to your question that goes on and on " * 2, ""),
    ],
)
def test_an_answer_is_cleaned_to_a_title_or_refused(answer: str, title: str) -> None:
    assert clean_title(answer, [QUESTION]) == title


@given(st.text(), st.lists(st.text(), max_size=2))
def test_whatever_is_answered_the_title_is_one_short_line(answer: str, asked: list[str]) -> None:
    title = clean_title(answer, asked)
    assert len(title) <= LONGEST and "\n" not in title and title == title.strip()


def test_only_a_chat_with_its_first_words_and_a_whole_reply_wants_a_title() -> None:
    assert not wants_title(MemoryLog().conversation)
    assert wants_title(talk(MemoryLog()).conversation)
    for change in (
        lambda log: log.rename("Mine"),
        lambda log: log.suggest_title("By a model", "model"),
        lambda log: log.append(Message("u2", Role.USER, "more", NOW, "a1")),
    ):
        log = talk(MemoryLog())
        change(log)
        assert not wants_title(log.conversation)
    for fields in (
        {"status": "interrupted", "finish_reason": "cancelled"},
        {"status": "failed", "finish_reason": "error"},
        {"finish_reason": "length"},
    ):
        assert not wants_title(talk(MemoryLog(), **fields).conversation)


def test_the_title_of_the_model_is_stored_and_the_request_is_not(tmp_path: Path) -> None:
    engine = TitleEngine(tmp_path)
    session = Session(engine, talk(MemoryLog()))
    assert write_title(session, None, threading.Event()) == "Moving photos off a laptop"
    conversation = session.conversation
    assert (conversation.title, conversation.title_by) == ("Moving photos off a laptop", "model")
    assert [m.content for m in conversation.messages] == [QUESTION, "With rsync."]
    # One more turn behind what was read already.
    assert [m.content for m in engine.asked[0]] == [QUESTION, "With rsync.", REQUEST]


def test_a_title_that_the_user_chose_meanwhile_stays(tmp_path: Path) -> None:
    engine = TitleEngine(tmp_path)
    log = talk(MemoryLog())
    engine.before_each = lambda: log.rename("Mine")
    assert write_title(Session(engine, log), None, threading.Event()) == ""
    assert (log.conversation.title, log.conversation.title_by) == ("Mine", "user")


def test_a_title_that_is_cancelled_is_not_stored(tmp_path: Path) -> None:
    engine, cancel = TitleEngine(tmp_path), threading.Event()
    log = talk(MemoryLog())
    words = iter(range(9))
    engine.before_each = lambda: cancel.set() if next(words) == 2 else None
    assert write_title(Session(engine, log), None, cancel) == ""
    assert log.conversation.title_by == "prompt"


@pytest.mark.parametrize("answer", ["", "I'm sorry.", QUESTION])
def test_bad_output_keeps_the_first_words(tmp_path: Path, answer: str) -> None:
    log = talk(MemoryLog())
    assert write_title(Session(TitleEngine(tmp_path, answer), log), None, threading.Event()) == ""
    assert log.conversation.title == "how do I copy 40 GB of photos off a…"


def test_an_answer_that_does_not_end_is_no_title(tmp_path: Path) -> None:
    engine = TitleEngine(tmp_path)
    engine.finish = "length"
    assert write_title(Session(engine, talk(MemoryLog())), None, threading.Event()) == ""
    engine.answer = "A title\nand more"
    session = Session(engine, talk(MemoryLog()))
    assert write_title(session, None, threading.Event()) == "A title"


def test_where_it_would_cost_something_nothing_is_asked(tmp_path: Path) -> None:
    engine = TitleEngine(tmp_path)
    engine.takes_back = False
    assert write_title(Session(engine, talk(MemoryLog())), None, threading.Event()) == ""
    engine.takes_back = True
    log = MemoryLog()
    log.append(Message("u1", Role.USER, "word " * 500, NOW))  # all of it would be read
    log.suggest_title("word", "prompt")
    log.append(Message("a1", Role.ASSISTANT, "Yes.", NOW, "u1", finish_reason="stop"))
    assert write_title(Session(engine, log), None, threading.Event()) == ""
    engine.context_window = 64
    assert write_title(Session(engine, talk(MemoryLog())), None, threading.Event()) == ""
    assert write_title(Session(None, talk(MemoryLog())), None, threading.Event()) == ""
    assert engine.asked == []


def test_a_template_that_refuses_the_request_ends_well(tmp_path: Path) -> None:
    class Refusing(TitleEngine):
        def count_tokens(self, *_: object) -> int:
            raise EngineError("roles must alternate")

    session = Session(Refusing(tmp_path), talk(MemoryLog()))
    assert write_title(session, None, threading.Event()) == ""
