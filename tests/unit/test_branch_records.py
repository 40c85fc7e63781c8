"""Forks, switches and exclusions: what is remembered of them, in memory and in the file."""

import errno
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.store.conversations import ConversationStore
from tui_chat.store.log import ConversationLog, MemoryLog, StoreError
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Message, Role

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def message(message_id: str, parent: str | None = None, content: str = "text") -> Message:
    role = Role.ASSISTANT if message_id.startswith("a") else Role.USER
    return Message(message_id, role, content, START, parent)


def forked(log: ConversationLog) -> ConversationLog:
    """u1 with the replies a1 and b1, each with a question below."""
    for message_id, parent in (
        ("u1", None),
        ("a1", "u1"),
        ("u2", "a1"),
        ("a2", "u2"),
        ("ab1", "u1"),
        ("u3", "ab1"),
    ):
        log.append(message(message_id, parent))
    return log


def test_a_branch_ends_where_it_was_left() -> None:
    log = forked(MemoryLog())
    assert log.end_of_branch("a1") == "a2"
    assert log.end_of_branch("ab1") == log.end_of_branch("u1") == "u3"
    log.append(message("a3", "u2"))
    assert log.end_of_branch("a1") == log.end_of_branch("u1") == "a3"
    log.select("a2")
    assert log.end_of_branch("a1") == "a2"
    log.select("u3")
    assert (log.end_of_branch("a1"), log.end_of_branch("u1")) == ("a2", "u3")


def test_the_end_of_an_unknown_branch_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        forked(MemoryLog()).end_of_branch("nobody")


def test_excluding_changes_neither_the_text_nor_the_open_branch() -> None:
    log = forked(MemoryLog())
    log.exclude("ab1", True)
    assert [(m.id, m.excluded) for m in log.conversation.messages] == [
        ("u1", False),
        ("ab1", True),
        ("u3", False),
    ]
    log.exclude("a2", True)
    log.exclude("ab1", False)
    assert not any(m.excluded for m in log.conversation.messages)
    assert log.siblings("a2")[0].excluded
    with pytest.raises(KeyError):
        log.exclude("nobody", True)


def test_a_reply_that_is_continued_stays_excluded(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    log = forked(store.create())
    log.append(message("a4", "u3", "half"))
    log.exclude("a4", True)
    log.begin(message("a4", "u3", "half"))
    log.end(message("a4", "u3", "whole"))
    assert log.conversation.messages[-1].excluded
    log.close()
    assert store.open(log.id).conversation == log.conversation


def test_a_message_that_is_written_twice_after_a_fault_is_one_also_when_excluded() -> None:
    tree = MessageTree(Conversation("id", START))
    once = {"t": "msg", "id": "u1", "parent": None, "role": "user", "content": "one"}
    for record in (once, {"t": "exclude", "id": "u1", "excluded": True}, once):
        tree.apply(record)
    assert [(m.id, m.excluded) for m in tree.messages.values()] == [("u1", True)]


def test_what_is_excluded_while_the_disk_refuses_is_saved_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    store = ConversationStore(tmp_path)
    log = store.create()
    changes: list[Callable[[], None]] = [
        lambda: log.append(message("u1")),
        lambda: log.append(message("a1", "u1")),
        lambda: log.exclude("a1", True),
        lambda: log.select("u1"),
    ]
    with monkeypatch.context() as full:
        full.setattr("tui_chat.store.log.AppendLog", refuse)
        for change in changes:
            with pytest.raises(StoreError):
                change()
    log.close()
    again = store.open(log.id)
    assert again.conversation == log.conversation
    assert again.siblings("a1")[0].excluded


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "ask", "begin", "end", "select", "switch", "exclude"]),
        st.integers(0, 30),
        st.booleans(),
    ),
    max_size=40,
)


def walk(log: ConversationLog, steps: list[tuple[str, int, bool]]) -> list[str]:
    """Do the steps to the log; returns the ids of all messages."""
    ids: list[str] = []
    for step, at, flag in steps:
        target = ids[at % len(ids)] if ids else None
        match step:
            case "answer" | "ask":
                ids.append(f"{'a' if step == 'answer' else 'u'}{len(ids)}")
                log.append(message(ids[-1], None if flag else target))
            case "begin":
                ids.append(f"a{len(ids)}")
                log.begin(message(ids[-1], target, ""))
                log.save_partial(ids[-1], "half")
            case _ if target is None:
                pass
            case "end":
                log.end(message(target, None, "ended"))
            case "select":
                log.select(target)
            case "switch":
                log.select(log.end_of_branch(target))
            case "exclude":
                log.exclude(target, flag)
    return ids


def state(log: Any, ids: list[str]) -> object:
    """All that a reader of the log can tell about its branches."""
    return (
        log.conversation,
        [log.siblings(id_) for id_ in ids],
        {id_: log.end_of_branch(id_) for id_ in ids},
    )


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_any_forks_switches_and_exclusions_survive_a_reload(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool]]
) -> None:
    store = ConversationStore(tmp_path_factory.mktemp("data"))
    log = store.create()
    ids = walk(log, steps)
    before = state(log, ids)
    log.close()
    if ids:
        again = store.open(log.id)
        assert state(again, ids) == before
        assert again.damaged == 0
        again.close()


@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_a_file_that_is_written_anew_remembers_the_same(
    steps: list[tuple[str, int, bool]],
) -> None:
    log = MemoryLog()
    ids = walk(log, steps)
    tree = MessageTree(Conversation(log.id, START))
    for record in log._tree.records():
        tree.apply(record)
    assert state(tree, ids) == state(log, ids)


@given(steps=STEPS)
def test_a_branch_ends_below_its_message_and_switching_twice_comes_back(
    steps: list[tuple[str, int, bool]],
) -> None:
    log = MemoryLog()
    ids = walk(log, steps)
    for id_ in ids:
        end = log.end_of_branch(id_)
        log.select(end)
        assert id_ in [m.id for m in log.conversation.messages]
        for other in log.siblings(id_):
            log.select(log.end_of_branch(other.id))
        log.select(log.end_of_branch(id_))
        assert log.conversation.messages[-1].id == end
