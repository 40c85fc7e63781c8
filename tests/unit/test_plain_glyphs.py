import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui_chat.types import Glyphs
from tui_chat.ui import plain_glyphs
from tui_chat.ui.plain_glyphs import drawable

UI = Path(plain_glyphs.__file__).parent
LATIN = {"LANG": "de_DE.ISO-8859-1"}


def written_signs() -> set[str]:
    """Every sign outside ASCII that a text of the screen has."""
    return {
        sign
        for path in UI.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for sign in node.value
        if not sign.isascii() and sign.isprintable()
    }


def test_every_sign_of_ours_has_one_in_ascii() -> None:
    signs = written_signs()
    assert {"▌", "━", "•", "…"} <= signs
    for environ in (LATIN, {"TERM": "linux", "LANG": "C.UTF-8"}):
        draw = drawable("auto", environ)
        assert draw is not None
        drawn = {sign: draw(sign) for sign in signs}
        assert all(len(plain) == 1 and plain.isascii() for plain in drawn.values())
        assert "?" not in drawn.values()


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_plain_text_is_ascii_of_the_same_width(text: str) -> None:
    draw = drawable("ascii", LATIN)
    assert draw is not None
    plain = draw(text)
    assert plain.isascii()
    assert len(plain) == cell_len(text)


def test_letters_without_their_accents_are_read_more_easily_than_question_marks() -> None:
    draw = drawable("auto", LATIN)
    assert draw is not None
    assert draw("Grüße, naïve café, 日本 🙂") == "Gru?e, naive cafe, ???? ??"


@pytest.mark.parametrize(
    ("environ", "plain"),
    [
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C.utf8", "TERM": "xterm"}, False),
        ({"TERM": "screen"}, False),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, True),
        ({"LC_CTYPE": "UTF-8"}, False),
        ({"LC_ALL": "", "LC_CTYPE": "", "LANG": "POSIX"}, True),
        (LATIN, True),
        ({"TERM": "linux", "LANG": "en_US.UTF-8"}, True),
        ({"TERM": "vt220", "LANG": "en_US.UTF-8"}, True),
    ],
)
def test_the_terminal_and_the_locale_decide(environ: dict[str, str], plain: bool) -> None:
    assert (drawable("auto", environ) is not None) == plain
    assert drawable("unicode", environ) is None
    assert drawable("ascii", environ) is not None


@pytest.mark.parametrize("wanted", ["auto", "ascii"])
def test_a_console_with_utf8_keeps_letters(wanted: Glyphs) -> None:
    draw = drawable(wanted, {"TERM": "linux", "LANG": "en_US.UTF-8"})
    assert draw is not None
    assert draw("▌ Grüße · 日本") == "| Grüße - 日本"
