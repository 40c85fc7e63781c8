"""Models of random weights in real shapes, whose replies are Markdown.

The layers are random, but the output head leads from each word to one next word, so a reply is
a passage of one fixed text, and the draw of its first word decides which. A greedy reply is the
same however it is computed, no passage repeats itself, and a prompt can hold the reply to come.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tui_chat import files
from tui_chat.bench.harness import BenchError, Report
from tui_chat.bench.vocabulary import (
    FIRST_OPENER,
    LINE_END,
    PASSAGES,
    SPECIALS,
    as_text,
    markdown_vocabulary,
    passage_starts,
)

VERSION = 5
SHAPES: Mapping[str, Mapping[str, Any]] = {
    # The shape of Qwen2.5-0.5B. Not its type: that brings a tokenizer which splits words.
    "0.5b": {
        "model_type": "llama",
        "attention_bias": True,
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151_936,
        "dtype": "bfloat16",
    },
    "30m": {
        "model_type": "llama",
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "intermediate_size": 1376,
        "vocab_size": 8192,
        "dtype": "float32",
    },
}
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
"""What the Qwen2.5 models ask for."""
POSITIONS = 4096
KEPT = ("30m",)
"""A gigabyte would be too much to leave on a disk unasked."""
_EMBEDDING_STD = 4.0
"""Beside layers that write values near 1: the word just read must outweigh them in the head."""
_HEAD_STD = 0.04
_OTHER_OPENERS = 0.97
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@contextmanager
def random_model(name: str, report: Report) -> Iterator[Path]:
    """The folder of the model `name` of `SHAPES`; the small one stays in the cache folder.

    Raises:
        BenchError: it cannot be written there.
    """
    place = files.cache_dir() / "bench"
    kept = place / f"random-{name}-{VERSION}"
    if (kept / "config.json").is_file():
        yield kept
        return
    try:
        files.make_private_dir(place)
        scratch = tempfile.TemporaryDirectory(prefix=f".random-{name}-", dir=place)
    except OSError as error:
        raise BenchError(f"{place} cannot be written ({error.strerror}).") from error
    with scratch:
        report(f"building {name} of random weights in {place}")
        folder = Path(scratch.name) / f"random-{name}"
        try:
            _build(SHAPES[name], folder)
            if name in KEPT:
                folder = folder.rename(kept)
        except OSError as error:
            raise BenchError(f"{name} cannot be built in {place} ({error.strerror}).") from error
        yield folder


def _build(shape: Mapping[str, Any], folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    options = {name: value for name, value in shape.items() if name != "dtype"}
    config = AutoConfig.for_model(
        options.pop("model_type"),
        **options,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, shape["dtype"]))
    model.to_empty(device="cpu")
    vocabulary = markdown_vocabulary(shape["vocab_size"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0.0, parameter.shape[1] ** -0.5)
            else:
                parameter.fill_(1.0 if "norm" in name else 0.0)
        embeddings = model.get_input_embeddings().weight
        embeddings.normal_(0.0, _EMBEDDING_STD)
        scaled = embeddings * (_HEAD_STD / _EMBEDDING_STD)
        head = model.get_output_embeddings().weight
        first = FIRST_OPENER + PASSAGES
        # Bytes and control tokens get a logit of zero, so that a reply never holds them.
        head[:FIRST_OPENER] = 0.0
        head[first:] = scaled[first - 1 : -1]
        head[first] = scaled[-1]
        # Openers are alike after the line that opens a reply, so a draw takes any of them; the
        # first stands out by more than rounding, so greedy replies begin with it.
        head[FIRST_OPENER:first] = scaled[vocabulary.index(LINE_END)] * _OTHER_OPENERS
        head[FIRST_OPENER] /= _OTHER_OPENERS
        for number, start in enumerate(passage_starts(len(vocabulary))):
            head[start] += scaled[FIRST_OPENER + number]
    model.generation_config = GenerationConfig(**SAMPLING)
    model.save_pretrained(folder)
    _save_tokenizer(vocabulary, folder)


def passages(name: str, words: int) -> list[str]:
    """The first `words` words of every reply that the model `name` of `SHAPES` can give."""
    vocabulary = markdown_vocabulary(SHAPES[name]["vocab_size"])
    return [
        vocabulary[FIRST_OPENER + number] + as_text(vocabulary[start : start + words - 1])
        for number, start in enumerate(passage_starts(len(vocabulary)))
    ]


def _save_tokenizer(vocabulary: list[str], folder: Path) -> None:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: number for number, token in enumerate(vocabulary)}
    backend = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    # A word and the signs behind it are one token, so a reply reads back as its own ids.
    words = pre_tokenizers.Split(Regex(" "), "merged_with_next")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([words, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=SPECIALS[1])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
