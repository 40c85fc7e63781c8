import errno
import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.store import tail
from tui_chat.store.conversations import (
    ConversationLog,
    ConversationStore,
    MemoryLog,
    StoreError,
)
from tui_chat.types import Message, Mode, Precision, ReplyMetrics, Role

SYNC = "fdatasync" if hasattr(os, "fdatasync") else "fsync"  # macOS has only the latter
BLNS = Path(__file__).parents[3] / "shared" / "data" / "blns.json"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SEPARATORS = "a\u2028b\u2029c\x85d\x0be\x1cf\rg\r\nh\ni\x00j\ufeffk"
METRICS = ReplyMetrics(
    31, 20, 7, 0.001, 0.25, 0.5, Precision.INT4, 123_456_789, 5, "it cannot be cut back", "off"
)


def message(
    message_id: str, content: str = "text", parent: str | None = None, minute: int = 0
) -> Message:
    role = Role.ASSISTANT if message_id.startswith("a") else Role.USER
    return Message(message_id, role, content, START + timedelta(minutes=minute), parent)


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    return ConversationStore(tmp_path)


@pytest.fixture
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that write thousands of records: waiting for the disk proves nothing there."""
    monkeypatch.setattr(os, SYNC, lambda descriptor: None)


def path_of(folder: Path, log: ConversationLog) -> Path:
    return folder / "chats" / f"{log.id}.jsonl"


def reopened(folder: Path, conversation_id: str) -> ConversationLog:
    log = ConversationStore(folder).open(conversation_id)
    log.load_all()
    return log


def contents(log: ConversationLog) -> list[str]:
    return [m.content for m in log.conversation.messages]


# Round trips


def test_conversation_reads_back_with_every_field(store: ConversationStore, tmp_path: Path) -> None:
    log = store.create(title="T", model="M", tokenizer_id="K", system_prompt="S")
    reply = replace(
        message("a1", "answer", "u1"),
        reasoning="thought",
        status="failed",
        finish_reason="error",
        error="Out of memory.",
        model="guide",
        revision="4af31bc",
        tokenizer_id="K:1f",
        mode=Mode.ACCURACY,
        seed=2**63,
        token_count=7,
        metrics=METRICS,
    )
    log.append(message("u1", "question"))
    log.begin(replace(reply, content=""))
    log.end(reply)
    before = log.conversation
    log.close()
    again = reopened(tmp_path, before.id)
    assert again.conversation == before
    assert again.conversation.messages[1] == reply
    assert (again.damaged, again.pending, again.read_only) == (0, 0, False)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=())), min_size=1, max_size=4))
def test_any_text_reads_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    log = ConversationStore(folder).create(title=texts[0], system_prompt=texts[-1])
    parent = None
    for number, text in enumerate(texts):
        log.append(message(f"u{number}", text, parent))
        parent = f"u{number}"
    before = log.conversation
    log.close()
    assert reopened(folder, log.id).conversation == before


@pytest.mark.parametrize("text", [SEPARATORS, "\ud800", "\ud83d\ude00", "x\udc80y\U0001f600"])
def test_line_separators_and_surrogates_read_back_exactly(
    store: ConversationStore, tmp_path: Path, text: str
) -> None:
    log = store.create(title=text, system_prompt=text)
    log.append(message("u1", text))
    log.begin(message("a1", "", "u1"))
    for end in range(1, len(text) + 1):
        log.save_partial("a1", text[:end], text[:end])
    log.rename(text)
    log.close()
    again = reopened(tmp_path, log.id)
    assert again.conversation == log.conversation
    assert again.conversation.messages[1].content == text
    assert ConversationStore(tmp_path).summaries()[0].title == text


@pytest.mark.skipif(not BLNS.exists(), reason="the list of naughty strings is not here")
@pytest.mark.usefixtures("no_sync")
def test_naughty_strings_read_back_as_message_title_and_search_text(
    store: ConversationStore, tmp_path: Path
) -> None:
    strings = json.loads(BLNS.read_text("utf-8"))
    log = store.create()
    parent = None
    for number, text in enumerate(strings):
        log.append(message(f"u{number}", text, parent))
        log.rename(text)
        log.set_system_prompt(text)
        parent = f"u{number}"
        assert log.conversation.title == text
    log.close()
    again = reopened(tmp_path, log.id)
    assert contents(again) == strings
    for text in strings[::10]:
        assert [hit.conversation_id for hit in store.search(text)] == (
            [log.id] if text.strip() else []
        )


# Replies in progress


def test_reply_without_an_end_reads_back_as_interrupted(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create()
    log.append(message("u1"))
    log.begin(replace(message("a1", "", "u1"), model="guide"))
    log.save_partial("a1", "One two", "thinking")
    log.save_partial("a1", "One two three", "thinking")
    data = path_of(tmp_path, log).read_bytes()
    assert data.count(b"One two") == 1  # the second part holds only what is new
    log.close()
    reply = reopened(tmp_path, log.id).conversation.messages[-1]
    assert (reply.content, reply.reasoning, reply.status) == (
        "One two three",
        "thinking",
        "interrupted",
    )
    assert reply.model == "guide"


def test_partial_may_take_back_text_that_cleaning_removed(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create()
    log.append(message("u1"))
    log.begin(message("a1", "", "u1"))
    for text in ("Hello <|im", "Hello", "Hello there", "Hexxo", ""):
        log.save_partial("a1", text)
        path = path_of(tmp_path, log)
        (tmp_path / "copy" / "chats").mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / "chats" / path.name).write_bytes(path.read_bytes())
        assert contents(reopened(tmp_path / "copy", log.id))[-1] == text


def test_partial_of_an_unknown_reply_is_a_key_error(store: ConversationStore) -> None:
    with pytest.raises(KeyError):
        store.create().save_partial("nobody", "text")


def test_text_of_a_reply_whose_beginning_is_damaged_is_shown(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create()
    log.append(message("u1"))
    log.begin(message("a1", "", "u1"))
    log.save_partial("a1", "kept")
    log.close()
    path = path_of(tmp_path, log)
    path.write_bytes(path.read_bytes().replace(b'{"t":"begin"', b'{"t":"beg'))
    again = reopened(tmp_path, log.id)
    assert contents(again) == ["text", "kept"]
    assert again.damaged == 1


# Branches


def test_regenerated_reply_is_a_sibling_and_select_switches(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create()
    log.append(message("u1", "question"))
    log.append(message("a1", "first", "u1"))
    log.append(message("a2", "second", "u1"))
    assert contents(log) == ["question", "second"]
    assert [m.id for m in log.siblings("a1")] == ["a1", "a2"]
    log.select("a1")
    assert contents(log) == ["question", "first"]
    log.close()
    assert contents(reopened(tmp_path, log.id)) == ["question", "first"]


def test_edited_first_prompt_starts_a_second_root(store: ConversationStore) -> None:
    log = store.create()
    log.append(message("u1", "one"))
    log.append(message("a1", "reply", "u1"))
    log.append(message("u2", "uno"))
    assert contents(log) == ["uno"]
    assert [m.id for m in log.siblings("u2")] == ["u1", "u2"]


def test_selecting_an_unknown_message_is_a_key_error(store: ConversationStore) -> None:
    with pytest.raises(KeyError):
        store.create().select("nobody")


def test_memory_log_behaves_like_the_file_without_one() -> None:
    log = MemoryLog(title="T", model="M", tokenizer_id="K", system_prompt="S")
    log.append(message("u1"))
    log.begin(message("a1", "", "u1"))
    log.save_partial("a1", "half")
    assert contents(log) == ["text", "half"]
    log.end(message("a1", "whole", "u1"))
    log.rename("New")
    log.set_system_prompt("Other")
    log.select("u1")
    assert (log.conversation.title, log.conversation.system_prompt) == ("New", "Other")
    assert contents(log) == ["text"]
    assert (log.pending, log.damaged, log.read_only) == (0, 0, False)
    log.close()


# Files, names and permissions


def test_empty_chat_leaves_no_file(store: ConversationStore, tmp_path: Path) -> None:
    log = store.create(title="T")
    log.rename("Other")
    log.set_system_prompt("S")
    log.close()
    assert not (tmp_path / "chats").exists()
    assert store.summaries() == []


def test_title_and_system_prompt_set_before_the_first_message_are_stored(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create()
    log.rename("Early")
    log.set_system_prompt("Be brief.")
    log.append(message("u1"))
    log.close()
    again = reopened(tmp_path, log.id).conversation
    assert (again.title, again.system_prompt) == ("Early", "Be brief.")


def test_flags_are_stored_and_change_one_by_one(store: ConversationStore, tmp_path: Path) -> None:
    log = store.create()
    log.flag(archived=True)  # before there is a file
    log.append(message("u1"))
    log.flag(pinned=True)
    log.flag(archived=False)
    log.close()
    again = reopened(tmp_path, log.id)
    assert (again.conversation.pinned, again.conversation.archived) == (True, False)
    again.flag(pinned=False)
    assert not again.conversation.pinned
    (summary,) = store.summaries()
    assert (summary.pinned, summary.archived) == (False, False)


def test_a_title_that_the_user_chose_is_never_replaced_by_another(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create()
    log.append(message("u1"))
    assert log.suggest_title("First words", "prompt")
    assert log.suggest_title("By the model", "model")
    assert (log.conversation.title, log.conversation.title_by) == ("By the model", "model")
    log.rename("Mine")
    assert not log.suggest_title("By the model", "model")
    log.close()
    again = reopened(tmp_path, log.id)
    assert not again.suggest_title("First words", "prompt")
    assert (again.conversation.title, again.conversation.title_by) == ("Mine", "user")


def test_summaries_can_be_those_with_a_flag_alone(store: ConversationStore) -> None:
    for flags in ({}, {"pinned": True}, {"archived": True}):
        log = store.create()
        log.append(message("u1", str(flags), minute=len(store.summaries())))
        log.flag(**flags)
        log.close()
    titles = {"pinned": "{'pinned': True}", "archived": "{'archived': True}"}
    for name, title in titles.items():
        assert [s.title for s in store.summaries(**{name: True})] == [title]
        assert title not in [s.title for s in store.summaries(**{name: False})]
    assert [s.title for s in store.summaries(2, archived=False)] == [titles["pinned"], "{}"]
    count, size = store.totals()
    files = list(store.folder.iterdir())
    assert (count, size) == (3, sum(path.stat().st_size for path in files))


def test_the_last_messages_are_those_of_the_open_branch(store: ConversationStore) -> None:
    log = store.create()
    parent = None
    for number in range(6):
        log.append(message(f"u{number}", f"text {number}", parent))
        parent = f"u{number}"
    log.append(message("other", "another branch", "u4"))
    log.select("u5")
    log.close()
    assert [m.id for m in store.last_messages(log.id, 3)] == ["u3", "u4", "u5"]
    assert len(store.last_messages(log.id, 99)) == 6
    with pytest.raises(StoreError, match="no such chat"):
        store.last_messages("20260101-000000-00000000", 3)


def test_the_last_messages_of_a_long_file_are_read_from_its_end(
    store: ConversationStore, monkeypatch: pytest.MonkeyPatch, no_sync: None
) -> None:
    log = store.create()
    parent = None
    for number in range(400):
        log.append(message(f"u{number}", f"{number} " + "x" * 2000, parent))
        parent = f"u{number}"
    log.append(message("long", "y" * 300_000, parent))
    log.close()
    parsed: list[bytes] = []
    real = tail.decode
    monkeypatch.setattr(tail, "decode", lambda line: (parsed.append(line), real(line))[1])
    assert [m.id for m in store.last_messages(log.id, 2)] == ["u399", "long"]
    assert sum(map(len, parsed)) < (store.folder / f"{log.id}.jsonl").stat().st_size / 2


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = tmp_path / "share" / "tui-chat"
        store = ConversationStore(folder)
        log = store.create()
        log.append(message("u1"))
        log.close()
        path = path_of(folder, log)
        store.delete(log.id)
        store.restore(log.id)
    finally:
        os.umask(old)
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (path, *path.parents[:3])}
    assert modes.pop(path) == 0o600
    assert set(modes.values()) == {0o700}
    assert stat.S_IMODE((folder / "trash").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "bad", ["", "..", "../../etc/passwd", "20260101-000000-0000000g", "a/b", "x\x00", "٢" * 8]
)
def test_ids_from_outside_never_leave_the_folder(store: ConversationStore, bad: str) -> None:
    for action in (store.open, store.delete, store.restore):
        with pytest.raises(StoreError):
            action(bad)


def test_unknown_chat_is_one_sentence(store: ConversationStore) -> None:
    with pytest.raises(StoreError, match="no such chat"):
        store.open("20260101-000000-00000000")


def test_links_pipes_and_folders_are_neither_followed_nor_waited_for(
    store: ConversationStore, tmp_path: Path
) -> None:
    chats = tmp_path / "chats"
    chats.mkdir()
    (tmp_path / "secret").write_text('{"t":"msg","id":"x","role":"user","content":"secret"}\n')
    (chats / "20260101-000000-00000001.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(chats / "20260101-000000-00000002.jsonl")
    (chats / "20260101-000000-00000003.jsonl").mkdir()
    (chats / "notes.jsonl").write_text("{}\n")
    assert store.summaries() == []
    assert store.search("secret") == []
    for number in (1, 2, 3):
        with pytest.raises(StoreError):
            store.open(f"20260101-000000-0000000{number}")


def test_folder_that_is_a_file_gives_a_sentence_and_keeps_the_message(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("in the way")
    store = ConversationStore(tmp_path)
    log = store.create()
    with pytest.raises(StoreError, match="kept in memory"):
        log.append(message("u1", "kept"))
    assert (log.pending, contents(log)) == (1, ["kept"])
    (tmp_path / "chats").unlink()
    log.close()
    assert contents(reopened(tmp_path, log.id)) == ["kept"]


# Damage


def build(folder: Path) -> tuple[str, bytes]:
    log = ConversationStore(folder).create(title="Tïtle")
    log.append(message("u1", "first ✓"))
    log.begin(message("a1", "", "u1"))
    log.save_partial("a1", "par")
    log.end(message("a1", "second", "u1"))
    log.append(message("u2", "third", "a1"))
    log.close()
    return log.id, path_of(folder, log).read_bytes()


def test_every_truncation_loads_and_takes_another_message(tmp_path: Path) -> None:
    conversation_id, data = build(tmp_path / "whole")
    folder = tmp_path / "cut"
    (folder / "chats").mkdir(parents=True)
    path = folder / "chats" / f"{conversation_id}.jsonl"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole_lines = data[:length].count(b"\n")
        log = reopened(folder, conversation_id)
        shown = contents(log)
        assert len(shown) >= (0, 0, 1, 2, 2, 2, 3)[whole_lines]
        head = log.conversation.messages[-1].id if shown else None
        log.append(message("u9", "after", head))
        log.close()
        assert path.read_bytes().startswith(data[:length])  # nothing is ever cut away
        again = reopened(folder, conversation_id)
        assert contents(again) == [*shown, "after"]
        assert again.conversation.title == ("Tïtle" if whole_lines else again.conversation.title)
        assert ConversationStore(folder).summaries()[0].message_count == len(shown) + 1
        again.close()


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[1, 2]",
        b'"text"',
        b"{}",
        b'{"t":5}',
        b"[" * 100_000,
        b'{"t":"msg","id":"x","role":"user","content":"y","seed":' + b"9" * 5000 + b"}",
        b'{"t":"msg","id":"x","role":"wizard","content":"y"}',
        b'{"t":"msg","id":"","role":"user","content":"y"}',
        b'{"t":"msg","id":"x","role":"user","content":["y"]}',
        b'{"t":"head","id":["u1"]}',
        b'{"t":"part","id":null}',
        b'{"t":"title","title":null}',
        b'{"t":"meta","v":"1"}',
        b"\xff\xfe\x80",
    ],
)
def test_damaged_record_is_skipped_and_counted(tmp_path: Path, line: bytes) -> None:
    conversation_id, data = build(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    lines = data.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line, b"\n", *lines[3:]]))
    log = reopened(tmp_path, conversation_id)
    assert contents(log) == ["first ✓", "second", "third"]
    assert log.damaged == 1
    assert ConversationStore(tmp_path).summaries()[0].title == "Tïtle"


def test_runs_of_nul_bytes_are_passed_over(tmp_path: Path) -> None:
    conversation_id, data = build(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    path.write_bytes(data.replace(b"\n", b"\n" + b"\x00" * 4096, 3))
    log = reopened(tmp_path, conversation_id)
    assert contents(log) == ["first ✓", "second", "third"]
    assert log.damaged == 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bytes_in_the_file_never_raise(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("data")
    conversation_id, content = build(folder)
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    noise = data.draw(st.binary(max_size=20))
    path = folder / "chats" / f"{conversation_id}.jsonl"
    path.write_bytes(content[:start] + noise + content[end:])
    store = ConversationStore(folder)
    store.summaries()
    store.search("second")
    log = store.open(conversation_id)
    if not log.read_only:
        log.append(message("u9", "after"))
        assert contents(log)[-1] == "after"


def test_unknown_records_and_fields_are_kept_and_passed_over(tmp_path: Path) -> None:
    conversation_id, data = build(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    extra = b'{"t":"pin","id":"u1","colour":"red"}\n'
    data = data.replace(b'"role":', b'"stars":5,"role":') + extra
    path.write_bytes(data)
    log = reopened(tmp_path, conversation_id)
    assert (contents(log), log.damaged) == (["first ✓", "second", "third"], 0)
    log.append(message("u3", "fourth", "u2"))
    log.close()
    assert path.read_bytes().startswith(data)


def test_unknown_values_of_lesser_fields_do_not_hide_a_message(tmp_path: Path) -> None:
    conversation_id, data = build(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    record = {
        "t": "msg",
        "id": "a2",
        "parent": "u2",
        "role": "assistant",
        "content": "odd",
        "created_at": "soon",
        "status": "pondering",
        "finish_reason": "boredom",
        "mode": ["speed"],
        "seed": "x",
        "token_count": True,
        "metrics": {"prompt_tokens": -4, "decode_seconds": 10**400, "precision": "2-bit", "w": 1},
    }
    path.write_bytes(data + json.dumps(record).encode() + b"\n")
    reply = reopened(tmp_path, conversation_id).conversation.messages[-1]
    assert (reply.content, reply.status, reply.finish_reason) == ("odd", "complete", None)
    assert (reply.mode, reply.seed, reply.token_count) == (None, None, None)
    assert reply.metrics == ReplyMetrics()


def test_newer_version_is_shown_but_never_written(tmp_path: Path) -> None:
    conversation_id, data = build(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    data = data.replace(b'"v":1', b'"v":2')[:-1]
    path.write_bytes(data)
    log = reopened(tmp_path, conversation_id)
    assert contents(log) == ["first ✓", "second", "third"]
    assert "newer" in log.read_only_reason
    with pytest.raises(StoreError, match="newer"):
        log.append(message("u3", "fourth", "u2"))
    assert contents(log)[-1] == "third"
    log.close()
    assert path.read_bytes() == data


def write_records(folder: Path, *records: dict[str, object]) -> str:
    conversation_id = "20260101-000000-00000000"
    (folder / "chats").mkdir(exist_ok=True)
    text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records)
    (folder / "chats" / f"{conversation_id}.jsonl").write_text(text)
    return conversation_id


def raw(message_id: str, parent: str | None, content: str = "") -> dict[str, object]:
    return {
        "t": "msg",
        "id": message_id,
        "parent": parent,
        "role": "user",
        "content": content or message_id,
    }


@pytest.mark.parametrize(
    ("records", "shown"),
    [
        ([raw("a", None), raw("c", "lost"), raw("d", "c")], "acd"),
        ([raw("a", None), raw("c", "lost"), raw("d", "lost")], "ad"),
        ([raw("a", "b"), raw("b", "a")], "ab"),
        ([raw("a", "a"), raw("b", "b")], "ab"),
        ([raw("a", "c"), raw("b", "a"), raw("c", "b")], "abc"),
    ],
)
def test_missing_parents_and_cycles_fall_back_to_the_order_of_the_file(
    tmp_path: Path, records: list[dict[str, object]], shown: str
) -> None:
    log = reopened(tmp_path, write_records(tmp_path, {"t": "meta", "v": 1}, *records))
    assert "".join(contents(log)) == shown


def test_two_messages_with_one_id_are_both_shown(tmp_path: Path) -> None:
    conversation_id = write_records(
        tmp_path, raw("a", None), raw("a", "a", "other"), raw("b", "a"), raw("b", "a")
    )
    log = reopened(tmp_path, conversation_id)
    assert contents(log) == ["a", "b"]
    log.select("a-2")
    assert contents(log) == ["a", "other"]


def test_order_is_that_of_the_file_when_the_clock_runs_backwards(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create()
    for number, year in enumerate((9999, 1970, 2026)):
        parent = f"u{number - 1}" if number else None
        log.append(
            replace(message(f"u{number}", str(year), parent), created_at=START.replace(year=year))
        )
    log.close()
    assert contents(reopened(tmp_path, log.id)) == ["9999", "1970", "2026"]


# A disk that refuses


class Disk:
    """Lets `os.write` and the sync fail while `error` is set, or write only `short` bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = 0
        self.short = 0
        write, sync = os.write, getattr(os, SYNC)

        def failing_write(descriptor: int, data: bytes) -> int:
            if self.short:
                return write(descriptor, data[: self.short])
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            return write(descriptor, data)

        def failing_sync(descriptor: int) -> None:
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
            sync(descriptor)

        monkeypatch.setattr(os, "write", failing_write)
        monkeypatch.setattr(os, SYNC, failing_sync)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "EDQUOT", "EROFS", "short"])
