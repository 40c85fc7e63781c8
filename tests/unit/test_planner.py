"""A long conversation of which the end is loaded is planned as if all of it were."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.chat.context import PromptTooLong
from tui_chat.chat.session import Session, SessionError
from tui_chat.engine.echo import EchoEngine
from tui_chat.store import conversations, loading, tail
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.records import encode, message_record
from tui_chat.types import (
    ContextPlan,
    GenerationSettings,
    Message,
    Mode,
    ReplyFinished,
    ReplyStarted,
    Role,
)

ID = "20260301-120000-0000000a"
WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)
SYNC = "fdatasync" if hasattr(os, "fdatasync") else "fsync"  # macOS has only the latter


class Counting(EchoEngine):
    """A message has as many tokens as characters, and four."""

    def count_message(self, message: Message) -> int:
        return len(message.content) + 4

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        return sum(map(self.count_message, messages)) + 3


@st.composite
def branches(draw: st.DrawFn) -> list[Message]:
    """A branch as it may be: unanswered questions, several replies in a row, system messages."""
    roles = st.sampled_from([Role.USER] * 9 + [Role.ASSISTANT] * 9 + [Role.SYSTEM])
    regular = draw(st.booleans())
    messages: list[Message] = []
    for number in range(draw(st.integers(0, 60))):
        role = (Role.USER, Role.ASSISTANT)[number % 2] if regular else draw(roles)
        messages.append(
            Message(
                id=f"m{number:02}",
                role=role,
                content="x" * draw(st.integers(0, 40)),
                created_at=WHEN,
                parent_id=messages[-1].id if messages else None,
                status=draw(st.sampled_from(["complete"] * 9 + ["failed"])),
                excluded=draw(st.integers(0, 9)) == 0,
            )
        )
    return messages


@contextmanager
def session_of(
    folder: Path, messages: Sequence[Message], window: int, first_bytes: int
) -> Iterator[Session]:
    path = folder / "chats" / f"{ID}.jsonl"
    path.parent.mkdir()
    meta = {"t": "meta", "v": 1, "title": "T", "system_prompt": "Be brief."}
    lines = [meta, *(message_record("msg", message) for message in messages)]
    path.write_bytes(b"".join(map(encode, lines)))
    script = folder / "script"
    script.write_text("A reply.")
    with (
        mock.patch.object(tail, "FIRST_BYTES", first_bytes),
        mock.patch.object(loading, "FIRST_BYTES", first_bytes),
        mock.patch.object(conversations, "FEWEST", 1),
        mock.patch.object(os, SYNC, lambda descriptor: None),
    ):
        log = ConversationStore(folder, folder / "cache").open(ID)
        engine = Counting(script, context_window=window)
        yield Session(engine, log, reserved_tokens=20)
        log.close()


def said(messages: Sequence[Message]) -> list[tuple[str, str, str]]:
    """What is said, and by which message where it is not made anew."""
    return [(m.role, m.content, m.id if m.id.startswith("m") else "") for m in messages]


def sent(plan: ContextPlan | None) -> tuple[object, ...]:
    assert plan is not None
    return (said(plan.kept), plan.prompt_tokens, plan.budget)


def asked(session: Session, action: str, text: str) -> tuple[object, ...]:
    options = {
        "mode": lambda: Mode.SPEED,
        "settings": lambda mode: GenerationSettings(max_new_tokens=5),
        "cancel": Event(),
    }
    try:
        match action:
            case "plan":
                return sent(session.plan(text))
            case "reply":
                events = list(session.reply(text, **options))
            case "regenerate":
                events = list(session.regenerate(**options))
            case "edit":
                first = session.conversation.messages[0]
                events = list(session.edit(first.id, text, **options))
            case _:
                events = list(session.continue_reply(**options))
    except (SessionError, PromptTooLong) as error:
        return (str(error),)
    plans = [sent(event.plan) for event in events if isinstance(event, ReplyStarted)]
    ends = [event.message.content for event in events if isinstance(event, ReplyFinished)]
    return (plans, ends)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["plan", "reply", "reply", "regenerate", "continue"]),
        st.integers(0, 60).map("q".__mul__),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(branches(), st.integers(60, 900), ACTIONS, st.integers(1, 1500))
def test_what_is_sent_does_not_depend_on_how_much_is_loaded(
    tmp_path_factory: pytest.TempPathFactory,
    messages: list[Message],
    window: int,
    actions: list[tuple[str, str]],
    first: int,
) -> None:
    one, other = tmp_path_factory.mktemp("end"), tmp_path_factory.mktemp("whole")
    with (
        session_of(other, messages, window, 1 << 20) as whole,
        session_of(one, messages, window, first) as session,
    ):
        for action, text in actions:
            assert asked(session, action, text) == asked(whole, action, text)
            plan, full = session.plan(), whole.plan()
            assert plan is not None and full is not None
            dropped, all_dropped = said(plan.dropped), said(full.dropped)
            assert dropped == all_dropped[len(all_dropped) - len(dropped) :]
            assert plan.drops_earlier or dropped == all_dropped
            assert bool(dropped or plan.drops_earlier) == bool(all_dropped)


def chat(turns: int) -> list[Message]:
    messages: list[Message] = []
    for number in range(2 * turns):
        role = (Role.USER, Role.ASSISTANT)[number % 2]
        parent = messages[-1].id if messages else None
        messages.append(Message(f"m{number:04}", role, "x" * 46, WHEN, parent))
    return messages


def test_no_more_is_loaded_than_the_window_takes(tmp_path: Path) -> None:
    with session_of(tmp_path, chat(1000), 2000, 4000) as session:
        plan = session.plan("and now?")
        assert plan is not None and plan.drops_earlier
        assert plan.prompt_tokens > 1000
        assert session.conversation.has_earlier
        assert len(session.conversation.messages) < 200


def test_a_question_before_what_is_loaded_can_be_asked_anew(tmp_path: Path) -> None:
    messages = chat(40)
    with session_of(tmp_path, messages, 400, 2000) as session:
        first = session.conversation.messages[0]
        assert first.id != messages[0].id
        number = messages.index(first)
        if first.role is not Role.USER:
            number -= 1
        asked_anew = session.edit(
            messages[number].id,
            "anew",
            mode=lambda: Mode.SPEED,
            settings=lambda mode: GenerationSettings(),
            cancel=Event(),
        )
        started = next(event for event in asked_anew if isinstance(event, ReplyStarted))
        asked_anew.close()
        system, *kept, anew = started.plan.kept
        assert (system.content, anew.content) == ("Be brief.", "anew")
        assert 2 <= len(kept) < number
        assert kept == messages[number - len(kept) : number]
        assert session.log.siblings(messages[number].id)[1].content == "anew"
