"""The commands for stored conversations, as a user types them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tui_chat.cli import main
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.exchange import FORMATS

GOLDEN = Path(__file__).parents[1] / "golden"
FIRST, SECOND = "20260301-120000-00000001", "20260402-120000-00000002"
SHAREGPT = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    chats = tmp_path / "data" / "chats"
    chats.mkdir(parents=True)
    shutil.copy(GOLDEN / "everything.jsonl", chats / f"{FIRST}.jsonl")
    shutil.copy(GOLDEN / "cut-last-line.jsonl", chats / f"{SECOND}.jsonl")
    return tmp_path / "data"


def run(data: Path, *arguments: str) -> int:
    """The exit code, also where the parser ends the program."""
    try:
        return main([*arguments, "--data-dir", str(data)])
    except SystemExit as ended:
        return int(ended.code or 0)


def test_list_prints_a_line_for_each_last_used_first(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "list") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(FIRST) and first.endswith("  The sky")
    assert second.startswith(SECOND) and second.endswith("  Small")
    assert run(data, "list", "--json", "--limit", "1") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "id": FIRST,
        "title": "The sky",
        "created_at": "2026-03-01T12:00:00+00:00",
        "updated_at": "2026-03-01T12:00:08+00:00",
        "model": "guide",
        "message_count": 8,
        "pinned": False,
        "archived": False,
    }


def test_list_leaves_archived_chats_out_until_they_are_asked_for(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ConversationStore(data)
    for chat, flags in ((FIRST, {"archived": True}), (SECOND, {"pinned": True})):
        log = store.open(chat)
        log.flag(**flags)
        log.close()

    def listed(*flags: str) -> list[str]:
        assert run(data, "list", *flags) == 0
        return capsys.readouterr().out.splitlines()

    (line,) = listed()
    assert line.startswith(SECOND) and line.endswith("  Small  (pinned)")
    (line,) = listed("--archived")
    assert line.startswith(FIRST) and line.endswith("  The sky  (archived)")
    assert listed("--pinned") == listed()
    assert [line[: len(FIRST)] for line in listed("--all")] == [FIRST, SECOND]
    objects = [json.loads(line) for line in listed("--all", "--json")]
    assert [(o["pinned"], o["archived"]) for o in objects] == [(False, True), (True, False)]
    assert run(data, "list", "--all", "--pinned") == 2


def test_an_empty_list_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nothing", "list") == 0
    assert capsys.readouterr() == ("", "")


def test_show_takes_the_beginning_of_an_id(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "show", "202603") == 0
    out = capsys.readouterr().out
    assert out.startswith("# The sky\n") and out.endswith("Red, because\n")
    assert run(data, "show", FIRST, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["messages"]) == 8


def test_show_tells_that_the_file_is_damaged(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "show", SECOND) == 0
    out, error = capsys.readouterr()
    assert "three" in out
    assert error == f"tui-chat: {SECOND}: 1 damaged record is left out.\n"


@pytest.mark.parametrize("command", ["show", "export"])
def test_an_unknown_id_is_wrong_usage(
    data: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, command, "1999") == 2
    assert capsys.readouterr() == (
        "",
        'tui-chat: No chat begins with "1999"; tui-chat list shows their ids.\n',
    )
    assert run(data, command, "2026") == 2
    assert "More than one chat" in capsys.readouterr().err
    assert run(data, command, "20200101-000000-00000000") == 1
    assert capsys.readouterr().err.startswith("tui-chat: There is no such chat")


def test_search_prints_the_place_and_the_text_around_it(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "search", "RAYLEIGH", "scatter") == 0
    head, snippet = capsys.readouterr().out.splitlines()
    assert head.startswith(FIRST) and "assistant" in head and head.endswith("The sky")
    assert snippet == "    Rayleigh scattering."
    assert run(data, "search", "--json", "night") == 0
    hit = json.loads(capsys.readouterr().out)
    assert (hit["conversation_id"], hit["message_id"], hit["role"]) == (FIRST, "u2", "user")
    assert hit["snippet"][hit["start"] : hit["end"]] == "night"


def test_a_search_without_a_hit_is_one_sentence_and_exit_code_1(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "search", '"NOT', "there*") == 1
    assert capsys.readouterr() == ("", 'tui-chat: No chat holds ""NOT there*".\n')
    assert run(data, "search", " ") == 2


def test_a_terminal_gets_no_control_characters_and_a_pipe_gets_all(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "needle \x1b[2Jrest"
    (data / "text.json").write_text(json.dumps([{"role": "user", "content": text}]))
    assert run(data, "import", str(data / "text.json")) == 0
    id_ = capsys.readouterr().out.split()[0]
    commands = (("list",), ("show", id_), ("search", "needle"), ("export", id_))
    for command in commands:
        assert run(data, *command) == 0
        assert "\x1b[2J" in capsys.readouterr().out, command
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for command in commands:
        assert run(data, *command) == 0
        out = capsys.readouterr().out
        assert "\x1b[2J" not in out and "␛[2J" in out, command
    assert run(data, "search", "needle") == 0
    assert "\x1b[1mneedle\x1b[22m ␛[2Jrest" in capsys.readouterr().out


@pytest.mark.parametrize("format_", FORMATS)
def test_export_writes_to_standard_output_a_file_and_a_folder(
    data: Path, tmp_path: Path, format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "export", FIRST, "--format", format_) == 0
    text = capsys.readouterr().out
    assert "Rayleigh scattering." in text
    target = tmp_path / "one"
    target.write_text("old")
    assert run(data, "export", FIRST, "--format", format_, "-o", str(target)) == 0
    assert target.read_text(encoding="utf-8") == text
    assert run(data, "export", "--all", "--format", format_, "-o", f"{tmp_path}/new/") == 0
    names = {f"{id_}{FORMATS[format_]}" for id_ in (FIRST, SECOND)}
    assert {path.name for path in (tmp_path / "new").iterdir()} == names
    assert (tmp_path / "new" / f"{FIRST}{FORMATS[format_]}").read_text(encoding="utf-8") == text
    assert run(data, "export", "--all", "--format", format_) == 0
    assert "three" in capsys.readouterr().out


def test_export_needs_an_id_or_all_and_a_place_to_write(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data, "export") == 2
    assert run(data, "export", FIRST, "--all") == 2
    assert run(data, "export", FIRST, "-o", "/dev/null/file") == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("format_", ["json", "openai", "sharegpt"])
def test_what_is_exported_is_imported_as_new_conversations(
    data: Path, tmp_path: Path, format_: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all"
    assert run(data, "export", "--all", "--format", format_, "-o", str(file)) == 0
    capsys.readouterr()
    other = tmp_path / "other"
    assert run(other, "import", str(file)) == 0
    out, error = capsys.readouterr()
    ids = [line.split()[0] for line in out.splitlines()]
    assert error == "" and len(ids) == 2 and not {FIRST, SECOND} & set(ids)
    store, there = ConversationStore(data), ConversationStore(other)
    for old, new in zip((FIRST, SECOND), ids, strict=True):
        texts = [m.content for m in store.read(old).conversation.messages]
        assert [m.content for m in there.read(new).conversation.messages] == texts


def test_import_takes_what_it_can_and_names_the_rest(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, missing = tmp_path / "good", tmp_path / "bad", tmp_path / "missing"
    good.write_text(json.dumps(SHAREGPT | {"x": 1}) + '\n{"conversations":[{"from":"tool"}]}\n')
    bad.write_text("no JSON")
    before = len(ConversationStore(data).summaries())
    assert run(data, "import", str(missing), str(bad), str(good), str(tmp_path)) == 1
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 1
    sentences = error.splitlines()
    assert sentences[0] == f"tui-chat: {missing} cannot be read (No such file or directory)."
    assert sentences[1].startswith(f"tui-chat: {bad} is no JSON")
    assert sentences[2] == f"tui-chat: {good}: 1 conversation without a message left out."
    assert sentences[3] == f"tui-chat: {tmp_path} cannot be read (Is a directory)."
    assert len(ConversationStore(data).summaries()) == before + 1


def test_an_import_that_the_disk_refuses_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text(json.dumps(SHAREGPT))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chats").write_text("in the way")
    assert run(tmp_path / "data", "import", str(file)) == 1
    assert "is not stored because" in capsys.readouterr().err
