from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui_chat.chat.reply import (
    END_MARKERS,
    OPENING_TAGS,
    DeltaPacer,
    ReplyCleaner,
    end_of_sentences,
)
from tui_chat.types import TextDelta


def clean(*pieces: str) -> str:
    cleaner = ReplyCleaner()
    return "".join([*(cleaner.feed(piece) for piece in pieces), cleaner.finish()])


PARTS = st.sampled_from(
    [
        *END_MARKERS,
        *OPENING_TAGS,
        "Assistant: ",
        "<|im_",
        "<",
        "</",
        " ",
        "\n",
        "\n\n",
        "    ",
        "\t",
        "```\n",
        "```python\n",
        "~~~\n",
        "```",
        "a",
        "word",
        "🙂",
        "assistant",
    ]
)
REPLIES = st.lists(PARTS, max_size=14).map("".join)


@given(REPLIES, st.lists(st.integers(min_value=0, max_value=120), max_size=12))
def test_a_reply_cut_anywhere_cleans_to_the_same_text(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert clean(*pieces) == clean(text)
    assert clean(*text) == clean(text)


@given(REPLIES)
def test_cleaning_only_takes_from_the_two_ends(text: str) -> None:
    assert clean(text) in text


@given(REPLIES)
def test_what_is_taken_off_the_end_is_kept_apart(text: str) -> None:
    cleaner = ReplyCleaner()
    cleaned = "".join(map(cleaner.feed, text)) + cleaner.finish()
    assert text.endswith(cleaned + cleaner.tail)


@given(st.text(max_size=60))
def test_a_reply_without_markers_loses_only_blank_space_at_its_ends(text: str) -> None:
    assert clean(f"So: {text} end") == f"So: {text} end"


@given(REPLIES)
def test_no_more_than_a_marker_and_blank_space_is_held_back(text: str) -> None:
    cleaner = ReplyCleaner()
    shown = cleaner.feed("So: ") + "".join(map(cleaner.feed, text))
    held = ("So: " + text)[len(shown) :]
    for marker in END_MARKERS:
        held = held.replace(marker, "")
    assert len(held.strip()) < max(map(len, END_MARKERS))


@pytest.mark.parametrize("marker", END_MARKERS)
def test_a_marker_at_the_end_is_removed(marker: str) -> None:
    assert clean(f"Four.{marker}") == "Four."
    assert clean(f"Four. {marker}\n{marker}\n") == "Four."


@pytest.mark.parametrize("marker", END_MARKERS)
def test_a_marker_inside_the_text_stays(marker: str) -> None:
    text = f"ChatML ends a turn with {marker} and goes on."
    assert clean(text) == text


def test_a_marker_in_a_code_block_that_was_cut_stays() -> None:
    text = "Here:\n```jinja\n{{ content }}<|im_end|>"
    assert clean(text) == text


def test_a_marker_after_a_closed_code_block_is_removed() -> None:
    text = "Here:\n```python\nprint()\n```"
    assert clean(text + "\n<|im_end|>\n") == text
    assert clean(text + "<|im_end|>") == text


def test_a_shorter_fence_inside_a_longer_one_does_not_close_it() -> None:
    text = "````md\n```py\nx\n```\n</s>"
    assert clean(text) == text


@pytest.mark.parametrize(
    "opening",
    [
        *OPENING_TAGS,
        "Assistant: ",
        "\n\nassistant\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        " ",
        "\n \n",
    ],
)
def test_what_opens_a_reply_but_is_not_of_it_is_removed(opening: str) -> None:
    assert clean(f"{opening}Paris is the capital.") == "Paris is the capital."


@pytest.mark.parametrize(
    "text",
    ["assistant professors teach.", "Assistants help.", "The role is\nassistant\nhere.", "a", "<"],
)
def test_a_word_that_only_looks_like_a_role_tag_stays(text: str) -> None:
    assert clean(text) == text


def test_the_indent_of_code_that_opens_a_reply_stays() -> None:
    assert clean("\n\n    x = 1\n    y = 2\n") == "    x = 1\n    y = 2"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One is done. Two is", "One is done."),
        ('He said "yes." And then', 'He said "yes."'),
        ("Is it? Perhaps", "Is it?"),
        ("A paragraph.\n\nAnother that", "A paragraph."),
        ("你好。世界是", "你好。"),
        ("We met Dr. Smith, e.g. in May. Then", "We met Dr. Smith, e.g. in May."),
        ("- a\n- b\n\nProse is done. Prose", "- a\n- b\n\nProse is done."),
    ],
)
def test_the_unfinished_sentence_at_the_end_of_prose_is_found(text: str, kept: str) -> None:
    assert text[: end_of_sentences(text)] == kept


@pytest.mark.parametrize(
    "text",
    [
        "All is done.",
        "no sentence ends here",
        "Done. Then:\n\n```py\nx = 1. + y",
        "Done.\n\n    x = 1. Foo",
        "Done.\n\n- one. Two",
        "Done.\n\n1. one. Two",
        "Done.\n- one. Two",
        "Done.\n\n| a. B | b",
        "Done.\n\na. B | b | c",
        "Done.\n\n> quoted. And",
        "Done.\n\n# Title. And",
        "Call `a. B",
    ],
)
def test_code_lists_tables_and_finished_text_are_never_shortened(text: str) -> None:
    assert end_of_sentences(text) == len(text)


@given(st.text(alphabet="aB.!。 \n-|`", max_size=60))
def test_text_is_only_shortened_at_its_end_and_never_to_nothing(text: str) -> None:
    end = end_of_sentences(text)
    assert 0 <= end <= len(text)
    assert end or not text


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_delta_passes_at_once_and_the_next_ones_wait_their_turn() -> None:
    clock = FakeClock()
    pacer = DeltaPacer(0.1, clock)
    assert [d.text for d in pacer.push(TextDelta("a"))] == ["a"]
    clock.now += 0.05
    assert pacer.push(TextDelta("b")) == []
    clock.now += 0.06
    assert [d.text for d in pacer.push(TextDelta("c"))] == ["bc"]


def test_a_joined_delta_carries_the_latest_figures() -> None:
    pacer = DeltaPacer(0.1, FakeClock())
    pacer.push(TextDelta("a", completion_tokens=1))
    pacer.push(TextDelta("b", completion_tokens=2, decode_seconds=0.1))
    pacer.push(TextDelta("", completion_tokens=3, decode_seconds=0.2))
    assert pacer.flush() == [TextDelta("b", "content", 3, 0.2)]
    assert pacer.flush() == []


PACED = st.lists(
    st.tuples(
        st.text(max_size=3),
        st.sampled_from(["content", "reasoning"]),
        st.floats(min_value=0, max_value=0.3),
    ),
    max_size=40,
)


@given(PACED)
def test_pacing_keeps_all_text_in_order_and_at_most_ten_times_a_second(
    steps: list[tuple[str, str, float]],
) -> None:
    clock = FakeClock()
    pacer = DeltaPacer(0.1, clock)
    out: list[TextDelta] = []
    times: list[float] = []
    for text, kind, wait in steps:
        clock.now += wait
        due = pacer.push(TextDelta(text, kind))  # type: ignore[arg-type]
        if due:
            times.append(clock.now)
        out += due
    out += pacer.flush()

    def runs(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        joined: list[tuple[str, str]] = []
        for text, kind in pairs:
            if joined and joined[-1][1] == kind:
                joined[-1] = (joined[-1][0] + text, kind)
            elif text:
                joined.append((text, kind))
        return joined

    assert runs([(d.text, d.kind) for d in out]) == runs([(t, k) for t, k, _ in steps])
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(times))
