from hypothesis import given
from hypothesis import strategies as st

from tui_chat.store.search import words_of
from tui_chat.ui.excerpt import Piece, excerpt

TEN = "\n".join(f"line {number}" for number in range(10))


def test_without_a_hit_the_first_lines_are_shown_and_the_rest_is_counted() -> None:
    assert excerpt(TEN, [], 2, 80) == [
        Piece("text", "line 0\nline 1"),
        Piece("gap", "… 8 lines …"),
    ]
    assert excerpt("one", [], 2, 80) == [Piece("text", "one")]
    assert excerpt("", ["x"], 2, 80) == []


def test_the_lines_around_each_hit_are_shown() -> None:
    assert excerpt(TEN, ["2", "8"], 9, 80) == [
        Piece("gap", "… 1 line …"),
        Piece("text", "line 1\nline 2\nline 3"),
        Piece("gap", "… 3 lines …"),
        Piece("text", "line 7\nline 8\nline 9"),
    ]


def test_code_is_a_piece_of_its_own_without_its_fences() -> None:
    assert excerpt("see:\n\n\n```sh\nls\n~~~\n```\ndone", [], 9, 80) == [
        Piece("text", "see:\n"),
        Piece("code", "ls\n~~~"),
        Piece("text", "done"),
    ]


def test_the_marks_of_markdown_are_left_out_but_not_those_of_code_or_of_a_prompt() -> None:
    text = "## So\n**Bold** `code`\n```py\nf(**a) # `b`\n```"
    plain = [Piece("text", "So\nBold code"), Piece("code", "f(**a) # `b`")]
    assert excerpt(text, [], 9, 80) == plain
    assert excerpt(text, ["**bold"], 9, 80)[0] == Piece("text", "So\n**Bold** `code`")
    assert excerpt("**Bold**", [], 9, 80, is_markdown=False) == [Piece("text", "**Bold**")]


def test_a_long_line_is_cut_around_its_first_hit() -> None:
    line = "a" * 500 + " needle " + "b" * 500
    (piece,) = excerpt(line, ["needle"], 9, 60)
    assert piece.text.startswith("…a") and piece.text.endswith("b…") and "needle" in piece.text
    assert len(piece.text) <= 62
    (piece,) = excerpt(line, [], 9, 60)
    assert piece.text == "a" * 60 + "…"


@given(st.text(st.sampled_from("ab \n`~")), st.text(st.sampled_from("ab")), st.integers(1, 9))
def test_only_some_lines_are_shown_and_all_others_counted(
    text: str, query: str, lines: int
) -> None:
    pieces = excerpt(text, words_of(query), lines, 40)
    shown = sum(piece.text.count("\n") + 1 for piece in pieces if piece.kind != "gap")
    assert shown <= max(lines, 3)
    assert all(piece.kind == "gap" or "```" not in piece.text.splitlines() for piece in pieces)
