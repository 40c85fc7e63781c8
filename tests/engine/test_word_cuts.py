"""A text that is cut between words has the ids of the whole, where that is claimed."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CORPUS, byte_level_tokenizer, metaspace_tokenizer, unigram_tokenizer
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from tui_chat.engine.encoding import TextEncoder
from tui_chat.engine.word_cuts import _PATTERNS, can_cut_words, is_cut, last_cut

pytestmark = pytest.mark.engine

LLAMA3, QWEN2 = _PATTERNS


def split_tokenizer(pattern: str, *, nfc: bool = False) -> Any:
    """Byte-level BPE behind a pattern of its own, as of the Llama 3 and Qwen families."""
    backend = Tokenizer(models.BPE())
    if nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([*CORPUS, "it's we'll the the quick a1 12345"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken("tool")])
    return tokenizer


PROVEN = {
    "gpt-2": byte_level_tokenizer(),
    "llama 3": split_tokenizer(LLAMA3),
    "qwen 2": split_tokenizer(QWEN2, nfc=True),
}
ENCODERS = {name: TextEncoder(hf, {}, (), "") for name, hf in PROVEN.items()}
TEXTS = st.text(
    st.sampled_from([*"abcXYZ  \n\t'.,-1239", "é", "\u0301", "世", "🙂", "\u00a0", "\u2003"]),
    max_size=60,
) | st.lists(
    st.sampled_from(
        [
            "it's",
            "we'll",
            "The",
            "tool",
            "a1",
            "  two",
            "x\n",
            "'s",
            "e\u0301",
            "\u0301",
            "12",
            "--",
        ]
    ),
    max_size=12,
).map(" ".join)


@pytest.mark.parametrize("name", PROVEN)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_the_pieces_of_a_cut_text_have_the_ids_of_the_whole(name: str, text: str) -> None:
    backend = PROVEN[name]._tokenizer
    assert can_cut_words(backend)
    whole = backend.encode(text, add_special_tokens=False).ids
    for place in range(len(text)):
        if is_cut(text, place):
            pieces = [
                backend.encode(t, add_special_tokens=False).ids
                for t in (text[:place], text[place:])
            ]
            assert pieces[0] + pieces[1] == whole


@pytest.mark.parametrize("name", PROVEN)
@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), data=st.data())
def test_a_text_is_counted_right_however_it_is_typed_and_edited(
    name: str, texts: list[str], data: st.DataObject
) -> None:
    encoder, backend = ENCODERS[name], PROVEN[name]._tokenizer
    anchor = "<|im_start|>"
    typed = ""
    for text in texts:
        at = data.draw(st.integers(0, len(typed)))
        keep = data.draw(st.integers(at, len(typed)))
        before, behind = typed[:at], typed[keep:]
        for end in range(len(text) + 1):
            typed = before + text[:end] + behind
            ids = backend.encode(anchor + typed, add_special_tokens=False).ids
            assert encoder.count_behind(anchor, typed) == len(ids) - 1


def test_the_last_cut_is_the_last_one() -> None:
    assert last_cut("one two three") == 7
    assert last_cut("one two three", 7) == 7
    assert last_cut("one two " + "x" * 700, 0) == 7
    assert last_cut("word " * 100 + "1" * 2000) == 494
    assert last_cut("1 2  three") == last_cut("") == last_cut("one") == 0


@pytest.mark.parametrize(
    "backend",
    [
        metaspace_tokenizer()._tokenizer,
        unigram_tokenizer()._tokenizer,
        split_tokenizer(r"\s+|\S+")._tokenizer,
    ],
)
def test_other_tokenizers_are_not_cut(backend: Any) -> None:
    assert not can_cut_words(backend)


def test_what_reaches_over_a_space_is_not_cut() -> None:
    for change in (
        lambda b: setattr(b, "normalizer", normalizers.NFKC()),
        lambda b: setattr(b, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        lambda b: setattr(b, "pre_tokenizer", None),
        lambda b: setattr(b.model, "dropout", 0.5),
        lambda b: b.add_tokens([AddedToken("a b")]),
    ):
        backend = byte_level_tokenizer()._tokenizer
        assert can_cut_words(backend)
        change(backend)
        assert not can_cut_words(backend)