@pytest.mark.parametrize("at_start", [True, False])
def test_refused_messages_stay_in_memory_and_are_saved_later(
    store: ConversationStore, tmp_path: Path, disk: Disk, fault: str, at_start: bool
) -> None:
    log = store.create()
    expected = []
    if not at_start:
        log.append(message("u0", "before"))
        expected.append("before")
    if fault == "short":
        disk.short = 5
    else:
        disk.error = getattr(errno, fault)
    parent = None if at_start else "u0"
    for number in (1, 2):
        with pytest.raises(StoreError, match=r"^The chat is not saved because .*\.$"):
            log.append(message(f"u{number}", str(number), parent))
        parent = f"u{number}"
        expected.append(str(number))
    assert log.pending == 2
    assert contents(log) == expected
    assert log.damaged == 0
    disk.short = disk.error = 0
    log.append(message("u3", "3", parent))
    assert log.pending == 0
    log.close()
    again = reopened(tmp_path, log.id)
    assert (contents(again), again.damaged) == ([*expected, "3"], 0)


def test_pending_messages_are_saved_on_close(
    store: ConversationStore, tmp_path: Path, disk: Disk
) -> None:
    log = store.create()
    disk.error = errno.ENOSPC
    with pytest.raises(StoreError, match="disk is full"):
        log.append(message("u1", "kept"))
    with pytest.raises(StoreError):
        log.rename("Title")
    disk.error = 0
    log.close()
    again = reopened(tmp_path, log.id)
    assert (contents(again), again.conversation.title) == (["kept"], "Title")


