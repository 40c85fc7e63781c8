from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tui_chat.ui.bracketed_paste import (
    END,
    IDLE,
    LONGEST_HOLD,
    MARKER_GAP,
    SETTLE,
    START,
    UNMARKED,
    Paste,
    PasteSplitter,
)


def split(*pieces: bytes, limit: int = 1000) -> list[bytes | Paste]:
    """What comes out when the pieces arrive at once and then nothing more."""
    splitter = PasteSplitter(limit)
    found = [part for piece in pieces for part in splitter.feed(piece, 0.0)]
    return joined([*found, *splitter.tick(SETTLE), *splitter.tick(IDLE), *splitter.tick(2 * IDLE)])


def joined(parts: list[bytes | Paste]) -> list[bytes | Paste]:
    """Neighbouring keys as one."""
    whole: list[bytes | Paste] = []
    for part in parts:
        last = whole[-1] if whole else None
        if isinstance(part, bytes) and isinstance(last, bytes):
            whole[-1] = last + part
        else:
            whole.append(part)
    return whole


def test_keys_pass_at_once_when_there_is_no_paste() -> None:
    splitter = PasteSplitter()
    assert splitter.feed(b"abc\x1b[A\r", 0.0) == [b"abc\x1b[A\r"]
    assert not splitter.waits


def test_a_paste_stands_between_the_keys_around_it() -> None:
    parts = split(b"a" + START + "zwölf\r\nzeilen\rhier".encode() + END + b"\r")
    assert parts == [b"a", Paste("zwölf\nzeilen\nhier", 19), b"\r"]


def test_keys_behind_a_paste_wait_only_until_the_terminal_is_silent() -> None:
    splitter = PasteSplitter()
    assert splitter.feed(START + b"x" + END + b"\r", 0.0) == []
    assert splitter.tick(SETTLE / 2) == []
    assert splitter.tick(SETTLE) == [Paste("x", 1), b"\r"]


def test_an_endless_stream_behind_a_paste_is_not_held_for_ever() -> None:
    splitter = PasteSplitter()
    splitter.feed(START + b"x" + END, 0.0)
    found: list[bytes | Paste] = []
    steps = int(LONGEST_HOLD / (SETTLE / 2)) + 2
    for step in range(1, steps):
        found += splitter.feed(b"m", step * SETTLE / 2)
    assert found[0] == Paste("x", 1)
    assert found[1].startswith(b"mm")  # type: ignore[union-attr]


def test_an_end_inside_a_paste_presses_no_keys() -> None:
    hostile = START + b"nice " + END + b"\x11\rrm -rf /" + END
    assert split(hostile) == [Paste("nice \x11\nrm -rf /", 15)]


def test_two_pastes_in_a_row_stay_two() -> None:
    parts = split(START + b"one" + END + b"\r" + START + b"two" + END)
    assert parts == [Paste("one", 3), b"\r", Paste("two", 3)]


def test_a_paste_without_an_end_is_taken_after_a_silence() -> None:
    splitter = PasteSplitter()
    assert splitter.feed(START + b"lost", 0.0) == []
    assert splitter.tick(IDLE - 0.1) == []
    assert splitter.tick(IDLE) == [Paste("lost", 4)]
    assert splitter.feed(b"\x11", IDLE + 0.1) == [b"\x11"]


def test_a_paste_above_the_limit_has_no_text_but_a_size() -> None:
    assert split(START + b"x" * 1001 + END + b"k") == [Paste(None, 1001), b"k"]
    assert split(START + b"x" * 1000 + END) == [Paste("x" * 1000, 1000)]


def test_escape_alone_comes_out_after_a_moment() -> None:
    splitter = PasteSplitter()
    assert splitter.feed(b"\x1b", 0.0) == [] and splitter.waits
    assert splitter.tick(MARKER_GAP) == [b"\x1b"]


def test_bytes_that_are_no_utf_8_become_a_mark_and_nul_is_dropped() -> None:
    assert split(START + b"caf\xe9\x00!" + END) == [Paste("caf\ufffd!", 6)]


def test_much_plain_text_at_once_is_a_paste_where_the_terminal_marks_none() -> None:
    lines = b"a line of a file\r" * 20
    assert split(lines) == [Paste("a line of a file\n" * 20, 340)]
    assert split(lines[:300], lines[300:]) == [Paste("a line of a file\n" * 20, 340)]
    assert split(lines + b"\x11") == [Paste("a line of a file\n" * 20, 340), b"\x11"]
    assert split(lines + b"\x1b[A") == [Paste("a line of a file\n" * 20, 340), b"\x1b[A"]


def test_what_may_be_typed_ahead_is_no_paste() -> None:
    assert split(b"hello there\rand more\r" * 5) == [b"hello there\rand more\r" * 5]


def test_text_that_comes_after_a_pause_is_typed_again() -> None:
    splitter = PasteSplitter()
    assert splitter.feed(b"x" * UNMARKED, 0.0) == []
    assert splitter.feed(b"y", SETTLE) == [Paste("x" * UNMARKED, UNMARKED), b"y"]


@given(
    st.lists(st.sampled_from([b"a", b"\r", b"\x1b", b"[200~", START, END, b"\xc3\xa9", b"\x1b[A"])),
    st.lists(st.integers(0, 60)),
)
def test_it_does_not_matter_where_the_bytes_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert split(*pieces) == split(data)


@given(st.binary(max_size=200).filter(lambda data: START not in data))
def test_keys_are_never_changed_or_lost(data: bytes) -> None:
    assert b"".join(part for part in split(data) if isinstance(part, bytes)) == data
