import base64
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tui_chat.ui.clipboard import (
    LIMIT,
    SCREEN_CHUNK,
    SCREEN_LIMIT,
    clipboard_sequence,
    may_be_lost,
)


def payloads(sequence: str) -> list[str]:
    """The texts of all OSC 52 sequences."""
    found = re.findall(r"\x1b\]52;c;([A-Za-z0-9+/=]*)(?:\x07|\x1b\\)", sequence)
    return [base64.b64decode(payload).decode() for payload in found]


def through_screen(sequence: str) -> str:
    """What GNU screen passes on: the contents of its DCS strings."""
    parts = re.findall(r"\x1bP(.*?)\x1b\\", sequence, re.DOTALL)
    assert all(len(part) <= SCREEN_CHUNK for part in parts)
    return "".join(parts)


def test_a_plain_terminal_gets_one_sequence() -> None:
    sequence = clipboard_sequence("zwölf ✓\n", {"TERM": "xterm-256color"})
    assert sequence is not None
    assert payloads(sequence) == ["zwölf ✓\n"] and sequence.startswith("\x1b]52;c;")


@pytest.mark.parametrize("environ", [{"TMUX": "x", "TERM": "screen"}, {"TERM": "tmux-256color"}])
def test_tmux_gets_it_plain_and_wrapped(environ: dict[str, str]) -> None:
    sequence = clipboard_sequence("text", environ)
    assert sequence is not None
    plain, wrapped = sequence.split("\x1bPtmux;")
    assert payloads(plain) == ["text"]
    assert payloads(wrapped.removesuffix("\x1b\\").replace("\x1b\x1b", "\x1b")) == ["text"]


@pytest.mark.parametrize("length", [1, 170, 180, 5000, LIMIT * 3 // 4 - 3])
def test_gnu_screen_gets_it_in_pieces_that_make_the_whole(length: int) -> None:
    text = "x" * length
    sequence = clipboard_sequence(text, {"STY": "1.pts", "TERM": "screen"})
    assert sequence is not None
    assert payloads(through_screen(sequence)) == [text]
    assert re.sub(r"\x1bP.*?\x1b\\", "", sequence, flags=re.DOTALL) == ""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("outer", "inner"), [("tmux: server", "screen"), ("SCREEN", "tmux: server")]
)
def test_of_two_multiplexers_the_nearest_is_meant(tmp_path: Path, outer: str, inner: str) -> None:
    for name in (outer, inner):  # a process is called as the file that it was started from
        (tmp_path / name).symlink_to("/bin/sh")
    told = "from tui_chat.ui.terminal import is_screen, is_tmux; print(is_screen(), is_tmux())"
    line = shlex.join([sys.executable, "-c", told]) + "; true"  # or the shell would become it
    line = shlex.join([str(tmp_path / inner), "-c", line]) + "; true"
    environment = {**os.environ, "TMUX": "x", "STY": "1.pts", "TERM": "screen-256color"}
    run = subprocess.run(
        [tmp_path / outer, "-c", line], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [str(inner == "screen"), str(inner != "screen")]


def test_over_ssh_a_terminal_that_calls_itself_screen_may_be_tmux() -> None:
    short = clipboard_sequence("text", {"TERM": "screen-256color"})
    assert short is not None
    assert payloads(re.sub(r"\x1bP.*?\x1b\\", "", short, flags=re.DOTALL)) == ["text"]
    long = clipboard_sequence("x" * SCREEN_LIMIT, {"TERM": "screen-256color"})
    assert long is not None
    assert payloads(re.sub(r"\x1bP.*?\x1b\\", "", long, flags=re.DOTALL)) == []


@pytest.mark.parametrize(
    ("environ", "lost"),
    [
        ({"TERM": "screen-256color"}, True),
        ({"TERM": "screen", "STY": "1.pts"}, False),
        ({"TERM": "screen", "TMUX": "x"}, False),
        ({"TERM": "tmux-256color"}, False),
        ({"TERM": "xterm-256color"}, False),
    ],
)
def test_a_long_text_may_be_lost_where_a_tmux_calls_itself_screen(
    environ: dict[str, str], lost: bool
) -> None:
    assert may_be_lost("x" * SCREEN_LIMIT, environ) is lost
    assert not may_be_lost("text", environ)


def test_what_terminals_would_cut_is_not_sent_at_all() -> None:
    assert clipboard_sequence("x" * (LIMIT * 3 // 4), {}) is not None
    assert clipboard_sequence("x" * (LIMIT * 3 // 4 + 1), {}) is None


def test_a_lone_surrogate_can_be_copied() -> None:
    assert payloads(clipboard_sequence("a\ud800b", {}) or "") == ["a?b"]
