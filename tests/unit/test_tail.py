"""A conversation of which only the end is loaded is the end of the whole one."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.store import conversations, loading
from tui_chat.store import tail as tail_module
from tui_chat.store.conversations import ConversationLog, ConversationStore, StoreError
from tui_chat.store.records import encode
from tui_chat.store.tail import Tail, TailTree
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Message, Role

SYNC = "fdatasync" if hasattr(os, "fdatasync") else "fsync"  # macOS has only the latter

HEADER = Conversation("20260301-120000-0000000a", datetime(2026, 3, 1, 12, tzinfo=UTC))
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f", "a-2", "ä", 'q"', "\ud800"])
PARENTS = st.one_of(st.none(), IDS, st.just("lost"))
TEXTS = st.sampled_from(["", "x", "y" * 50, "two\nlines"])


def of_kind(kind: str, **fields: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({"t": st.just(kind), **fields})


ROLES = st.sampled_from(["user", "assistant", "wizard"])
MESSAGES = {"id": IDS, "parent": PARENTS, "role": ROLES, "content": TEXTS}
RECORDS = st.one_of(
    of_kind("msg", **MESSAGES),
    of_kind("msg", **MESSAGES, excluded=st.booleans()),
    of_kind("begin", **MESSAGES),
    of_kind("part", id=IDS, content=TEXTS),
    of_kind("end", **MESSAGES),
    of_kind("head", id=IDS),
    of_kind("title", title=TEXTS),
    of_kind("system", system_prompt=st.one_of(TEXTS, st.none())),
    of_kind("exclude", id=IDS, excluded=st.booleans()),
    of_kind("meta", v=st.sampled_from([1, 1, 1, 2, "one"]), id=st.just("x"), title=TEXTS),
    of_kind("pin", id=IDS),
)


def line_of(record: dict[str, object], form: str) -> bytes:
    whole = encode(record)
    match form:
        case "spaces":
            return json.dumps(record).encode() + b"\n"
        case "other order":
            return encode(dict(reversed(record.items())))
        case "indented":
            return b" " + whole
        case "escaped":
            return whole.replace(b'"t"', b'"\\u0074"')
        case "crlf":
            return whole[:-1] + b"\r\n"
        case "nul":
            return b"\x00" * 9 + whole
        case "torn":
            return whole[: len(whole) // 2] + b"\n"
        case "blank":
            return b"\n \t\r\n" + whole
        case "garbage":
            return b"\xff{\n" + whole
    return whole


FORMS = st.sampled_from(
    ["spaces", "other order", "indented", "escaped", "crlf", "nul", "torn", "blank", "garbage"]
)
FOREIGN_LINES = st.builds(line_of, RECORDS, FORMS)
OUR_LINES = st.builds(line_of, RECORDS, st.just("ours"))


@st.composite
def chats(draw: st.DrawFn, *, is_regular: bool = False) -> bytes:
    """What a chat leaves: all parents are there, replies are begun and ended; and rarely more."""
    lines = [encode({"t": "meta", "v": 1, "title": "first"})]
    known: list[str] = []
    rarities = draw(st.lists(st.sampled_from(RARITIES), max_size=3, unique=True))
    if is_regular:
        rarities = ["branch"]
    for number in range(draw(st.integers(0, 40))):
        parent = known[-1] if known else None
        if "branch" in rarities and known and draw(st.integers(0, 5)) == 0:
            parent = draw(st.sampled_from(known))
        message = {"id": f"{number:03}", "parent": parent, "content": "x" * draw(st.integers(0, 9))}
        known.append(f"{number:03}")
        if number % 2 == 0:
            lines.append(encode({"t": "msg", **message, "role": "user"}))
        else:
            reply = {**message, "role": "assistant"}
            lines.append(encode({"t": "begin", **reply}))
            part = encode({"t": "part", "id": reply["id"], "content": "p"})
            lines += [part] * draw(st.integers(0, 2))
            if draw(st.integers(0, 3)):
                lines.append(encode({"t": "end", **reply}))
        if rarities and draw(st.integers(0, 7)) == 0:
            rarity, old = draw(st.sampled_from(rarities)), draw(st.sampled_from(known))
            lines += draw(rare_lines(rarity, old, lines))
    return b"".join(lines)


RARITIES = (
    *("branch", "head", "title", "system", "exclude", "meta", "continue", "copy", "foreign"),
    *("torn", "no parent", "self"),
)


def rare_lines(rarity: str, old: str, lines: list[bytes]) -> st.SearchStrategy[list[bytes]]:
    fixed: dict[str, object] | None = {
        "head": {"t": "head", "id": old},
        "title": {"t": "title", "title": f"title behind {old}"},
        "system": {"t": "system", "system_prompt": f"prompt behind {old}"},
        "exclude": {"t": "exclude", "id": old, "excluded": True},
        "meta": {"t": "meta", "v": 1},
        "continue": {"t": "begin", "id": old, "role": "assistant", "content": "more"},
        "no parent": {"t": "msg", "id": f"{old}x", "parent": "?", "role": "user", "content": ""},
        "self": {"t": "msg", "id": "self", "parent": "self", "role": "user", "content": ""},
    }.get(rarity)
    if fixed is not None:
        return st.just([encode(fixed)])
    if rarity == "copy":
        return st.sampled_from(lines).map(lambda line: [line])
    if rarity == "torn":
        return st.integers(1, len(lines[-1])).map(lambda at: [lines.pop()[:at] + b"\n"])
    return st.just([]) if rarity == "branch" else FOREIGN_LINES.map(lambda line: [line])


FILES = st.one_of(
    chats(),
    chats(),
    chats(),
    st.lists(OUR_LINES, max_size=25).map(b"".join),
    st.lists(st.one_of(OUR_LINES, OUR_LINES, FOREIGN_LINES), max_size=25).map(b"".join),
    st.tuples(chats(), chats()).map(b"".join),
    st.tuples(chats(), st.binary(max_size=30)).map(b"".join),
)


@contextmanager
def tail_of(data: bytes, block: int) -> Iterator[Tail]:
    with TemporaryFile() as file, mock.patch.object(tail_module, "_BLOCK", block):
        file.write(data)
        file.flush()
        yield Tail(os.dup(file.fileno()), HEADER)


def whole_of(data: bytes) -> MessageTree:
    tree = MessageTree(HEADER)
    tree.load(data)
    return tree


def assert_same(one: MessageTree, other: MessageTree) -> None:
    assert one.conversation == other.conversation
    assert list(one.messages.items()) == list(other.messages.items())
    assert list(one.records()) == list(other.records())
    assert (one.head, one.damaged, one.is_newer) == (other.head, other.damaged, other.is_newer)


def check(data: bytes, first: int, block: int, fewest: int) -> int:
    """Load a file step by step and compare each with the whole; returns the number of steps."""
    whole = whole_of(data)
    branch = whole.conversation.messages
    steps = 0
    with tail_of(data, block) as tail:
        tree, _, length = tail.load(lambda tree: len(tree.conversation.messages) >= fewest, first)
        shown = 0
        while isinstance(tree, TailTree):
            steps += 1
            messages = tree.conversation.messages
            assert len(messages) > shown
            shown = len(messages)
            assert messages == branch[-shown:]
            assert tree.conversation.has_earlier and shown < len(branch)
            assert tree.damaged <= whole.damaged
            header = (tree.header, tree.is_newer, tree.has_header)
            assert header == (whole.header, whole.is_newer, whole.has_header)
            for message in messages:
                assert tree.siblings(message.id) == whole.siblings(message.id)
                assert tree.end_of_branch(message.id) == whole.end_of_branch(message.id)
            tree, _, length = tail.load(
                lambda tree, shown=shown: len(tree.conversation.messages) > shown, 2 * length
            )
    assert_same(tree, whole)
    return steps


@settings(max_examples=600, deadline=None)
@given(FILES, st.integers(1, 400), st.integers(1, 300), st.integers(1, 4))
def test_each_step_of_loading_shows_more_of_the_end_of_the_whole_branch(
    data: bytes, first: int, block: int, fewest: int
) -> None:
    check(data, first, block, fewest)


def msg(message_id: str, parent: str | None, content: str = "") -> bytes:
    record = {"t": "msg", "id": message_id, "parent": parent, "role": "user", "content": content}
    return encode(record)


def chain(name: str, parent: str | None, count: int = 8) -> list[bytes]:
    ids = [f"{name}{number:02}" for number in range(count)]
    return [msg(id_, before) for id_, before in zip(ids, [parent, *ids], strict=False)]


@pytest.mark.parametrize(
    "lines",
    [
        # The parent of b comes only later, as a message of its own.
        [*chain("a", None), msg("b", "p"), msg("p", "a07"), *chain("c", "p")],
        # The second message of an id is called x-2, so that the one of that name is not.
        [
            *(msg("x", None), msg("x", None, "other"), *chain("a", "x")),
            *(msg("x-2", "a07"), *chain("c", "x-2")),
        ],
        [msg("y-2", None), *chain("a", "y-2"), msg("y", "a07"), msg("y", "a07", "other")],
        # Another program has written c05 before.
        [b" " + msg("c05", None, "other"), *chain("a", None), *chain("c", "a07")],
        [msg("c05", None, "other"), *chain("a", None), *chain("c", "a07")],
        # The parent of b is a torn line, so b follows the message before it.
        [msg("p", None)[:40] + b"\n", *chain("a", None), msg("b", "p"), *chain("c", "a07")],
        [*chain("a", None), msg("b", "nowhere"), *chain("c", "a07")],
        # A reply whose beginning is lost follows the head.
        [*chain("a", None), encode({"t": "part", "id": "r", "content": "r"}), *chain("c", "r")],
        [*chain("a", None), *chain("c", "a07"), encode({"t": "head", "id": "a05"})],
    ],
)
def test_an_end_that_misleads_is_not_taken(lines: list[bytes]) -> None:
    data = b"".join(lines)
    steps = [check(data, first, 100, 1) for first in range(1, len(data) // 2, 15)]
    assert all(step <= 12 for step in steps)


def test_a_chat_without_branches_loads_step_by_step() -> None:
    data = encode({"t": "meta", "v": 1}) + b"".join(chain("a", None, 200))
    assert check(data, len(data) // 30, 1000, 3) == 4


# An open conversation


@contextmanager
def opened(
    folder: Path, data: bytes, first_bytes: int, *, check: bool = True
) -> Iterator[ConversationLog]:
    path = folder / "chats" / f"{HEADER.id}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with (
        mock.patch.object(tail_module, "FIRST_BYTES", first_bytes),
        mock.patch.object(loading, "FIRST_BYTES", first_bytes),
        mock.patch.object(conversations, "FEWEST", 1),
        mock.patch.object(os, SYNC, lambda descriptor: None),
    ):
        log = ConversationStore(folder, folder / "cache").open(HEADER.id)
        if check:
            log.check()
        yield log
        log.close()


def bytes_in(folder: Path) -> bytes:
    return (folder / "chats" / f"{HEADER.id}.jsonl").read_bytes()


def outcome(change: "Change", log: ConversationLog) -> object:
    try:
        return change(log)
    except (KeyError, StoreError) as error:
        return repr(error)


Change = Callable[[ConversationLog], object]


@st.composite
def changes(draw: st.DrawFn) -> list[Change]:
    ids = st.integers(0, 42).map("{:03}".format)
    found: list[Change] = []
    for number in range(draw(st.integers(1, 6))):
        old, texts = draw(ids), ("one", "one two", "one tw")
        new = Message(f"new{number}", Role.ASSISTANT, "", HEADER.created_at)

        def reply(log: ConversationLog, new: Message = new, texts: Any = texts) -> None:
            messages = log.conversation.messages
            child = replace(new, parent_id=messages[-1].id if messages else None)
            log.begin(child)
            for text in texts:
                log.save_partial(child.id, text)
            log.end(replace(child, content=texts[-1], finish_reason="stop"))

        kinds: list[Change] = [
            reply,
            lambda log, new=new, old=old: log.append(replace(new, parent_id=old)),
            lambda log, new=new: log.append(new),
            lambda log, old=old: log.select(old),
            lambda log, old=old: log.exclude(old, True),
            lambda log, old=old: log.siblings(old),
            lambda log, old=old: log.end_of_branch(old),
            lambda log, old=old: log.save_partial(old, "more"),
            lambda log, number=number: log.rename(f"renamed {number}"),
            lambda log, number=number: log.set_system_prompt(f"changed {number}"),
            lambda log, old=old, new=new: log.begin(replace(new, id=old, content="again")),
        ]
        found.append(draw(st.sampled_from(kinds)))
        if draw(st.booleans()):
            found.append(lambda log: str(log.load_earlier())[:0])
    return found


@settings(max_examples=150, deadline=None)
@given(chats(), changes(), st.integers(1, 400))
def test_a_log_whose_end_is_loaded_is_written_as_a_whole_one(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[Change], first: int
) -> None:
    one, other = tmp_path_factory.mktemp("end"), tmp_path_factory.mktemp("whole")
    with opened(other, data, 1 << 20) as whole, opened(one, data, first) as log:
        for change in changes:
            assert outcome(change, log) == outcome(change, whole)
            assert bytes_in(one) == bytes_in(other)
            branch, shown = whole.conversation.messages, log.conversation.messages
            assert shown == branch[len(branch) - len(shown) :]
            assert bool(shown) == bool(branch)
            assert log.conversation.has_earlier or shown == branch
            header = replace(log.conversation, messages=(), has_earlier=False)
            assert header == replace(whole.conversation, messages=())
        while log.load_earlier():
            pass
        assert_same(log._tree, whole._tree)
    assert bytes_in(one) == bytes_in(other)


def test_a_file_that_was_cut_short_gets_back_all_that_was_loaded(tmp_path: Path) -> None:
    lines = [encode({"t": "meta", "v": 1}), *chain("a", None, 20), *chain("c", "a19", 20)]
    lines += [
        encode({"t": "title", "title": "chosen"}),
        encode({"t": "exclude", "id": "a02", "excluded": True}),
        encode({"t": "exclude", "id": "c18", "excluded": True}),
    ]
    data = b"".join(lines)
    for keep in range(0, len(data), 70):
        folder = tmp_path / str(keep)
        with opened(folder, data, 400) as log:
            loaded = log.conversation
            assert 0 < len(loaded.messages) < 10 and loaded.has_earlier
            os.truncate(folder / "chats" / f"{HEADER.id}.jsonl", keep)
            log.append(Message("new", Role.USER, "new", HEADER.created_at, "c19"))
            after = log.conversation
            assert not after.has_earlier
            assert after.messages[-1 - len(loaded.messages) : -1] == loaded.messages
            kept = data[:keep].count(b"\n") - 1
            ids = [message.id for message in after.messages]
            wanted = [f"a{n:02}" for n in range(20)] + [f"c{n:02}" for n in range(20)]
            first = wanted.index(loaded.messages[0].id) - 1
            assert ids == [*wanted[: max(0, min(kept, first))], *wanted[first:], "new"]
            assert log.conversation.title == "chosen"
            excluded = [m.id for m in after.messages if m.excluded]
            assert excluded == (["a02", "c18"] if "a02" in ids else ["c18"])
        with opened(folder, bytes_in(folder), 1 << 20) as again:
            assert again.conversation == after


def test_a_file_that_was_cut_short_shows_what_is_left_when_earlier_messages_are_asked_for(
    tmp_path: Path,
) -> None:
    data = b"".join([*chain("a", None, 20), *chain("c", "a19", 20)])
    with opened(tmp_path, data, 400) as log:
        loaded = log.conversation.messages
        os.truncate(tmp_path / "chats" / f"{HEADER.id}.jsonl", 300)
        assert log.load_earlier() and not log.load_earlier()
        shown = log.conversation.messages
        assert [m.id for m in shown[:4]] == ["a00", "a01", "a02", "a03"]
        assert shown[-len(loaded) :] == loaded


def test_a_reader_sees_what_was_there_when_it_opened_the_file(tmp_path: Path) -> None:
    data = b"".join(chain("a", None, 40))
    with opened(tmp_path, data, 400) as log, mock.patch.object(tail_module, "FIRST_BYTES", 400):
        reader = ConversationStore(tmp_path, tmp_path / "cache").open(HEADER.id)
        assert reader.read_only and reader.conversation.has_earlier
        log.append(Message("new", Role.USER, "new", HEADER.created_at, "a39"))
        (tmp_path / "chats" / f"{HEADER.id}.jsonl").unlink()
        while reader.load_earlier():
            pass
        assert len(reader.conversation.messages) == 40
        reader.close()
        assert not reader.load_earlier()


def test_writers_go_on_while_earlier_messages_are_loaded(tmp_path: Path) -> None:
    data = b"".join(chain("a", None, 300))
    with opened(tmp_path, data, 300) as log:
        failures: list[BaseException] = []

        def load() -> None:
            try:
                while log.load_earlier():
                    pass
            except BaseException as error:
                failures.append(error)

        loaders = [threading.Thread(target=load) for _ in range(3)]
        for loader in loaders:
            loader.start()
        parent = "a299"
        for number in range(100):
            log.begin(Message(f"r{number}", Role.ASSISTANT, "", HEADER.created_at, parent))
            log.save_partial(f"r{number}", "text")
            log.end(Message(f"r{number}", Role.ASSISTANT, "text", HEADER.created_at, parent))
            parent = f"r{number}"
        for loader in loaders:
            loader.join()
        assert failures == []
        whole = whole_of(bytes_in(tmp_path))
        assert log.conversation.messages == whole.conversation.messages
        assert len(log.conversation.messages) == 400


# The first glance


@settings(max_examples=150, deadline=None)
@given(chats(is_regular=True), st.integers(1, 400))
def test_a_first_glance_shows_a_chat_as_we_write_it(data: bytes, first: int) -> None:
    whole = whole_of(data).conversation
    with tail_of(data, 1000) as tail, mock.patch.object(tail_module, "FIRST_BYTES", first):
        shown = tail.glance(lambda tree: bool(tree.conversation.messages)).tree.conversation
    assert replace(shown, has_earlier=False, messages=()) == replace(whole, messages=())
    assert shown.messages == whole.messages[len(whole.messages) - len(shown.messages) :]
    assert shown.has_earlier or shown == whole


@settings(max_examples=150, deadline=None)
@given(FILES, st.integers(1, 400), st.integers(1, 200))
def test_any_first_glance_is_put_right_before_anything_is_written(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, first: int, glance: int
) -> None:
    folder, other = tmp_path_factory.mktemp("end"), tmp_path_factory.mktemp("whole")
    with (
        mock.patch.object(tail_module, "_GLANCE", glance),
        opened(other, data, 1 << 20) as whole,
        opened(folder, data, first, check=False) as log,
    ):
        for change in (
            lambda log: log.rename("changed"),
            lambda log: log.append(Message("new", Role.USER, "new", HEADER.created_at)),
        ):
            assert outcome(change, log) == outcome(change, whole)
        assert log.read_only == whole.read_only
        assert bytes_in(folder) == bytes_in(other)
        log.load_all()
        assert_same(log._tree, whole._tree)


def test_a_title_far_from_both_ends_is_found_by_the_check(tmp_path: Path) -> None:
    title = encode({"t": "title", "title": "chosen"})
    data = b"".join([*chain("a", None, 40), title, *chain("c", "a39", 40)])
    with (
        mock.patch.object(tail_module, "_GLANCE", 300),
        opened(tmp_path, data, 400, check=False) as log,
    ):
        assert log.conversation.title == ""
        shown = log.conversation.messages
        log.check()
        assert (log.conversation.title, log.conversation.messages) == ("chosen", shown)


def test_a_newer_version_that_a_glance_does_not_see_is_not_written_to(tmp_path: Path) -> None:
    newer = encode({"t": "meta", "v": 99})
    data = b"".join([*chain("a", None, 40), newer, *chain("c", "a39", 40)])
    with (
        mock.patch.object(tail_module, "_GLANCE", 300),
        opened(tmp_path, data, 400, check=False) as log,
    ):
        assert not log.read_only
        with pytest.raises(StoreError, match="newer"):
            log.append(Message("new", Role.USER, "new", HEADER.created_at, "c39"))
        assert log.read_only
    assert bytes_in(tmp_path) == data
