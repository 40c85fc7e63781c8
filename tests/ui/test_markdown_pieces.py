from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.ui import markdown_pieces
from tui_chat.ui.markdown_layout import TOO_LARGE, lay_out
from tui_chat.ui.markdown_pieces import (
    CodePiece,
    MarkdownPiece,
    MarkdownPieces,
    Piece,
    PlainPiece,
    VerbatimPieces,
    code_blocks,
    gap_between,
)

FRAGMENTS = [
    *("- a", "- b c", "* x", "1. one", "2. two", "10) z", "\n", "\n\n", "  ", "    ", "\t"),
    *("```", "```py", "~~~", "````", "```\n", "\n```\n", "`c`", "text *em* **b**", "# h", "---"),
    *("> q", "> - x", "| a | b |", "|---|---|", "===", "[l]: http://x", "[l]", "[a](b)", "<b>"),
    *("\\(x\\)", "$$y$$", "word word", "- [ ] t", "\n- ", "\n1. ", "\n> ", "\n   - ", "你好 🙂"),
]
markdown = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join)


@st.composite
def chunks(draw: st.DrawFn) -> list[str]:
    text = draw(markdown)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def streamed(parts: list[str], pieces: MarkdownPieces | None = None) -> MarkdownPieces:
    """The pieces of a reply that came in `parts`; at each step they hold all of it so far."""
    pieces = pieces or MarkdownPieces()
    for index, part in enumerate(parts):
        for _ in pieces.feed(part):
            pass
        shown = "".join(piece.source for piece in (*pieces.settled, *pieces.tail))
        assert shown == pieces.source == "".join(parts[: index + 1])
    for _ in pieces.finish():
        pass
    return pieces


def looks(pieces: list[Piece]) -> Iterator[tuple[object, ...]]:
    """All that is seen of the pieces."""
    number = 1
    for before, piece in zip([None, *pieces], pieces, strict=False):
        yield piece.source, gap_between(before, piece), tuple(lay_out(piece, 40, number))
        number += len(piece.code_blocks())


def shown_text(pieces: list[Piece], width: int = 40) -> str:
    rows = [row for piece in pieces for row in lay_out(piece, width, 1)]
    return "".join(f"{row.joint}{row.text}" for row in rows)


@given(chunks())
def test_a_reply_that_came_in_pieces_is_whole_and_looks_as_if_it_came_at_once(
    parts: list[str],
) -> None:
    pieces = streamed(parts)
    assert pieces.source == "".join(parts)
    assert pieces.tail == []
    assert list(looks(pieces.settled)) == list(looks(streamed(["".join(parts)]).settled))


