"""Pastes, the editor, the pager and the scrollback in a real pseudo-terminal."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest
import test_pty  # type: ignore[import-not-found]
from test_pty import Pty, Start, records

script, start = test_pty.script, test_pty.start  # pytest finds the fixtures here by name

PASTE, END = b"\x1b[200~", b"\x1b[201~"


def send(terminal: Pty, data: bytes) -> None:
    """Write all of it, however slowly it is read."""
    while data:
        data = data[os.write(terminal.fd, data) :]


def prompts(home: Path) -> list[object]:
    return [record["content"] for record in records(home) if record.get("role") == "user"]


def comes_back(terminal: Pty) -> None:
    """Wait for the screen after a visit outside, its figures of the last reply included."""
    terminal.until(lambda: terminal.raw.count(b"\x1b[?1049h") == 2)
    terminal.shows("newline")


def program(path: Path, lines: str) -> str:
    """A shell script that stands in for an editor or a pager."""
    path.write_text(f"#!/bin/sh\n{lines}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_paste_that_never_ends_does_not_take_the_keyboard(start: Start) -> None:
    terminal = start()
    terminal.type(PASTE + b"half a paste")
    terminal.shows("half a paste")
    terminal.type("\x11")
    assert terminal.exit_code() == 0


def test_a_sign_right_behind_esc_is_typed_and_alt_enter_is_a_new_line(
    start: Start, home: Path
) -> None:
    terminal = start()
    terminal.type("one")
    terminal.type("\x1bx\x1b/\x1b\x1bé\x1b\r")  # at once, as over a slow connection
    terminal.type("two")
    terminal.shows("two")
    terminal.type("\r")
    terminal.shows("It has two paragraphs.")
    assert prompts(home) == ["onex/é\ntwo"]


def test_an_end_inside_a_paste_neither_quits_nor_sends(start: Start, home: Path) -> None:
    terminal = start()
    send(terminal, PASTE + b"harmless" + END + b"\x11\rmore" + END)
    terminal.shows("more")
    terminal.type(" end\r")
    terminal.shows("It has two paragraphs.")
    assert prompts(home) == ["harmless\x11\nmore end"]


def test_bytes_of_every_kind_can_be_pasted(start: Start) -> None:
    terminal = start()
    send(terminal, PASTE + bytes(range(256)) * 2 + END)
    terminal.type("still here")
    terminal.shows("still here")
    terminal.type("\r")
    terminal.shows("It has two paragraphs.")


def test_a_paste_of_a_megabyte_is_one_label_and_nothing_of_it_is_lost(
    start: Start, home: Path
) -> None:
    terminal = start()
    text = "".join(f"line {number} of a very long log\n" for number in range(40_000))
    assert len(text) > 1_000_000
    send(terminal, b"Look: " + PASTE + text.replace("\n", "\r").encode() + END)
    terminal.shows("[≡ pasted 40,001 lines")
    terminal.type("\r")
    terminal.shows("shorten it")  # too long for this model, and so in the box again
    terminal.shows("▌ Look: [≡ pasted 40,001 lines")
    history = home / "data" / "prompts.jsonl"
    assert json.loads(history.read_text(encoding="utf-8"))["prompt"] == f"Look: {text}"


def test_a_paste_above_the_limit_is_refused_with_a_sentence(start: Start) -> None:
    terminal = start()
    writer = threading.Thread(target=send, args=(terminal, PASTE + b"x" * 20_000_000 + END))
    writer.start()
    terminal.shows("The paste of 20 MB is too large")
    writer.join()
    terminal.type("short instead\r")
    terminal.shows("It has two paragraphs.")


def test_an_editor_that_fails_loses_neither_the_prompt_nor_the_screen(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    for editor in ("false", "/no/such/editor", "unclosed 'quote"):
        monkeypatch.setenv("EDITOR", editor)
        terminal = start()
        terminal.type("my draft")
        terminal.shows("my draft")
        terminal.type("\x07")  # Ctrl+G
        terminal.shows("unchanged")
        terminal.shows("▌ my draft")
        terminal.type("\r")
        terminal.shows("It has two paragraphs.")


def test_what_a_crashed_editor_had_saved_is_kept_in_a_file(
    start: Start, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", program(tmp_path / "editor", 'echo precious >> "$1"; exit 1'))
    terminal = start()
    terminal.type("draft ")
    terminal.shows("draft")
    terminal.type("\x07")
    terminal.shows("saved")
    kept = home / "cache" / "prompt.md"
    assert kept.read_text(encoding="utf-8") == "draft precious\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_the_editor_gets_pastes_in_full_and_a_huge_result_is_folded(
    start: Start, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    lines = (
        f'cp "$1" {seen}; i=0; while [ $i -lt 3000 ]; do echo "row $i"; i=$((i+1)); done >> "$1"'
    )
    monkeypatch.setenv("VISUAL", program(tmp_path / "editor", lines))
    terminal = start()
    send(terminal, PASTE + b"a\rb\rc\rd\re\rf\rg\rh" + END)
    terminal.shows("[≡ pasted 8 lines")
    terminal.type("\x07")
    terminal.shows("[≡ text of 3,007 lines")
    assert seen.read_text(encoding="utf-8") == "a\nb\nc\nd\ne\nf\ng\nh"
    terminal.type("\r")
    terminal.until(lambda: bool(list(home.glob("data/chats/*"))) and bool(prompts(home)))
    rows = "\n".join(f"row {number}" for number in range(3000))
    assert prompts(home) == [f"a\nb\nc\nd\ne\nf\ng\nh{rows}"]


def test_print_writes_the_chat_into_the_scrollback_and_comes_back(
    start: Start, script: Path
) -> None:
    script.write_text("printed \x1b]52;c;aGk=\x07reply\n", encoding="utf-8")
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    before = len(terminal.raw)
    terminal.type("/print\r")
    terminal.shows("Press Enter to go back to the chat.")
    written = terminal.raw[before:]
    left, plain = written.find(b"\x1b[?1049l"), written.find(b"## User")
    assert 0 <= left < plain
    assert b"\x1b]52" not in written and "␛]52".encode() in written
    terminal.type("\r")
    comes_back(terminal)
    terminal.type("again\r")
    terminal.shows("▌ again")


def test_the_chat_is_printed_at_the_end_when_that_is_asked_for(start: Start) -> None:
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type("/print exit\r")
    terminal.shows("when you quit")
    terminal.type("\x11")
    output = terminal.whole_output()
    assert output.rfind(b"It has two paragraphs.") > output.rfind(b"\x1b[?1049l")


def test_the_pager_gets_the_safe_text_and_a_short_one_waits(
    start: Start, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.write_text("paged \x1b[31mreply\n", encoding="utf-8")
    seen = tmp_path / "seen"
    monkeypatch.setenv("PAGER", program(tmp_path / "pager", f'cp "$1" {seen}; cat "$1"'))
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type("/pager reply\r")
    terminal.shows("Press Enter to go back to the chat.")
    terminal.type("\r")
    comes_back(terminal)
    assert seen.read_text(encoding="utf-8") == "paged ␛[31mreply"


def test_a_pager_that_was_left_at_once_asks_for_nothing_more(
    start: Start, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.write_text("line\n\n" * 100, encoding="utf-8")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PAGER", program(tmp_path / "bin" / "less", 'head -3 "$1"'))
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type("/pager\r")
    comes_back(terminal)
    assert b"Press Enter" not in terminal.raw


def test_ctrl_c_in_the_pager_does_not_end_the_chat(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "trap 'echo interrupted; exit 0' INT; echo paging; while :; do sleep 0.1; done"
    monkeypatch.setenv("PAGER", program(tmp_path / "pager", lines))
    terminal = start()
    terminal.type("hello\r")
    terminal.shows("tok/s · speed")
    terminal.type("/pager\r")
    terminal.shows("paging")
    terminal.type("\x03")
    terminal.shows("interrupted")
    terminal.type("\r")  # a visit that short is followed by a question
    comes_back(terminal)
    terminal.type("still here\r")
    terminal.shows("▌ still here")


def test_half_of_a_surrogate_pair_moves_nothing_that_stands_behind_it(
    start: Start, home: Path
) -> None:
    history = home / "data" / "prompts.jsonl"
    history.parent.mkdir(parents=True, exist_ok=True)
    history.write_text(json.dumps({"prompt": "one \ud800 two"}) + "\n", encoding="utf-8")
    terminal = start()
    terminal.type("\x1b[A")
    terminal.shows("▌ one ? two")
