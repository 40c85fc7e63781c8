import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.store import drafts
from tui_chat.store.drafts import LIMIT, NEW_CHAT, Draft, Drafts

CHAT = "20260301-120000-0000000a"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "drafts"


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_draft_comes_back_for_its_conversation_alone(folder: Path) -> None:
    held = Drafts(folder).hold(CHAT)
    assert held.saved == Draft()
    draft = Draft("half a \ud83d thought\n\u2028", ("first", "second"), ("/a/b.txt",))
    assert held.save(draft)
    held.close()
    assert Drafts(folder).hold(NEW_CHAT).saved == Draft()
    again = Drafts(folder).hold(CHAT)
    assert again.saved == draft
    assert again.saved.joined == "first\n\nsecond\n\nhalf a \ud83d thought\n\u2028"


def test_a_draft_of_an_earlier_version_knows_no_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / f"{CHAT}.json").write_text('{"text":"old","queued":["one"]}\n', encoding="utf-8")
    assert Drafts(folder).hold(CHAT).saved == Draft("old", ("one",))


def test_an_empty_draft_leaves_no_file(folder: Path) -> None:
    held = Drafts(folder).hold(CHAT)
    assert held.save(Draft())
    assert files(folder) == []
    assert held.save(Draft("one")) and held.save(Draft("two"))
    assert files(folder) == [f"{CHAT}.json"]
    assert held.save(Draft())
    assert files(folder) == []
    assert held.save(Draft("three"))
    held.close()
    assert Drafts(folder).hold(CHAT).saved == Draft("three")


def test_two_programs_keep_both_their_drafts(folder: Path) -> None:
    first, second = Drafts(folder).hold(NEW_CHAT), Drafts(folder).hold(NEW_CHAT)
    assert first.save(Draft("of the first"))
    assert second.save(Draft("of the second"))
    third = Drafts(folder).hold(NEW_CHAT)
    assert third.saved == Draft()  # both are in use
    assert first.save(Draft("of the first again"))
    first.close()
    second.close()
    found = [Drafts(folder).hold(NEW_CHAT) for _ in range(3)]
    texts = {held.saved.text for held in found}
    assert texts == {"of the first again", "of the second", ""}


def test_the_draft_that_was_written_last_is_taken_first(folder: Path) -> None:
    held = [Drafts(folder).hold(CHAT) for _ in range(3)]
    for number, one in enumerate(held):
        one.save(Draft(f"draft {number}"))
        one.close()
    os.utime(folder / f"{CHAT}.2.json", (2_000_000_000, 2_000_000_000))
    assert Drafts(folder).hold(CHAT).saved == Draft("draft 1")


def test_a_draft_that_is_not_adopted_stays(folder: Path) -> None:
    held = Drafts(folder).hold(NEW_CHAT)
    held.save(Draft("old"))
    held.close()
    other = Drafts(folder).hold(NEW_CHAT, adopt=False)
    assert other.saved == Draft()
    other.save(Draft("new"))
    other.close()
    assert {Drafts(folder).hold(NEW_CHAT).saved.text for _ in "12"} <= {"old", "new"}
    assert len(files(folder)) == 2


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "empty", "torn", "list", "numbers"])
def test_what_is_no_draft_is_passed_over_and_left_alone(folder: Path, kind: str) -> None:
    folder.mkdir(parents=True)
    path = folder / f"{CHAT}.json"
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(path.with_name("nowhere"))
        case "empty":
            path.touch()
        case "torn":
            path.write_bytes(b'{"text":"a","queu')
        case "list":
            path.write_bytes(b"[1]")
        case "numbers":
            path.write_bytes(b'{"text":5,"queued":{}}')
    held = Drafts(folder).hold(CHAT)
    assert held.saved == Draft()
    assert held.save(Draft("kept"))
    held.close()
    assert Drafts(folder).hold(CHAT).saved == Draft("kept")


@settings(max_examples=50, deadline=None)
@given(noise=st.binary(max_size=100))
def test_any_bytes_in_the_file_never_raise(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    folder = tmp_path_factory.mktemp("drafts")
    (folder / f"{CHAT}.json").write_bytes(noise)
    assert Drafts(folder).hold(CHAT).save(Draft("text"))


def test_a_folder_that_cannot_be_written_is_told_and_nothing_raised(tmp_path: Path) -> None:
    (tmp_path / "drafts").write_text("in the way")
    held = Drafts(tmp_path / "drafts").hold(CHAT)
    assert not held.save(Draft("one"))
    assert held.saved == Draft()
    Drafts(tmp_path / "drafts").prune()


def test_a_draft_whose_file_was_taken_away_gets_another(folder: Path) -> None:
    held = Drafts(folder).hold(CHAT)
    held.save(Draft("one"))
    (folder / f"{CHAT}.json").unlink()
    assert held.save(Draft("two"))
    held.close()
    assert Drafts(folder).hold(CHAT).saved == Draft("two")


def test_a_draft_of_any_length_ends_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "LONGEST", 1000)
    held = Drafts(folder).hold(CHAT)
    assert held.save(Draft("short"))
    assert not held.save(Draft("x" * 1000))
    held.close()
    assert Drafts(folder).hold(CHAT).saved == Draft("short")


def test_drafts_are_private_whatever_the_umask(folder: Path) -> None:
    old = os.umask(0)
    try:
        held = Drafts(folder).hold(CHAT)
        for text in ("one", "two"):
            held.save(Draft(text))
            (path,) = folder.iterdir()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_only_the_newest_drafts_are_kept_and_never_one_in_use_removed(folder: Path) -> None:
    folder.mkdir(parents=True)
    in_use = Drafts(folder).hold("in-use")
    in_use.save(Draft("typing"))
    os.utime(folder / "in-use.json", (1, 1))
    for number in range(LIMIT + 5):
        path = folder / f"chat-{number}.json"
        path.write_text('{"text":"x","queued":[]}')
        os.utime(path, (100 + number, 100 + number))
    (folder / "abc.partial").write_text("half")
    Drafts(folder).prune()
    names = files(folder)
    assert len(names) == LIMIT + 1 and "in-use.json" in names
    assert "chat-4.json" not in names and "chat-5.json" in names
    assert "abc.partial" not in names


WRITER = """
import sys
from pathlib import Path
from tui_chat.store.drafts import Draft, Drafts
held = Drafts(Path(sys.argv[1])).hold("chat")
number = 0
while True:
    number += 1
    held.save(Draft(f"{number} " + "x" * (number % 5000)))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_a_kill_while_writing_leaves_the_last_draft_whole(folder: Path) -> None:
    for rounds in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        last = 0
        for _ in range(40 + 17 * rounds):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0].split()
        last = int(rest[-1]) if rest else last
        held = Drafts(folder).hold("chat")
        number, _, tail = held.saved.text.partition(" ")
        assert int(number) in (last, last + 1) and len(tail) == int(number) % 5000
        held.save(Draft())
        held.close()
