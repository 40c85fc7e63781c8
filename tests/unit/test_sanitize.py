import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from tui_chat.chat.sanitize import one_line, sanitize

ANY_TEXT = st.text(st.characters(codec=None), max_size=200)
CLEAN_TEXT = st.text(
    st.characters(
        categories=["L", "M", "N", "P", "S", "Zs"], include_characters="\t\n\u200d\ufe0f"
    ),
    max_size=200,
)
BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@given(ANY_TEXT)
def test_no_control_bidi_or_surrogate_character_survives(text: str) -> None:
    for character in sanitize(text):
        assert character in "\t\n" or unicodedata.category(character) not in ("Cc", "Cs")
        assert character not in BIDI_CONTROLS
        assert not 0xE0000 <= ord(character) < 0xE0080


@given(CLEAN_TEXT)
def test_clean_text_is_unchanged(text: str) -> None:
    assert sanitize(text) == text


@given(ANY_TEXT, ANY_TEXT)
def test_text_in_pieces_comes_out_as_the_whole_would(first: str, second: str) -> None:
    assert sanitize(first) + sanitize(second) == sanitize(first + second)


@given(ANY_TEXT)
def test_sanitising_twice_changes_nothing_more(text: str) -> None:
    assert sanitize(sanitize(text)) == sanitize(text)


def test_an_escape_sequence_becomes_visible_text() -> None:
    assert sanitize("\x1b]52;c;aGk=\x07\x9b2J\x7f") == "␛]52;c;aGk=␇\ufffd2J␡"


def test_windows_line_ends_become_plain_ones() -> None:
    assert sanitize("one\r\ntwo\r\n") == "one\ntwo\n"


def test_emoji_joiners_and_variation_selectors_stay() -> None:
    family = "👩\u200d👩\u200d👧 ❤\ufe0f"
    assert sanitize(family) == family


@given(ANY_TEXT, st.integers(min_value=2, max_value=80))
def test_a_line_never_breaks_and_never_exceeds_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert "\n" not in line and "\t" not in line


def test_a_long_line_is_cut_between_words() -> None:
    assert one_line("explain   the\nsliding window of attention", 20) == "explain the sliding…"


def test_a_long_text_without_spaces_is_cut_all_the_same() -> None:
    assert one_line("語" * 30, 10) == "語" * 9 + "…"
