import contextlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.store.exchange import FORMATS, export
from tui_chat.store.foreign import Imported, ImportFault, read_conversations
from tui_chat.store.records import message_record
from tui_chat.store.tree import MessageTree
from tui_chat.types import ChatSettings, Conversation, Message, Mode, Role

GOLDEN = Path(__file__).parents[1] / "golden"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ID = "20260301-120000-0000000a"


def tree_of(*texts: str, title: str = "T", system: str = "") -> MessageTree:
    tree = MessageTree(Conversation(ID, START, title, "guide", "tok", system))
    parent = None
    for number, text in enumerate(texts):
        role = Role.ASSISTANT if number % 2 else Role.USER
        tree.apply(message_record("msg", Message(f"m{number}", role, text, START, parent)))
        parent = f"m{number}"
    return tree


def golden() -> MessageTree:
    tree = MessageTree(Conversation(ID, START))
    tree.load((GOLDEN / "everything.jsonl").read_bytes())
    return tree


def exported(format_: str, *trees: MessageTree) -> bytes:
    return "".join(export(trees, format_)).encode()


def imported(value: object) -> Imported:
    (found,), notes = read_conversations(json.dumps(value).encode())
    assert notes == []
    return found


def spoken(tree: MessageTree) -> list[tuple[str, str]]:
    return [(m.role.value, m.content) for m in tree.conversation.messages]


def without_ids(tree: MessageTree) -> tuple[object, ...]:
    """All that a conversation holds, with places instead of ids."""
    places: dict[str | None, int | None] = {None: None}
    messages = []
    for place, message in enumerate(tree.messages.values()):
        messages.append((replace(message, id="", parent_id=None), places[message.parent_id]))
        places[message.id] = place
    return replace(tree.header, id=""), messages, places[tree.head]


# Round trips


@pytest.mark.parametrize("file", ["json", "our own file"])
def test_our_own_formats_lose_nothing(tmp_path: Path, file: str) -> None:
    before = golden()
    data = exported("json", before)
    if file != "json":
        data = (GOLDEN / "everything.jsonl").read_bytes()
    (found,), notes = read_conversations(data)
    assert (notes, found.left_out) == ([], ())
    store = ConversationStore(tmp_path)
    after = store.read(store.add(found.tree))
    assert without_ids(after) == without_ids(before)
    assert not set(after.messages) & set(before.messages)  # all ids are new


TEXTS = st.lists(st.text(max_size=30), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, title=st.text(max_size=10), system=st.text(max_size=10))
def test_any_text_survives_json(texts: Sequence[str], title: str, system: str) -> None:
    before = tree_of(*texts, title=title, system=system)
    (found,), _ = read_conversations(exported("json", before))
    assert without_ids(found.tree) == without_ids(before)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, system=st.text(max_size=10), format_=st.sampled_from(["openai", "sharegpt"]))
def test_roles_texts_and_system_prompt_survive_the_formats_of_others(
    texts: Sequence[str], system: str, format_: str
) -> None:
    before = tree_of(*texts, system=system)
    (found,), notes = read_conversations(exported(format_, before))
    assert (notes, found.left_out) == ([], ())
    assert spoken(found.tree) == spoken(before)
    assert found.tree.header.system_prompt == system


