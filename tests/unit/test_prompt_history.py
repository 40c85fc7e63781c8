import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui_chat.store import prompt_history
from tui_chat.store.prompt_history import LIMIT, PromptHistory


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "prompts.jsonl"


def test_prompts_come_back_after_a_restart(path: Path) -> None:
    history = PromptHistory(path)
    assert history.entries == []
    assert history.add("one")
    assert history.add("two\nlines \u2028 \ud800")
    assert PromptHistory(path).entries == ["one", "two\nlines \u2028 \ud800"]


def test_blank_prompts_and_repetitions_of_the_last_are_left_out(path: Path) -> None:
    history = PromptHistory(path)
    for text in ("a", "a", " \n", "b", "a"):
        assert history.add(text)
    assert history.entries == PromptHistory(path).entries == ["a", "b", "a"]


def test_only_the_newest_prompts_are_kept(path: Path) -> None:
    history = PromptHistory(path)
    for number in range(2 * LIMIT + 1):
        history.add(str(number))
    assert len(history.entries) == LIMIT
    again = PromptHistory(path)
    assert again.entries == [str(n) for n in range(LIMIT + 1, 2 * LIMIT + 1)]
    assert path.read_bytes().count(b"\n") == LIMIT  # written anew, without the old ones
    assert again.add("next")
    assert PromptHistory(path).entries[-2:] == [str(2 * LIMIT), "next"]


def test_damaged_lines_are_passed_over(path: Path) -> None:
    PromptHistory(path).add("one")
    with path.open("ab") as file:
        file.write(b'\xff\n[1]\n{"prompt":5}\n{"prompt":"to' + b"[" * 99_999)
    history = PromptHistory(path)
    assert history.entries == ["one"]
    assert history.add("two")
    assert PromptHistory(path).entries == ["one", "two"]


@settings(max_examples=50, deadline=None)
@given(noise=st.binary(max_size=200))
def test_any_bytes_in_the_file_never_raise(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes
) -> None:
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    path.write_bytes(noise)
    history = PromptHistory(path)
    assert history.add("a prompt that is not in there")
    assert PromptHistory(path).entries == history.entries


def test_failure_to_write_is_told_and_the_prompt_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    history = PromptHistory(tmp_path / "data" / "prompts.jsonl")
    assert not history.add("one")
    assert history.entries == ["one"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_anything_but_a_plain_file_is_left_alone(path: Path, kind: str) -> None:
    path.parent.mkdir()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(path.with_name("nowhere"))
    history = PromptHistory(path)
    assert history.entries == []
    assert not history.add("one")


def test_file_is_private_whatever_the_umask(path: Path) -> None:
    old = os.umask(0)
    try:
        PromptHistory(path).add("secret")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_programs_share_the_file(path: Path) -> None:
    first, second = PromptHistory(path), PromptHistory(path)
    assert first.add("from one")
    assert second.add("from the other")
    assert PromptHistory(path).entries == ["from one", "from the other"]


ADDER = """
import sys
from pathlib import Path
from tui_chat.store.prompt_history import PromptHistory
history = PromptHistory(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(300):
    assert history.add(f"{sys.argv[2]} {number}")
"""


def test_programs_that_add_at_the_same_time_lose_nothing(path: Path) -> None:
    adders = [
        subprocess.Popen(
            [sys.executable, "-c", ADDER, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("a", "b", "c")
    ]
    for adder in adders:
        assert adder.stdout is not None
        adder.stdout.readline()
    for adder in adders:
        assert adder.stdin is not None
        adder.stdin.write(b"go\n")
        adder.stdin.flush()
    for adder in adders:
        adder.communicate()
    assert [adder.returncode for adder in adders] == [0, 0, 0]
    entries = PromptHistory(path).entries
    for name in ("a", "b", "c"):
        mine = [entry for entry in entries if entry.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(300)]


def test_a_prompt_that_is_added_while_the_file_is_written_anew_is_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = PromptHistory(path)
    for number in range(2 * LIMIT + 1):
        full.add(str(number))
    real = prompt_history.atomic_write
    added = []

    def add_then_write(target: Path, text: str) -> None:
        adder = threading.Thread(target=lambda: added.append(full.add("in between")))
        adder.start()
        real(target, text)
        adders.append(adder)

    adders: list[threading.Thread] = []
    monkeypatch.setattr(prompt_history, "atomic_write", add_then_write)
    PromptHistory(path)
    for adder in adders:
        adder.join()
    assert added == [True]
    assert PromptHistory(path).entries[-1] == "in between"


def test_earlier_prompts_are_walked_by_prefix(path: Path) -> None:
    history = PromptHistory(path)
    for text in ("git log", "ls", "git diff", "pwd"):
        history.add(text)
    assert history.previous("git") == 2
    assert history.previous("git", 2) == 0
    assert history.previous("git", 0) is None
    assert history.previous("") == 3
    assert history.following("git", 0) == 2
    assert history.following("git", 2) is None
    assert history.following("", 2) == 3
