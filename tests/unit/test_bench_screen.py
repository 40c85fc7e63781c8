"""The rows of the screen, each measured once and small in a real terminal."""

from pathlib import Path

import pytest

from tui_chat.bench import first_frame, key_echo, stalls, wire
from tui_chat.bench.harness import BenchError, Setup
from tui_chat.bench.texts import english
from tui_chat.engine.echo import split_tokens

pytestmark = pytest.mark.slow


def silent(line: str) -> None:
    pass


def test_bytes_and_processor_time_are_measured_on_both_profiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "STILL_SECONDS", 0.5)
    rows = {row.row: row for row in wire.measure(Setup(runs=1, tokens=20), silent)}
    assert list(rows) == [
        "wire ssh: bytes",
        "wire ssh: screen CPU",
        "wire default: bytes",
        "wire default: screen CPU",
    ]
    # What was said is sent at least once, whatever the screen looks like.
    for row in (rows["wire ssh: bytes"], rows["wire default: bytes"]):
        assert row.before < row.after < 1_000


def test_prose_has_as_many_tokens_as_words() -> None:
    text = english(500)
    assert len(split_tokens(text)) == len(text.split()) == 500
    assert text == english(500) and text != english(500, seed=1)
    assert "\n\n" in text and text.endswith(".")


def test_a_key_is_timed_at_rest_and_during_a_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_echo, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(key_echo, "LETTERS", "jv")
    script = tmp_path / "reply.txt"
    script.write_text(english(2000), encoding="utf-8")
    options = ["--model", f"echo:{script}", "--echo-rate", "20"]
    rows = list(key_echo.rows("echo", options, 3, 1, silent))
    assert [row.row for row in rows] == ["key-echo echo p50", "key-echo echo p99"]
    assert all(row.before > 0 and row.after > 0 for row in rows)


@pytest.mark.parametrize("name", [name for name in stalls.replies(0.01) if name != "prose"])
def test_no_reply_holds_up_the_keys(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(stalls, "SETTLE_SECONDS", 0.3)
    delays = stalls.delays_of(stalls.replies()[name], 0, reads_it=False)
    # In time of the processor, which a busy machine does not lengthen.
    assert max(delay.own for delay in delays) < 250


def test_replies_that_are_hard_to_show_are_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(stalls, "RATES", {"at once": 0})
    texts = stalls.replies(0.02)
    few = {name: texts[name] for name in ("a table of 300x20", "a fence of 5,000 lines")}
    rows = list(stalls.rows(few, 1, silent))
    assert len(rows) == 2
    assert all(row.after > 0 and "all text was shown" in row.note for row in rows)


def test_a_reply_that_is_shown_otherwise_fails_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(stalls, "SHOWN_SECONDS", 1.0)
    monkeypatch.setattr(stalls, "RATES", {"at once": 0})
    with pytest.raises(BenchError, match="does not show"):
        list(stalls.rows({"a tag": "one &amp; two"}, 1, silent))


def test_the_first_frame_is_measured_with_and_without_chats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first_frame, "CHATS", 3)
    rows = list(first_frame.measure(Setup(runs=1), silent))
    assert [row.row for row in rows] == ["first-frame", "first-frame, 3 chats"]
    assert all(row.before > 0 and row.after > 0 for row in rows)