@given(chunks())
def test_nothing_is_lost_where_every_block_is_too_large(parts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in {"CHARS": 30, "LINES": 3, "CELLS": 4}.items():
            patch.setattr(markdown_pieces, f"MAX_{name}", limit)
        patch.setattr(markdown_pieces, "SLICE_CHARS", 9)
        assert streamed(parts).source == "".join(parts)


@given(chunks())
def test_what_is_settled_does_not_change_any_more(parts: list[str]) -> None:
    pieces = MarkdownPieces()
    before: list[Piece] = []
    for part in parts:
        for _ in pieces.feed(part):
            assert pieces.settled[: len(before)] == before
            before = list(pieces.settled)


@given(chunks())
def test_a_text_that_is_shown_as_it_is_keeps_every_character(parts: list[str]) -> None:
    pieces = streamed(parts, VerbatimPieces())
    text = "".join(parts).rstrip(" \t\n")
    assert "".join(shown_text(pieces.settled, 10_000)[1:].split()) == "".join(text.split())


words = st.integers(0, 999).map(lambda number: f"w{number}w")
blocks = st.one_of(
    words,
    st.lists(words, min_size=1, max_size=30).map(" ".join),
    st.lists(words, min_size=1).map(lambda each: "\n".join(f"- {word}" for word in each)),
    st.lists(words, min_size=1).map(lambda each: "\n".join(f"3. **{word}**" for word in each)),
    st.lists(words, min_size=1).map(lambda each: "\n".join(f"> {word}" for word in each)),
    st.lists(words, min_size=1).map(lambda each: "```py\n" + "\n".join(each) + "\n```"),
    st.lists(words, min_size=2, max_size=2).map(
        lambda each: f"| {each[0]} | a |\n|---|---|\n| {each[1]} | b |"
    ),
)


@given(st.lists(blocks, min_size=1), st.integers(4, 120), st.integers(1, 40))
def test_every_word_is_shown_in_its_order(texts: list[str], width: int, size: int) -> None:
    text = "\n\n".join(texts)
    pieces = streamed([text[at : at + size] for at in range(0, len(text), size)])
    shown = "".join(
        character for character in shown_text(pieces.settled, width) if character.isalnum()
    )
    position = 0
    for word in "".join(c if c.isalnum() else " " for c in text).split():
        if word.startswith("w"):
            position = shown.index(word, position) + len(word)


def kinds(text: str, size: int) -> tuple[list[type[Piece]], int]:
    """The kinds of pieces of a reply that came `size` characters at a time; the largest one."""
    pieces = streamed([text[at : at + size] for at in range(0, len(text), size)])
    found = [*map(type, pieces.settled)]
    return found, max(len(piece.source) for piece in pieces.settled)


ROW = "|" + "|".join(f"cell {number}" for number in range(20)) + "|"
TABLE = "\n".join([ROW, "|---" * 20 + "|", *[ROW] * 300])
LARGE = {
    "table": TABLE,
    "line": "word " * 40_000,
    "paragraph": "a line of a paragraph\n" * 9_000,
    "quote": "> quoted\n" * 5_000,
    "nested list": "- top\n" + "  - nested item\n" * 3_000,
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("size", [700, 10**9])
def test_a_block_that_is_too_large_is_plain_text_and_says_so_and_the_next_is_not(
    name: str, size: int
) -> None:
    text = f"# before\n\n{LARGE[name]}\n\nafter **all**\n"
    pieces = streamed([text[at : at + size] for at in range(0, len(text), size)]).settled
    first, *plain, last = pieces
    assert isinstance(first, MarkdownPiece) and isinstance(last, MarkdownPiece)
    assert {type(piece) for piece in plain} == {PlainPiece}
    rows = [[row.text for row in lay_out(piece, 80, 1)] for piece in pieces]
    assert rows[0][0] == "before" and rows[-1] == ["after all"]
    assert sum(row.count(TOO_LARGE) for row in rows) == 1
    assert all(len(piece.source) <= 2 * markdown_pieces.MAX_CHARS for piece in pieces)


def test_a_long_code_block_is_code_throughout_in_pieces_of_bounded_size() -> None:
    code = "\n".join(f"x = {number}" for number in range(5_000))
    found = streamed([f"```python\n{code}\n```\n"]).settled
    assert {type(piece) for piece in found} == {CodePiece}
    rows = [row for piece in found for row in lay_out(piece, 60, 7)]
    assert rows[0].text.split() == ["python", "/copy", "7"]
    assert [row.text.strip() for row in rows[1:]] == code.split("\n")
    assert all(row.ground for row in rows)
    assert code_blocks(f"```python\n{code}\n```\n") == [f"{code}\n"]


def test_a_list_is_settled_item_by_item() -> None:
    text = "".join(f"{number}. item {number}\n" for number in range(1, 501))
    pieces = streamed([text]).settled
    assert len(pieces) == 500
    assert not any(piece.is_apart for piece in pieces[1:])
    assert shown_text(pieces).split("\n")[-1].strip() == "500. item 500"


@pytest.mark.parametrize("mark", ["[", "![a", "`a ``b ", "*a **b ", "<", "://", "\\(", "$$a "])
def test_markup_that_never_ends_is_shown_as_it_is(mark: str) -> None:
    text = mark * (30_000 // len(mark))
    shown = shown_text(streamed([text]).settled, 10_000)
    assert shown.replace("\n", "").removeprefix(TOO_LARGE).strip() == text.strip()


def test_code_is_counted_and_given_raw() -> None:
    text = "```py\na = '$x$'\n```\n\n- item\n\n  ~~~\n  b\n  ~~~\n\n$$\n    no code\n$$\n\n    c\n"
    assert code_blocks(text) == ["a = '$x$'\n", "b\n", "c\n"]


def test_long_code_is_cut_where_a_line_begins_at_the_edge() -> None:
    function = "\n".join(["def f():", *(f"    x{number} = 0" for number in range(40)), ""])
    text = "```py\n" + function * 5 + "```\n"
    found = [piece for piece in streamed([text]).settled if isinstance(piece, CodePiece)]
    assert len(found) > 1
    assert all(piece.text.startswith("def f():") for piece in found)
    assert "".join(piece.text for piece in found) == function * 5
