"""The golden files of the format read as FORMAT.md says."""

import re
import shutil
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tui_chat.store import records
from tui_chat.store.conversations import ConversationLog, ConversationStore, StoreError
from tui_chat.store.records import decode
from tui_chat.store.tree import MessageTree
from tui_chat.types import ChatSettings, Conversation, Message, Mode, Precision, ReplyMetrics, Role

GOLDEN = Path(__file__).parents[1] / "golden"
FORMAT = Path(records.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
ID = "20260301-120000-0000000a"


def at(second: int) -> datetime:
    return datetime(2026, 3, 1, 12, 0, second, tzinfo=UTC)


def opened(folder: Path, name: str) -> tuple[ConversationLog, Path]:
    path = folder / "chats" / f"{ID}.jsonl"
    path.parent.mkdir()
    shutil.copy(GOLDEN / name, path)
    return ConversationStore(folder).open(ID), path


U1 = Message(
    "u1", Role.USER, "Why is the sky blue?\nSay it in one line.\u2028Or two. 🙂 你好", at(1)
)
A1 = Message(
    id="a1",
    role=Role.ASSISTANT,
    content="Rayleigh scattering.",
    created_at=at(2),
    parent_id="u1",
    reasoning="Think: blue light.",
    status="complete",
    finish_reason="length",
    model="org/model-4B",
    revision="0123abcd",
    tokenizer_id="tok:1f2e",
    mode=Mode.ACCURACY,
    modes=(Mode.SPEED, Mode.ACCURACY),
    seed=42,
    token_count=7,
    metrics=ReplyMetrics(
        prompt_tokens=31,
        cached_tokens=20,
        completion_tokens=7,
        tokenize_seconds=0.001,
        prefill_seconds=0.25,
        decode_seconds=0.5,
        precision=Precision.INT4,
        peak_memory_bytes=123_456_789,
        drafted_tokens=5,
        cache_note="it cannot be cut back",
        speculation_note="off",
        approximate=True,
    ),
    cut_tail=" It",
    continuations=1,
    edited=True,
    excluded=True,
)
A2 = Message(
    "a2",
    Role.ASSISTANT,
    "Half an ans",
    at(3),
    "u1",
    status="interrupted",
    finish_reason="cancelled",
    model="guide",
    mode=Mode.ACCURACY,
    seed=43,
)
A3 = Message(
    "a3",
    Role.ASSISTANT,
    "",
    at(4),
    "u1",
    status="failed",
    finish_reason="error",
    error="The GPU is out of memory.",
    model="guide",
)
U2 = Message("u2", Role.USER, "And at night?", at(5), "a1")
U3 = Message("u3", Role.USER, "And at sunset?", at(6), "a1")
U4 = Message("u4", Role.USER, "half \ud83d of it", at(7))
A4 = Message(
    "a4",
    Role.ASSISTANT,
    "Red, because",
    at(8),
    "u3",
    status="interrupted",
    model="guide",
    mode=Mode.SPEED,
    seed=44,
)


def test_a_file_with_everything_reads_field_by_field(tmp_path: Path) -> None:
    log, _ = opened(tmp_path, "everything.jsonl")
    assert log.conversation == Conversation(
        id=ID,
        created_at=at(0),
        title="The sky",
        model="org/model-4B",
        tokenizer_id="tok:1f2e",
        system_prompt="Be exact.",
        messages=(U1, A1, U3, A4),
        settings=ChatSettings(
            preset="exact",
            mode=Mode.ACCURACY,
            speed={"temperature": 0.7, "stop_strings": ("END",)},
            accuracy={"temperature": 0.2, "seed": 42, "thinking": False},
        ),
    )
    assert log.siblings("u1") == (U1, U4)
    assert log.siblings("a1") == (A1, A2, A3)
    assert log.siblings("u3") == (U2, U3)
    assert log.siblings("a4") == (A4,)
    assert (log.damaged, log.read_only) == (0, False)


def test_the_golden_file_uses_every_field_and_kind_that_there_is() -> None:
    names = {field.name for field in fields(Message)}
    used = {name for name in names for m in (A1, A3) if getattr(m, name) not in ("", None, (), 0)}
    assert used == names
    golden = (GOLDEN / "everything.jsonl").read_bytes().split(b"\n")[:-1]
    golden += (GOLDEN / "library.jsonl").read_bytes().split(b"\n")[:-1]
    kinds = {decode(line)["t"] for line in golden}
    named = {"meta", "msg", "begin", "part", "end", "title", "flags", "system", "settings", "head"}
    assert kinds == named | {"exclude"}


def test_a_file_with_forks_opens_each_branch_where_it_was_left(tmp_path: Path) -> None:
    log, _ = opened(tmp_path, "branches.jsonl")
    assert [m.content for m in log.conversation.messages] == ["one", "2", "3"]
    assert [(m.content, m.edited, m.excluded) for m in log.siblings("a1")] == [
        ("two", False, True),
        ("2", False, False),
        ("II", True, False),
    ]
    ends = {id_: log.end_of_branch(id_) for id_ in ("u1", "a1", "u2", "b2", "b1", "c1")}
    assert ends == {"u1": "u3", "a1": "a2", "u2": "a2", "b2": "b2", "b1": "u3", "c1": "c1"}
    assert log.damaged == 2


def test_the_last_flags_and_the_maker_of_the_last_title_count(tmp_path: Path) -> None:
    log, path = opened(tmp_path, "library.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    told = []
    for count in range(1, len(lines) + 1):
        tree = MessageTree(Conversation(ID, at(0)))
        tree.load(b"".join(lines[:count]))
        header = tree.header
        told.append((header.title, header.title_by, header.pinned, header.archived))
        again = MessageTree(Conversation(ID, at(0)))
        again.load(b"".join(map(records.encode, tree.records())))
        assert again.header == header
    first = ("Why is the sky", "prompt", False, True)
    assert told == [
        first,
        first,
        ("Why is the sky", "prompt", True, True),
        ("Blue sky", "model", True, True),
        ("Blue sky", "model", True, True),
        ("The sky", "user", True, True),
        ("The sky", "user", True, False),
        ("The sky", "user", True, False),
        ("Why the sky is blue", "user", True, False),
    ]
    assert log.damaged == 0
    (summary,) = ConversationStore(tmp_path).summaries()
    assert (summary.title, summary.pinned, summary.archived) == (*told[-1][:1], *told[-1][2:])


@pytest.mark.parametrize(
    ("name", "shown", "damaged"),
    [
        ("cut-last-line.jsonl", "one two three", 1),
        ("flipped-bytes.jsonl", "one three four", 1),
        ("foreign-records.jsonl", "one two three four", 2),
    ],
)
def test_a_damaged_file_shows_all_that_is_whole_and_goes_on(
    tmp_path: Path, name: str, shown: str, damaged: int
) -> None:
    log, path = opened(tmp_path, name)
    assert " ".join(m.content for m in log.conversation.messages) == shown
    assert log.damaged == damaged
    head = log.conversation.messages[-1].id
    log.append(Message("u9", Role.USER, "five", at(9), head))
    log.rename("New")
    log.close()
    # Whatever was there is still there: damage, foreign records, unknown fields.
    assert path.read_bytes().startswith((GOLDEN / name).read_bytes())
    again = ConversationStore(tmp_path).open(ID)
    assert [m.content for m in again.conversation.messages] == [*shown.split(), "five"]
    assert (again.conversation.title, again.damaged) == ("New", damaged)


def test_a_file_of_a_newer_version_is_shown_and_never_written(tmp_path: Path) -> None:
    log, path = opened(tmp_path, "newer-version.jsonl")
    assert [m.content for m in log.conversation.messages] == ["one", "two", "three", "four"]
    assert log.read_only
    assert log.read_only_reason == (
        "This chat was written by a newer tui-chat; update tui-chat to continue it."
    )
    for change in (
        lambda: log.rename("New"),
        lambda: log.append(Message("u9", Role.USER, "five", at(9), "a2")),
        lambda: log.select("u1"),
    ):
        with pytest.raises(StoreError, match="newer"):
            change()
    log.close()
    assert path.read_bytes() == (GOLDEN / "newer-version.jsonl").read_bytes()


def test_the_records_that_the_document_shows_read_without_damage() -> None:
    (block,) = re.findall(r"```jsonl\n(.*?)```", FORMAT, re.S)
    tree = MessageTree(Conversation(ID, at(0)))
    tree.load(block.encode())
    assert tree.damaged == 0
    reply = tree.messages["a1"]
    assert (reply.content, reply.status) == ("Because, in short, yes.", "complete")
    assert (tree.header.title, tree.header.system_prompt) == ("A question", "Be brief.")
    assert (tree.header.title_by, tree.header.pinned) == ("model", True)
    assert tree.head == "u1"


def test_the_document_names_every_field_that_is_written() -> None:
    named = set(re.findall(r"`(\w+)`", FORMAT))
    whole = records.message_record("msg", A1) | records.message_record("msg", A3)
    assert {"edited", "excluded"} <= set(whole)
    assert set(whole) | set(whole["metrics"]) <= named
    own = ChatSettings("exact", Mode.SPEED, speed={"seed": 1})
    told = Conversation(
        ID, at(0), title="T", title_by="model", pinned=True, archived=True, settings=own
    )
    header = records.header_record(told)
    assert set(header) | set(header["settings"]) <= named
    assert f"version {records.VERSION}\n" in FORMAT
