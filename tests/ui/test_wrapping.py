import re

from hypothesis import given
from hypothesis import strategies as st

from tui_chat.ui.wrapping import Run, cells, wrap

texts = st.lists(st.text("ab \n你e\u0301🙂-x", max_size=20), max_size=6)


def unwrapped(runs: list[Run], width: int, *, words: bool) -> str:
    lines = wrap(runs, width, words=words)
    return "".join(f"{line.joint if index else ''}{line.text}" for index, line in enumerate(lines))


@given(texts, st.integers(1, 12))
def test_rows_and_what_stood_between_them_are_the_text(parts: list[str], width: int) -> None:
    runs = [Run(part, str(index)) for index, part in enumerate(parts)]
    text = "".join(parts)
    assert unwrapped(runs, width, words=False) == text
    # Between words a row may lose the spaces at its end.
    assert re.sub(r" +(?=\n|$)", "", unwrapped(runs, width, words=True)) == re.sub(
        r" +(?=\n|$)", "", text
    )


@given(texts, st.integers(2, 12), st.booleans())
def test_no_row_is_wider_than_asked(parts: list[str], width: int, words: bool) -> None:
    for line in wrap([Run(part) for part in parts], width, words=words):
        assert cells(line.runs) <= width


@given(texts, st.integers(1, 12), st.booleans())
def test_each_character_keeps_its_style(parts: list[str], width: int, words: bool) -> None:
    runs = [Run(part, str(index)) for index, part in enumerate(parts)]
    styled = [(c, run.style) for run in runs for c in run.text if not c.isspace()]
    lines = wrap(runs, width, words=words)
    found = [(c, run.style) for line in lines for run in line.runs for c in run.text]
    assert [(c, style) for c, style in found if not c.isspace()] == styled


def test_words_stay_whole_where_they_fit_and_wide_characters_part_anywhere() -> None:
    assert [line.text for line in wrap([Run("one two three")], 8)] == ["one two", "three"]
    assert [line.text for line in wrap([Run("unbreakable")], 4)] == ["unbr", "eaka", "ble"]
    assert [line.text for line in wrap([Run("ab 你好世界")], 7)] == ["ab 你好", "世界"]