def test_close_says_when_something_is_lost(store: ConversationStore, disk: Disk) -> None:
    log = store.create()
    disk.error = errno.ENOSPC
    with pytest.raises(StoreError):
        log.append(message("u1"))
    with pytest.raises(StoreError):
        log.close()
    log.close()
    assert store.summaries() == []


def test_refused_partial_is_part_of_the_next_one(
    store: ConversationStore, tmp_path: Path, disk: Disk
) -> None:
    log = store.create()
    log.append(message("u1"))
    log.begin(message("a1", "", "u1"))
    log.save_partial("a1", "one ")
    disk.error = errno.ENOSPC
    with pytest.raises(StoreError):
        log.save_partial("a1", "one two ")
    disk.error = 0
    log.save_partial("a1", "one two three")
    log.close()
    assert contents(reopened(tmp_path, log.id))[-1] == "one two three"


def test_file_size_limit_leaves_no_torn_line(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    log = store.create()
    log.append(message("u1", "small"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(StoreError):
            log.append(message("u2", "x" * 5000, "u1"))
        assert path_of(tmp_path, log).read_bytes().endswith(b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.close()
    again = reopened(tmp_path, log.id)
    assert (contents(again), again.damaged) == (["small", "x" * 5000], 0)


def test_torn_line_that_could_not_be_taken_back_costs_no_other_record(
    store: ConversationStore, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = store.create()
    log.append(message("u1", "one"))

    def refuse(descriptor: int, size: int) -> None:
        raise OSError(errno.EPERM, "append only")

    monkeypatch.setattr(os, "ftruncate", refuse)
    disk.short = 20
    with pytest.raises(StoreError):
        log.append(message("u2", "two", "u1"))
    disk.short = 0
    log.close()
    again = reopened(tmp_path, log.id)
    assert (contents(again), again.damaged) == (["one", "two"], 1)


# Files that change under us


def test_deleted_file_is_made_again_with_everything_in_it(
    store: ConversationStore, tmp_path: Path
) -> None:
    conversation_id, data = build(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    path.write_bytes(data + b'{"t":"pin","id":"u1"}\n')
    log = store.open(conversation_id)
    path.unlink()
    path.parent.rmdir()
    log.append(message("u3", "fourth", "u2"))
    log.close()
    assert path.read_bytes().startswith(data + b'{"t":"pin","id":"u1"}\n')
    assert contents(reopened(tmp_path, conversation_id))[-1] == "fourth"


def test_replaced_file_is_left_alone_and_the_chat_goes_on_in_another(
    store: ConversationStore, tmp_path: Path
) -> None:
    conversation_id, data = build(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    log = store.open(conversation_id)
    other = tmp_path / "other"
    other.write_bytes(data[: data.index(b"\n") + 1])
    os.replace(other, path)
    log.append(message("u3", "fourth", "u2"))
    log.close()
    assert path.read_bytes() == data[: data.index(b"\n") + 1]
    assert log.id != conversation_id
    assert contents(reopened(tmp_path, log.id)) == ["first ✓", "second", "third", "fourth"]


def test_file_cut_short_by_others_is_filled_again(store: ConversationStore, tmp_path: Path) -> None:
    for keep in (0, 1, 50, 300):
        conversation_id, _ = build(tmp_path)
        log = store.open(conversation_id)
        log.begin(message("a3", "", "u2"))
        log.save_partial("a3", "half")
        os.truncate(tmp_path / "chats" / f"{conversation_id}.jsonl", keep)
        log.save_partial("a3", "half a reply")
        log.close()
        again = reopened(tmp_path, conversation_id)
        assert again.conversation == log.conversation
        again.close()


def test_file_grown_by_others_with_a_torn_line_takes_the_next_message(
    store: ConversationStore, tmp_path: Path
) -> None:
    conversation_id, _ = build(tmp_path)
    log = store.open(conversation_id)
    with open(tmp_path / "chats" / f"{conversation_id}.jsonl", "ab") as file:
        file.write(b'{"t":"title","title":"theirs"}\n{"t":"ms')
    log.append(message("u3", "fourth", "u2"))
    log.close()
    again = reopened(tmp_path, conversation_id)
    assert (contents(again)[-1], again.damaged) == ("fourth", 1)
    assert again.conversation.title == "theirs"


# Two processes, two threads


HOLDER = """
import sys
from pathlib import Path
from tui_chat.store.conversations import ConversationStore
log = ConversationStore(Path(sys.argv[1])).open(sys.argv[2])
print("read-only" if log.read_only else "writing", flush=True)
sys.stdin.readline()
"""


def test_second_process_reads_but_neither_writes_nor_deletes(
    store: ConversationStore, tmp_path: Path
) -> None:
    conversation_id, data = build(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path), conversation_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"writing\n"
        log = store.open(conversation_id)
        assert contents(log) == ["first ✓", "second", "third"]
        assert log.read_only
        for change in (
            lambda: log.append(message("u3")),
            lambda: log.rename("x"),
            lambda: store.delete(conversation_id),
        ):
            with pytest.raises(StoreError, match="another tui-chat"):
                change()
        assert (tmp_path / "chats" / f"{conversation_id}.jsonl").read_bytes() == data
    finally:
        holder.communicate(b"\n")
    assert not store.open(conversation_id).read_only  # free again


def test_file_system_without_locks_is_written_all_the_same(
    store: ConversationStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    log = store.create()
    log.append(message("u1", "stored"))
    log.close()
    assert contents(reopened(tmp_path, log.id)) == ["stored"]


def test_one_thread_writes_while_others_read(store: ConversationStore) -> None:
    log = store.create()
    log.append(message("u0"))
    failures: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                assert len(store.summaries()) == 1
                assert contents(log)
                store.search("text")
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 200):
        log.append(message(f"u{number}", f"text {number}", f"u{number - 1}"))
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert store.summaries()[0].message_count == 200


# The list


def test_chat_opened_twice_here_is_one_log_until_both_are_closed(store: ConversationStore) -> None:
    log = store.create()
    log.append(message("u1"))
    second = store.open(log.id)
    assert second is log
    log.close()
    second.append(message("u2", "more", "u1"))
    second.close()
    with pytest.raises(StoreError, match="closed"):
        log.append(message("u3"))
    assert contents(store.open(log.id)) == ["text", "more"]


def test_two_thousand_chats_are_listed_last_used_first(
    store: ConversationStore, tmp_path: Path
) -> None:
    (tmp_path / "chats").mkdir()
    order = [(number * 7919) % 2000 for number in range(2000)]
    for number, minute in enumerate(order):
        header = {"t": "meta", "v": 1, "title": f"Chat {minute}", "model": "guide"}
        stamp = (START + timedelta(minutes=minute)).isoformat()
        records = [header, raw("u1", None) | {"created_at": stamp}]
        text = "".join(json.dumps(r, separators=(",", ":")) + "\n" for r in records)
        (tmp_path / "chats" / f"20260101-000000-{number:08x}.jsonl").write_text(text)
    titles = [summary.title for summary in store.summaries()]
    assert titles == [f"Chat {minute}" for minute in reversed(range(2000))]
    assert [s.title for s in store.summaries(3)] == titles[:3]


def test_summary_tells_title_times_model_and_count(store: ConversationStore) -> None:
    log = store.create(model="first")
    log.append(message("u1", "  What is\n\na KV cache? " + "Please explain. " * 9, minute=1))
    log.begin(replace(message("a1", "", "u1", minute=2), model="guide"))
    log.save_partial("a1", "It is")
    summary = store.summaries()[0]
    assert summary.title.startswith("What is a KV cache? Please")
    assert len(summary.title) <= 60
    assert (summary.id, summary.model, summary.message_count) == (log.id, "guide", 2)
    assert summary.updated_at == START + timedelta(minutes=2)
    log.end(replace(message("a1", "It is …", "u1", minute=2), model="guide"))
    log.rename("Caches")
    log.rename("KV cache")
    log.append(message("u2", "And?", "a1", minute=9))
    summary = store.summaries()[0]
    assert (summary.title, summary.message_count) == ("KV cache", 3)
    assert summary.updated_at == START + timedelta(minutes=9)


def test_summary_of_a_long_file_agrees_with_loading_it(
    store: ConversationStore, tmp_path: Path
) -> None:
    log = store.create(model="m")
    log.append(message("u0", "opening"))
    path = path_of(tmp_path, log)
    log.close()
    with path.open("ab") as file:
        for number in range(1, 3000):
            record = raw(f"u{number}", f"u{number - 1}", "x" * 1000)
            record["created_at"] = (START + timedelta(minutes=number)).isoformat()
            file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
    summary = store.summaries()[0]
    loaded = store.read(log.id).conversation
    assert summary.message_count == len(loaded.messages) == 3000
    assert summary.updated_at == loaded.messages[-1].created_at
    assert summary.title == "opening"


def test_lines_put_down_by_another_program_are_listed_too(tmp_path: Path) -> None:
    conversation_id = write_records(tmp_path)
    path = tmp_path / "chats" / f"{conversation_id}.jsonl"
    path.write_text('{"id": "u1", "role": "user", "content": "Hi", "t": "msg"}\n')
    summary = ConversationStore(tmp_path).summaries()[0]
    assert (summary.title, summary.message_count) == ("Hi", 1)
    assert summary.created_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_empty_and_foreign_files_are_left_out(store: ConversationStore, tmp_path: Path) -> None:
    (tmp_path / "chats").mkdir()
    for number, data in enumerate((b"", b"\n\n", b"\x00" * 100, b"PK\x03\x04", b"{}\n[]\n")):
        (tmp_path / "chats" / f"20260101-000000-0000000{number}.jsonl").write_bytes(data)
    assert store.summaries() == []


# Delete, restore, search


def test_deleted_chat_comes_back_on_restore(store: ConversationStore, tmp_path: Path) -> None:
    conversation_id, data = build(tmp_path)
    store.delete(conversation_id)
    assert store.summaries() == []
    assert (tmp_path / "trash" / f"{conversation_id}.jsonl").read_bytes() == data
    with pytest.raises(StoreError):
        store.open(conversation_id)
    with pytest.raises(StoreError):
        store.delete(conversation_id)
    store.restore(conversation_id)
    assert contents(store.open(conversation_id)) == ["first ✓", "second", "third"]
    with pytest.raises(StoreError):
        store.restore(conversation_id)


def test_chat_that_is_open_here_is_deleted_and_written_on_in_the_trash(
    store: ConversationStore,
) -> None:
    log = store.create()
    log.append(message("u1", "before"))
    store.delete(log.id)
    log.append(message("a1", "late", "u1"))
    assert store.summaries() == []
    store.restore(log.id)
    log.append(message("u2", "after", "a1"))
    log.close()
    assert contents(store.open(log.id)) == ["before", "late", "after"]


def test_the_store_knows_what_was_deleted_last(store: ConversationStore, tmp_path: Path) -> None:
    assert store.last_deleted is None
    ids = []
    for number in range(3):
        log = store.create()
        log.append(message("u1", str(number)))
        log.close()
        ids.append(log.id)
    for conversation_id in ids:
        store.delete(conversation_id)
        assert store.last_deleted == conversation_id
    store.restore(ids[1])
    assert store.last_deleted == ids[2]
    (tmp_path / "trash" / f"{ids[2]}.jsonl").unlink()
    assert store.last_deleted == ids[0]
    store.restore(ids[0])
    assert store.last_deleted is None


def test_deleting_twice_overwrites_nothing_in_the_trash(
    store: ConversationStore, tmp_path: Path
) -> None:
    conversation_id, data = build(tmp_path)
    store.delete(conversation_id)
    (tmp_path / "chats" / f"{conversation_id}.jsonl").write_bytes(data + data)
    store.delete(conversation_id)
    sizes = sorted(p.stat().st_size for p in (tmp_path / "trash").iterdir())
    assert sizes == [len(data), 2 * len(data)]
    store.restore(conversation_id)
    assert (tmp_path / "chats" / f"{conversation_id}.jsonl").read_bytes() == data + data


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("KÄSE", 1),
        ("käse", 1),
        ("gRoSS", 1),
        ('say "hi" \\o/', 1),
        ("line\nbreak", 1),
        ("my title", 1),
        ("content", 0),
        ("absent", 0),
        ("", 0),
        ("  ", 0),
        ("*", 0),
    ],
)
def test_search_finds_text_in_titles_and_messages(
    store: ConversationStore, text: str, hits: int
) -> None:
    log = store.create(title="My Title")
    log.append(message("u1", 'Käse, GROSS, say "hi" \\o/ and a line\nbreak'))
    assert len(store.search(text)) == hits


def test_search_shows_the_text_around_the_match_and_heeds_the_limit(
    store: ConversationStore,
) -> None:
    for number in range(5):
        log = store.create()
        log.append(message("u1", "before " * 50 + "needle" + " after" * 50, minute=number))
    found = store.search("Needle", 3)
    assert [hit.created_at.minute for hit in found] == [4, 3, 2]
    assert all(hit.snippet[hit.start : hit.end] == "needle" for hit in found)
    assert all(len(hit.snippet) <= 88 for hit in found)


def test_store_errors_are_one_sentence(store: ConversationStore) -> None:
    def sentence_of(action: Callable[[], object]) -> str:
        with pytest.raises(StoreError) as caught:
            action()
        return str(caught.value)

    missing = "20260101-000000-00000000"
    for action in (
        lambda: store.open(missing),
        lambda: store.delete(missing),
        lambda: store.restore(missing),
    ):
        sentence = sentence_of(action)
        assert sentence[0].isupper() and sentence.endswith(".") and "\n" not in sentence