@pytest.mark.parametrize("format_", ["json", "openai", "sharegpt"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_file_of_several_conversations_reads_back(format_: str, count: int) -> None:
    trees = [tree_of(f"question {number}", "answer") for number in range(count)]
    data = exported(format_, *trees)
    if count == 0:
        with pytest.raises(ImportFault):
            read_conversations(data)
        return
    found, _ = read_conversations(data)
    assert [spoken(one.tree) for one in found] == [spoken(tree) for tree in trees]


def test_openai_messages_carry_reasoning_and_leave_out_empty_failures() -> None:
    tree = golden()
    tree.apply({"t": "head", "id": "a3"})
    (line,) = exported("openai", tree).splitlines()
    assert [m["role"] for m in json.loads(line)["messages"]] == ["system", "user"]
    tree.apply({"t": "head", "id": "a1"})
    assert json.loads(exported("openai", tree))["messages"][2] == {
        "role": "assistant",
        "content": "Rayleigh scattering.",
        "reasoning_content": "Think: blue light.",
    }


def test_markdown_shows_the_open_branch_with_status_outside_the_text() -> None:
    text = exported("markdown", golden()).decode()
    assert text.startswith(f"# The sky\n\n{ID} · 2026-03-01 12:00 UTC · preset exact\n")
    for part in (
        "## System prompt\n\nBe exact.",
        "## User\n\nWhy is the sky",
        "## org/model-4B · edited · left out\n",  # of the context, and shown all the same
    ):
        assert part in text
    assert text.endswith("## guide · interrupted\n\nRed, because\n")
    assert "And at night?" not in text
    assert set(FORMATS) == {"markdown", "json", "openai", "sharegpt"}


def test_what_is_left_out_of_the_context_is_in_every_export() -> None:
    tree = golden()
    assert [m.id for m in tree.conversation.messages if m.excluded] == ["a1"]
    for format_ in FORMATS:
        assert "Rayleigh scattering." in exported(format_, tree).decode()
    messages = json.loads(exported("json", tree))["messages"]
    marked = {m["id"] for m in messages if m.get("excluded")}
    assert marked == {"a1"}


def test_where_each_fork_was_left_survives_as_well(tmp_path: Path) -> None:
    data = (GOLDEN / "branches.jsonl").read_bytes()
    before = MessageTree(Conversation(ID, START))
    before.load(data)
    (json_found,), _ = read_conversations(exported("json", before))
    (file_found,), _ = read_conversations(data)
    places = list(before.messages)
    ends = [places.index(before.end_of_branch(id_)) for id_ in places]
    store = ConversationStore(tmp_path)
    for found in (json_found, file_found):
        after = store.read(store.add(found.tree))
        ids = list(after.messages)
        assert [ids.index(after.end_of_branch(id_)) for id_ in ids] == ends


def test_a_chat_of_our_own_keeps_pins_settings_and_marks() -> None:
    own = ChatSettings("exact", Mode.SPEED, speed={"seed": 3, "stop_strings": ("END",)})
    before = tree_of("question", "answer", title="T", system="S")
    before.header = replace(
        before.header, pinned=True, archived=True, title_by="model", settings=own
    )
    answer = list(before.messages)[1]
    before.apply({"t": "exclude", "id": answer, "excluded": True})
    (found,), _ = read_conversations(exported("json", before))
    assert without_ids(found.tree) == without_ids(before)
    assert found.tree.header.settings == own
    assert [m.excluded for m in found.tree.messages.values()] == [False, True]


def test_records_that_only_a_newer_version_knows_are_counted() -> None:
    data = (GOLDEN / "foreign-records.jsonl").read_bytes()
    (found,), _ = read_conversations(data)
    assert "2 records of unknown kinds" in found.left_out


@pytest.mark.parametrize(
    ("content", "closed"),
    [
        ("```python\nprint(", "```python\nprint(\n```"),
        ("a\n~~~~\nb\n~~~\n", "a\n~~~~\nb\n~~~\n~~~~"),
        ("```\na\n```", "```\na\n```"),
        ("````\n```\n````\nb", "````\n```\n````\nb"),
        ("```\na\n``` b", "```\na\n``` b\n```"),
        ("    ```\nindented", "    ```\nindented"),
        ("```a`b\nno fence", "```a`b\nno fence"),
    ],
)
def test_a_code_block_that_was_cut_off_does_not_hold_what_follows(
    content: str, closed: str
) -> None:
    text = exported("markdown", tree_of(content, content)).decode()
    assert f"## User\n\n{closed}\n\n## " in text and text.endswith(f"{closed}\n")
    from markdown_it import MarkdownIt

    headings = [t for t in MarkdownIt().parse(text) if t.type == "heading_open" and t.tag == "h2"]
    assert len(headings) == 2


# The files of others


def node(
    id_: str, parent: str | None, children: Sequence[str] = (), message: Any = None
) -> dict[str, Any]:
    return {"id": id_, "parent": parent, "children": list(children), "message": message}


def said(role: str, *parts: Any, **more: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": list(parts)}
    return {"author": {"role": role}, "content": content, "create_time": 1.5e9} | more


def chatgpt(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    mapping = {each["id"]: each for each in nodes}
    return {"title": "Sky", "create_time": 1.4e9, "mapping": mapping} | more


def test_a_chatgpt_export_keeps_its_tree_times_models_and_thoughts() -> None:
    thoughts = {"content_type": "thoughts", "thoughts": [{"content": "Hm."}, {"content": "Blue."}]}
    found = imported(
        [
            chatgpt(
                node("root", None, ["s"]),
                node("s", "root", ["q"], said("system", "", metadata={})),
                node("q", "s", ["a1", "t"], said("user", "Why?")),
                node("a2", "t", [], said("assistant", "So.", metadata={"model_slug": "gpt-9"})),
                node("t", "q", ["a2"], {"author": {"role": "assistant"}, "content": thoughts}),
                node("a1", "q", [], said("assistant", "Because.")),
                current_node="a1",
            )
        ]
    )
    question, first, second = found.tree.messages.values()
    assert [m.content for m in found.tree.siblings(first.id)] == ["Because.", "So."]
    assert (second.model, second.reasoning, first.reasoning) == ("gpt-9", "Hm.\n\nBlue.", "")
    assert spoken(found.tree) == [("user", "Why?"), ("assistant", "Because.")]
    assert question.created_at == datetime.fromtimestamp(1.5e9, UTC)
    assert found.tree.header.title == "Sky"
    assert found.tree.header.created_at == datetime.fromtimestamp(1.4e9, UTC)
    assert found.left_out == ()


def test_what_a_chatgpt_export_has_and_we_have_not_is_named() -> None:
    image = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
    code = {"content_type": "code", "text": "search()"}
    found = imported(
        chatgpt(
            node("q", None, ["x"], said("user", image, "What is this?")),
            node(
                "x",
                "q",
                ["y"],
                {"author": {"role": "assistant"}, "content": code, "recipient": "w"},
            ),
            node("y", "x", ["a"], said("tool", "result")),
            node("a", "y", [], said("assistant", "A cat.")),
        )
    )
    assert spoken(found.tree) == [("user", "What is this?"), ("assistant", "A cat.")]
    assert found.left_out == (
        "1 part without text",
        "1 assistant message without text",
        "1 tool message",
    )


def test_loops_missing_parents_and_odd_values_in_a_tree_end_well() -> None:
    found = imported(
        chatgpt(
            node("a", "b", ["b"], said("user", "loop")),
            node("b", "a", ["a"], said("user", "loop")),
            node("c", "gone", ["c", "d"], said("user", "text")),
            {"id": "d", "parent": ["c"], "children": 5, "message": {"author": 5, "content": []}},
            node("e", "c", [], said("assistant", "ok", create_time=float("inf"))),
            title=["x"],
            create_time=1e300,
            current_node=7,
        )
    )
    assert spoken(found.tree) == [("user", "text"), ("assistant", "ok")]
    assert found.left_out == ("1 message of an unknown role", "2 messages in a loop")
    assert found.tree.header.title == ""


def test_a_long_chain_is_no_recursion() -> None:
    nodes = [
        node(str(n), str(n - 1) if n else None, [str(n + 1)], said("user", str(n)))
        for n in range(5000)
    ]
    assert len(imported(chatgpt(*nodes)).tree.messages) == 5000


MESSAGES = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url"}]},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "tool", "content": "42"},
    {"role": "assistant", "content": "42", "reasoning_content": "six times seven"},
]


@pytest.mark.parametrize(
    "value", [MESSAGES, {"messages": MESSAGES, "title": "x"}, [{"messages": MESSAGES}]]
)
def test_openai_messages_are_read_alone_and_wrapped(value: object) -> None:
    found = imported(value)
    assert spoken(found.tree) == [("user", "hi"), ("assistant", "42")]
    assert found.tree.header.system_prompt == "Be brief."
    assert list(found.tree.messages.values())[1].reasoning == "six times seven"
    assert found.left_out == (
        "1 part without text",
        "1 assistant message without text",
        "1 tool message",
    )


def test_sharegpt_names_of_roles_are_known() -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    turns += [{"from": "user", "value": "c"}, {"from": "function_call", "value": "{}"}]
    found = imported({"id": "../../etc/passwd", "system": "S", "conversations": turns})
    assert [role for role, _ in spoken(found.tree)] == ["user", "assistant", "user"]
    assert found.tree.header.system_prompt == "S"
    assert found.left_out == ("1 message of an unknown role",)


def test_lines_that_cannot_be_read_are_counted_and_the_others_taken() -> None:
    line = json.dumps({"messages": MESSAGES})
    found, notes = read_conversations(f"{line}\n{{torn\n{line}\n\n[1]\n".encode())
    assert len(found) == 2
    assert notes == [
        "1 line that cannot be read left out",
        "an entry that is no known kind of conversation left out",
    ]


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"5", b'"text"', b"[" * 100_000, b"\xff\xfe", b"[]", b"null", b"\x00" * 99],
)
def test_what_is_no_conversation_is_refused_in_words(data: bytes) -> None:
    try:
        found, notes = read_conversations(data)
    except ImportFault as fault:
        assert str(fault).startswith(("is ", "holds "))
    else:
        assert found == [] and notes


KEYS = (
    *("messages", "role", "content", "parts", "mapping", "message", "author", "from", "value"),
    *("conversations", "format", "parent", "children", "v", "head", "id", "title", "system", "t"),
    *("create_time", "thoughts", "content_type"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner | st.sampled_from(["user", "tui-chat", "text", "msg"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_no_json_makes_the_import_fail_otherwise(value: object) -> None:
    with contextlib.suppress(ImportFault):
        read_conversations(json.dumps(value).encode())


# In the store


def test_ids_and_paths_of_a_file_are_never_used(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path / "data")
    mine = store.add(tree_of("mine"))
    value = json.loads(exported("json", store.read(mine))) | {"id": f"../{mine}"}
    first = store.add(imported(value).tree)
    second = store.add(imported(value | {"id": mine}).tree)
    assert len({mine, first, second}) == 3
    assert {path.name for path in (tmp_path / "data" / "chats").iterdir()} == {
        f"{id_}.jsonl" for id_ in (mine, first, second)
    }
    assert spoken(store.read(mine)) == [("user", "mine")]


def test_a_conversation_is_read_while_it_is_written(tmp_path: Path) -> None:
    store = ConversationStore(tmp_path)
    log = store.create()
    log.append(Message("u1", Role.USER, "hi", START))
    assert spoken(ConversationStore(tmp_path).read(log.id)) == [("user", "hi")]
    log.append(Message("u2", Role.USER, "there", START, "u1"))
    assert not log.read_only


def test_a_conversation_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    chats = tmp_path / "chats"
    chats.mkdir()
    for id_ in ("20260301-120000-00000001", "20260301-120000-00000002", "20260401-120000-00000001"):
        shutil.copy(GOLDEN / "everything.jsonl", chats / f"{id_}.jsonl")
    store = ConversationStore(tmp_path)
    assert store.find("202604") == "20260401-120000-00000001"
    assert store.find("20260301-120000-00000002") == "20260301-120000-00000002"
    for start, sentence in (("202603", "More than one"), ("9", "No chat"), ("", "More than one")):
        with pytest.raises(StoreError, match=sentence):
            store.find(start)
