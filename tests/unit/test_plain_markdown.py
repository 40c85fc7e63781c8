import pytest

from tui_chat.store.search import words_of
from tui_chat.ui.plain_markdown import plain_line


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        ("**Bold** and *slanted*, ***both***", "Bold and slanted, both"),
        ("press `Ctrl+C` or ``a ` b``", "press Ctrl+C or a ` b"),
        ("## A *small* heading", "A small heading"),
        ("see [the page](https://example.com/a_b) and ![a cat](cat.png)", "see the page and a cat"),
        ("…see [the page](https://exam…", "…see the page…"),
        ("~~gone~~ is gone", "gone is gone"),
        ("…of **many** words. **Next wo…", "…of many words. Next wo…"),
        ("…any** words, **more** of", "…any words, more of"),
    ],
)
def test_marks_go_and_their_text_stays(line: str, plain: str) -> None:
    assert plain_line(line) == plain


@pytest.mark.parametrize(
    "line",
    [
        "2 * 3 * 4 = 24",
        "2**3**2",
        "def f(*args, **kwargs):",
        "__init__ and snake_case_name",
        "* a bullet of a list",
        "#include <stdio.h>",
        "a[i](x y)",
        "one ` alone",
        "",
    ],
)
def test_what_is_no_mark_stays(line: str) -> None:
    assert plain_line(line) == line


def test_what_is_searched_for_is_found_in_the_line_as_before() -> None:
    line = "**Bold** [page](https://example.com)"
    assert plain_line(line, words_of("bold page")) == "Bold page"
    assert plain_line(line, words_of("**bold")) == line
    assert plain_line(line, words_of("example")) == line
    assert plain_line(line, words_of("elsewhere")) == "Bold page"
