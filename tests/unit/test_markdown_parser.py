"""What the parser of replies makes of the Markdown that models write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it.token import Token

from tui_chat.ui.markdown_parser import reply_parser


def inline(text: str) -> list[tuple[str, str]]:
    """Kind and text of every inline token of `text`, without those that only open or close."""
    return [
        (child.type, child.content)
        for token in reply_parser().parse(text)
        for child in token.children or ()
        if child.content
    ]


def items(text: str) -> list[Token]:
    return [token for token in reply_parser().parse(text) if token.type == "list_item_open"]


@pytest.mark.parametrize(
    "formula",
    [r"\(a_1^2\)", r"\(x\)", r"\[a = b\]", "$$a*b*c$$", "$x$", "$2^n$", r"$\alpha_1 + \beta_1$"],
)
def test_a_formula_in_a_sentence_stays_as_it_was_written(formula: str) -> None:
    assert inline(f"so {formula} holds") == [("text", "so "), ("math", formula), ("text", " holds")]


@pytest.mark.parametrize(
    "text",
    ["$5 or $6", "from $5 to 10$", "$HOME and $PATH", "$HOME/$USER", "$ a $", "$$ $$"],
)
def test_prices_and_shell_variables_are_no_formulas(text: str) -> None:
    assert inline(text) == [("text", text)]


def test_escaped_brackets_are_brackets() -> None:
    assert inline(r"\[not a link\]") == [("text", "[not a link]")]
    assert inline(r"costs \$5") == [("text", "costs $5")]


@pytest.mark.parametrize(("opener", "closer"), [("$$", "$$"), (r"\[", r"\]")])
@pytest.mark.parametrize("before", ["", "text\n", "> ", "- "])
def test_a_formula_on_lines_of_its_own_keeps_its_lines(
    before: str, opener: str, closer: str
) -> None:
    indent = {"> ": "> ", "- ": "  "}.get(before, "")
    rows = [opener, r"a_1 &= b \\", r"\frac{a}{b}", closer]
    found = inline(before + f"\n{indent}".join(rows))
    assert [text for kind, text in found if kind == "math"] == rows


def test_a_formula_that_still_streams_is_shown_as_one() -> None:
    assert inline("$$\na_1 +") == [("math", "$$"), ("math", "a_1 +")]


def test_two_dollars_before_a_blank_line_are_text() -> None:
    assert inline("$$ a lot\n\nof money") == [("text", "$$ a lot"), ("text", "of money")]


def test_tasks_are_known_by_their_box_and_lose_it_in_their_text() -> None:
    text = "- [ ] open\n- [x] done\n- plain\n- [link](https://example.org)\n\n1. [X] numbered"
    assert [item.meta.get("done") for item in items(text)] == [False, True, None, None, True]
    assert "[ ]" not in str(inline(text)) and ("text", "open") in inline(text)


def test_a_link_tells_where_it_leads_unless_its_text_does() -> None:
    assert inline("[docs](https://example.org/a?b=1)") == [
        ("text", "docs"),
        ("target", " (example.org)"),
    ]
    assert inline("[example.org docs](https://www.example.org/a)") == [
        ("text", "example.org docs"),
    ]
    assert inline("https://example.org/a") == [("text", "https://example.org/a")]
    assert inline("[mail](mailto:me@example.org)")[1] == ("target", " (me@example.org)")
    assert inline("[bank](https://evil.test)")[1] == ("target", " (evil.test)")


@pytest.mark.parametrize(
    ("text", "href"),
    [
        ("bank.test", "https://bank.test@evil.test/"),
        ("bank.test", "https://bank.test.evil.test/"),
        ("bank.test", "https://evil.test/bank.test"),
        ("bank.test", "https://evil.test/?bank.test"),
        ("https://bank.test", "https://evil.test#https://bank.test"),
        ("evil.test.bank.test", "https://evil.test"),
        ("notevil.test", "https://evil.test"),
        ("BANK.test", "https://EVIL.test"),
        ("bank.test", f"https://bank.test.{'a' * 60}.evil.test"),
    ],
)
def test_a_link_whose_text_names_another_place_tells_where_it_leads(text: str, href: str) -> None:
    said = "".join(words for kind, words in inline(f"[{text}]({href})") if kind == "target")
    assert "evil.test" in said.lower()


def test_an_image_is_a_link_with_its_description() -> None:
    found = inline("![a *red* chart](https://example.org/c.png)")
    assert found == [("text", "image: a red chart"), ("target", " (example.org)")]
    assert inline("![](c.png)") == [("text", "image"), ("target", " (c.png)")]


@pytest.mark.parametrize("href", ["http://[::1", "http://[bad]x/", "%00", "//", "#a", "?"])
def test_a_malformed_link_is_still_text(href: str) -> None:
    assert inline(f"[text]({href})")[0] == ("text", "text")


def test_html_is_text() -> None:
    assert "".join(text for _, text in inline("a <b>c</b> Vec<String>")) == "a <b>c</b> Vec<String>"


@given(st.text(alphabet="ab $\\()[]{}*_`|-x\n>1.!#", max_size=80))
def test_no_text_makes_the_parser_fail_or_lose_a_letter(text: str) -> None:
    written = sorted(letter for letter in text if letter in "ab")
    tokens = reply_parser().parse(text)
    shown = "".join(child.content for token in tokens for child in (token.children or [token]))
    links = any(child.type == "link_open" for token in tokens for child in token.children or ())
    if not links and "](" not in text and "]:" not in text:
        assert sorted(letter for letter in shown if letter in "ab") == written
