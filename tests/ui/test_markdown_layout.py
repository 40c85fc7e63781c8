import pytest

from tui_chat.ui.markdown_layout import lay_out
from tui_chat.ui.markdown_pieces import MarkdownPieces, Piece, gap_between
from tui_chat.ui.wrapping import Line


def page(text: str, width: int = 60) -> list[Line]:
    """The rows of a whole reply, with the blank ones between its blocks."""
    pieces = MarkdownPieces()
    for steps in (pieces.feed(text), pieces.finish()):
        for _ in steps:
            pass
    rows: list[Line] = []
    number = 1
    before: Piece | None = None
    for piece in pieces.settled:
        rows += [Line()] * gap_between(before, piece)
        rows += lay_out(piece, width, number)
        number += len(piece.code_blocks())
        before = piece
    return rows


def seen(text: str, width: int = 60) -> list[str]:
    return [row.text.rstrip() for row in page(text, width)]


def styles_of(text: str, word: str) -> set[str]:
    return {run.style for row in page(text) for run in row.runs if word in run.text}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("one\ntwo  \nthree", ["one two", "three"]),
        ("a\n\nb", ["a", "", "b"]),
        ("# Head\ntext", ["Head", "─" * 60, "text"]),
        ("## Head\ntext", ["Head", "", "text"]),
        ("- a\n- b\n  - c\n    - d", ["• a", "• b", "  ◦ c", "    - d"]),
        ("- a\n\n- b", ["• a", "", "• b"]),
        ("3. a\n3. b\n", [" 3. a", " 4. b"]),
        ("- [ ] open\n- [x] done\n- [x]y", ["☐ open", "☑ done", "• [x]y"]),
        ("1. a\n\n   b\n", [" 1. a", "", "    b"]),
        ("> a\n> > b", ["│ a", "│", "│ │ b"]),
        ("text\n- a", ["text", "", "• a"]),
        ("a <b>html</b>", ["a <b>html</b>"]),
        ("![a picture](x.png)", ["image: a picture (x.png)"]),
        ("[see][ref]\n\n[ref]: http://x.example", ["see (x.example)"]),
    ],
)
def test_markdown_as_rows(text: str, rows: list[str]) -> None:
    assert seen(text) == rows


def test_a_formula_is_shown_as_it_was_written() -> None:
    text = r"so \(a_1 * b_2 * c\) and \[x = 1\] and $$y_1 * z_2$$"
    assert seen(text) == [text]


def test_code_stands_on_its_ground_under_its_language_and_number() -> None:
    rows = page("```sh\necho one\n\n```\n\n    two\n")
    assert [row.text.split() for row in rows] == [
        ["sh", "/copy", "1"],
        ["echo", "one"],
        [],
        ["text", "/copy", "2"],
        ["two"],
    ]
    assert [bool(row.ground) for row in rows] == [True, True, False, True, True]


def test_code_is_broken_at_the_edge_and_put_together_without_a_seam() -> None:
    code = "x = " + "1234567890" * 20
    _, *rows = page(f"```python\n{code}\n```")
    assert len(rows) > 1
    assert all(len(row.text) <= 60 for row in rows)
    text = "".join((row.joint if index else "") + row.text[2:] for index, row in enumerate(rows))
    assert text == code


def test_words_say_what_text_is() -> None:
    text = "# title\n\n**bold *both*** ~~gone~~ `code` [link](http://x.example) $x$"
    assert styles_of(text, "title") == {"h1"}
    assert styles_of(text, "bold") == {"strong"}
    assert styles_of(text, "both") == {"strong em"}
    assert styles_of(text, "gone") == {"s"}
    assert styles_of(text, "code") == {"code"}
    assert styles_of(text, "link") == {"link"}
    assert styles_of(text, "$x$") == {"math"}
    assert styles_of(text, "(x.example)") == {"m"}
    assert styles_of("```python\ndef f(): return 'x'\n```", "def") == {"keyword fence"}


def test_a_link_knows_where_it_leads() -> None:
    links = {run.link for row in page("[x.example](http://x.example/y) b") for run in row.runs}
    assert links == {"http://x.example/y", ""}


def test_a_table_is_aligned_and_shrinks_its_widest_columns() -> None:
    text = "| a | b |\n|--:|---|\n| 1 | two |\n| 22 | a cell with very many words in it |"
    assert seen(text, 60) == [
        " a  b",
        "─" * 37,
        " 1  two",
        "22  a cell with very many words in it",
    ]
    assert seen(text, 90)[0] == " a    b"
    narrow = seen(text, 24)
    assert all(len(row) <= 24 for row in narrow)
    assert " ".join(" ".join(narrow[3:]).split()) == "22 a cell with very many words in it"


def test_a_table_without_room_for_its_columns_is_shown_as_it_was_written() -> None:
    text = "|a" * 30 + "|\n" + "|-" * 30 + "|\n" + "|1" * 30 + "|"
    assert "".join(seen(text, 40)) == text.replace("\n", "")


@pytest.mark.parametrize("width", [1, 2, 5, 12])
def test_deeply_nested_text_stays_readable_where_there_is_no_room(width: int) -> None:
    text = "".join("  " * depth + f"- w{depth}w\n" for depth in range(30))
    shown = "".join("".join(seen(text, width)).split())
    assert all(f"w{depth}w" in shown for depth in range(30))
