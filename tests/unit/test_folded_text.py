from hypothesis import given
from hypothesis import strategies as st

from tui_chat.ui.folded_text import KEPT, FoldedTexts, fits_box, is_long

LONG = "\n".join(f"line {number}" for number in range(214))


def test_many_lines_or_many_characters_are_long() -> None:
    assert is_long("\n" * 7) and is_long("x" * 1000)
    assert not is_long("\n" * 6) and not is_long("x" * 999)


def test_a_label_says_what_it_stands_for() -> None:
    folded = FoldedTexts()
    assert folded.fold(LONG) == "[≡ pasted 214 lines]"
    assert folded.fold("x" * 1204) == "[≡ pasted 1,204 characters]"
    assert (
        folded.with_tokens("[≡ pasted 214 lines]", "3,120 tok")
        == "[≡ pasted 214 lines · 3,120 tok]"
    )


def test_two_texts_of_one_size_have_labels_of_their_own() -> None:
    folded = FoldedTexts()
    first, second = folded.fold("a\n" * 9), folded.fold("b\n" * 9)
    assert (first, second) == ("[≡ pasted 10 lines]", "[≡ pasted 10 lines #2]")
    counted = folded.with_tokens(first, "9 tok"), folded.with_tokens(second, "9 tok")
    assert counted == ("[≡ pasted 10 lines · 9 tok]", "[≡ pasted 10 lines #2 · 9 tok]")
    assert folded.expand(f"{first}|{counted[1]}") == "a\n" * 9 + "|" + "b\n" * 9


def test_a_label_that_was_only_typed_stands_for_nothing() -> None:
    folded = FoldedTexts()
    folded.fold(LONG)
    text = "[≡ pasted 3 lines] and [≡ whatever]"
    assert folded.expand(text) == text
    assert list(folded.spans(text)) == []


def test_a_recalled_prompt_is_folded_as_it_was() -> None:
    folded = FoldedTexts()
    label = folded.fold(LONG)
    shown = f"Why {label}? And again {label}."
    assert folded.refold(folded.expand(shown)) == shown


def test_what_the_box_cannot_show_is_folded_as_a_whole() -> None:
    folded = FoldedTexts()
    for text in ("x" * 20_001, "\n" * 400, "y" * 5_001):
        shown = folded.refold(text)
        assert fits_box(shown) and shown.startswith("[≡ text of ")
        assert folded.expand(shown) == text


def test_a_text_that_stands_in_the_box_is_never_forgotten() -> None:
    folded = FoldedTexts()
    first = folded.fold("first\n" * 9)
    for number in range(3 * KEPT):
        folded.fold(f"{number}\n" * 9)
        folded.forget(f"look {first}")
    assert folded.expand(first) == "first\n" * 9
    folded.forget("")
    assert folded.expand(first) == first


texts = st.text(st.sampled_from("ab\n[]≡ "), min_size=1, max_size=30)


@given(st.lists(texts, max_size=4), st.lists(st.integers(0, 3), max_size=6), texts)
def test_folding_and_expanding_gives_the_text_back(
    pasted: list[str], order: list[int], between: str
) -> None:
    folded = FoldedTexts()
    labels = [folded.fold(text) for text in pasted]
    shown = between.replace("≡", "") + "".join(labels[n] for n in order if n < len(labels))
    whole = folded.expand(shown)
    assert folded.expand(folded.refold(whole)) == whole
