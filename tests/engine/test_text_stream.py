from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import byte_level_tokenizer, metaspace_tokenizer

from tui_chat.engine.reasoning import ReasoningSplitter
from tui_chat.engine.text_stream import (
    FastDecoder,
    IdDecoder,
    StopStrings,
    TailDecoder,
    TextStream,
)
from tui_chat.engine.tokenizer import ChatTokenizer

pytestmark = pytest.mark.engine

BYTE_LEVEL = ChatTokenizer(byte_level_tokenizer())
METASPACE = ChatTokenizer(metaspace_tokenizer())


def ids_of(text: str, tokenizer: ChatTokenizer = BYTE_LEVEL) -> list[int]:
    ids: list[int] = tokenizer.hf.encode(text, add_special_tokens=False)
    return ids


def joined(pieces: list[Any], kind: str) -> str:
    return "".join(text for of, text in pieces if of == kind)


def stream(text: str, **options: Any) -> list[Any]:
    """All pieces of a reply of `text`, its tags being the tokenizer's own."""
    texts = TextStream(BYTE_LEVEL, **options)
    pieces = [piece for token in ids_of(text) for piece in texts.push(token)]
    return pieces + texts.finish()


def streamed(decoding: IdDecoder, ids: list[int]) -> str:
    return "".join(decoding.push(token) for token in ids) + decoding.finish()


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, 380), max_size=60))
@pytest.mark.parametrize("decoder", [FastDecoder, TailDecoder])
def test_streamed_text_is_the_full_decode_of_any_ids(decoder: type[Any], ids: list[int]) -> None:
    whole = BYTE_LEVEL.hf.decode(ids, skip_special_tokens=True)

    assert streamed(decoder(BYTE_LEVEL), ids) == whole


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=30))
@pytest.mark.parametrize("decoder", [FastDecoder, TailDecoder])
def test_streamed_text_is_the_full_decode_with_byte_fallback(decoder: type[Any], text: str) -> None:
    ids = ids_of(text, METASPACE)
    whole = METASPACE.hf.decode(ids, skip_special_tokens=True)

    assert streamed(decoder(METASPACE), ids) == whole


def test_bytes_that_are_no_text_do_not_end_the_stream() -> None:
    broken = [METASPACE.hf.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in (0x41, 0xF0, 0xFF)]
    after = ids_of("hello 世🙂", METASPACE)

    assert streamed(FastDecoder(METASPACE), [*after, *broken, *after]).endswith("hello 世🙂")


@pytest.mark.parametrize("decoder", [FastDecoder, TailDecoder])
def test_half_a_character_is_held_back_until_it_is_whole(decoder: type[Any]) -> None:
    decoding: IdDecoder = decoder(BYTE_LEVEL)
    ids = ids_of("🙃")
    assert len(ids) > 1

    assert [decoding.push(token) for token in ids] == [""] * (len(ids) - 1) + ["🙃"]


def test_half_a_character_at_the_end_is_flushed() -> None:
    texts = TextStream(BYTE_LEVEL)

    pushed = [piece for token in ids_of("a🙃")[:-1] for piece in texts.push(token)]

    assert joined(pushed, "content") == "a"
    assert joined(texts.finish(), "content") == "\ufffd"


def test_reasoning_is_parted_from_content_and_no_tag_is_shown() -> None:
    pieces = stream("<think>\nhm, 世\n</think>\n\nfine\n")

    assert joined(pieces, "reasoning") == "hm, 世"
    assert joined(pieces, "content") == "fine\n"


def test_reasoning_that_the_template_opened_begins_at_once() -> None:
    pieces = stream("hm</think>fine", in_reasoning=True)

    assert joined(pieces, "reasoning") == "hm"
    assert joined(pieces, "content") == "fine"


def test_reasoning_that_never_ends_stays_reasoning() -> None:
    pieces = stream("<think>on and on\n")

    assert joined(pieces, "reasoning") == "on and on\n"
    assert joined(pieces, "content") == ""


def test_closing_tag_without_reasoning_is_dropped() -> None:
    assert stream("fine</think> still") == [*stream("fine"), *stream(" still")]


@given(cuts=st.lists(st.integers(0, 40), max_size=8))
def test_tags_of_text_are_found_however_they_are_cut(cuts: list[int]) -> None:
    text = "\n<think>\na <b> </thin\n</think>\n\nuse `<think>` here"
    edges = [0, *sorted(cuts), len(text)]
    splitter = ReasoningSplitter(in_reasoning=False, tags_are_text=True)

    pieces = [
        piece for start, end in pairwise(edges) for piece in splitter.push(text[start:end])
    ] + splitter.finish()

    assert joined(pieces, "reasoning") == "a <b> </thin"
    assert joined(pieces, "content") == "use `<think>` here"


@pytest.mark.parametrize("text", ["", "<", "<thin", "  <b>", "\n\nhi", "hi <think> there"])
def test_content_without_an_opening_tag_is_untouched(text: str) -> None:
    splitter = ReasoningSplitter(in_reasoning=False, tags_are_text=True)

    pieces = [piece for char in text for piece in splitter.push(char)] + splitter.finish()

    assert joined(pieces, "content") == text


@given(cuts=st.lists(st.integers(0, 30), max_size=8))
def test_stop_strings_are_found_however_they_are_cut(cuts: list[int]) -> None:
    text = "aab aabaac END STOP and more"
    edges = [0, *sorted(cuts), len(text)]
    stops = StopStrings(("aabaac EN", "STOP", ""))

    shown = "".join(stops.push(text[start:end]) for start, end in pairwise(edges))

    assert shown + stops.finish() == "aab "
    assert stops.found


def test_beginning_of_a_stop_string_is_shown_when_nothing_follows() -> None:
    stops = StopStrings(("STOP",))

    assert stops.push("a ST") == "a "
    assert stops.finish() == "ST"
    assert not stops.found


def test_stop_strings_look_at_content_alone() -> None:
    pieces = stream("<think>no STOP here</think>yes STOP there", stop_strings=("STOP",))

    assert joined(pieces, "reasoning") == "no STOP here"
    assert joined(pieces, "content") == "yes "
