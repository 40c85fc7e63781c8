"""Tiny random models and tokenizers, built in memory."""

import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    MixtralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)

from tui_chat.engine.loader import LoadedModel
from tui_chat.engine.local import LocalEngine
from tui_chat.engine.speculation import PassCosts
from tui_chat.types import (
    GenerationFinished,
    GenerationSettings,
    Message,
    Precision,
    Role,
    TextDelta,
)

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
INST = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
CORPUS = [
    "Hello world, how are you today? I am fine, thanks; the weather is nice.",
    "héllo 世界 🙂 naïve café — straße “quotes” and 12345 numbers.",
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint('hi')\n```\n" * 3,
    "the quick brown fox jumps over the lazy dog " * 8,
]
EXTRA_TOKENS = ("<|im_start|>", "<|im_end|>", "<tool_call>", "<think>", "</think>")


def byte_level_tokenizer(template: str | None = CHATML, *, size: int = 384) -> Any:
    """Byte-level BPE as of the Qwen family, its think tags being special tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    tokenizer.add_tokens([AddedToken(t, special=t != "<tool_call>") for t in EXTRA_TOKENS])
    tokenizer.chat_template = template
    return tokenizer


def metaspace_tokenizer(template: str | None = INST) -> Any:
    """BPE over metaspace with byte fallback, as of the Llama 2 and Mistral families."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_without_byte_specials(backend),
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.add_tokens([AddedToken("[INST]", special=True), AddedToken("[/INST]", special=True)])
    tokenizer.chat_template = template
    return tokenizer


def unigram_tokenizer(template: str | None = CHATML) -> Any:
    """Unigram over metaspace, whose control tokens also come from plain text."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<unk>", "<s>", "</s>", *EXTRA_TOKENS],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def _without_byte_specials(backend: Tokenizer) -> Tokenizer:
    """Byte-fallback tokens belong to the vocabulary, not to the added tokens."""
    state = json.loads(backend.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(state))


SIZES: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}
GQA: dict[str, Any] = {"num_key_value_heads": 2, "head_dim": 8}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**SIZES, **GQA),
    "qwen2": lambda: Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**SIZES, **GQA, tie_word_embeddings=True),
    "gemma3": lambda: Gemma3TextConfig(
        **SIZES,
        **GQA,
        tie_word_embeddings=False,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "mixtral": lambda: MixtralConfig(**SIZES, **GQA, num_local_experts=4),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "lfm2": lambda: Lfm2Config(
        **SIZES, num_key_value_heads=2, layer_types=["conv", "full_attention"]
    ),
    "qwen3_next": lambda: Qwen3NextConfig(
        **SIZES,
        **GQA,
        layer_types=["linear_attention", "full_attention"],
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
    ),
}


def tiny_model(
    kind: str = "llama", *, dtype: Any = None, seed: int = 0, vocab_size: int = 400
) -> Any:
    """A random model whose greedy replies vary; logits are spread so that ties do not occur."""
    torch.manual_seed(seed)
    config = CONFIGS[kind]()
    config.vocab_size = vocab_size
    config.eos_token_id = config.bos_token_id = config.pad_token_id = None
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.4)
    model.generation_config.eos_token_id = None
    return model.to(dtype or torch.float32).eval()


def make_engine(
    kind: str = "llama",
    *,
    tokenizer: Any = None,
    model: Any = None,
    context_window: int = 1024,
    dtype: Any = None,
    **options: Any,
) -> LocalEngine:
    """A real engine on a tiny model; `options` are those of `LocalEngine`."""
    model = model or tiny_model(kind, dtype=dtype)
    return LocalEngine(
        LoadedModel(
            model=model,
            tokenizer=tokenizer or byte_level_tokenizer(),
            name=kind,
            precision=Precision.CPU,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            rungs=(),
            notes=(),
            context_window=context_window,
            weights_bytes=sum(p.nbytes for p in model.parameters()),
        ),
        **options,
    )


class CheapPasses(PassCosts):
    """Costs as measured where many rows are as quick as one: drafts always pay."""

    def step(self) -> float:
        return 1.0

    def of(self, rows: int) -> float:
        return 1.0

    def note(self, rows: int, seconds: float) -> None:
        pass


def message(role: str, content: str, *, reasoning: str = "") -> Message:
    """A message with only what an engine looks at."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Message(id="m", role=Role(role), content=content, created_at=at, reasoning=reasoning)


def talk(*contents: str, system: str = "") -> list[Message]:
    """Messages of a conversation in which user and assistant alternate."""
    turns = [message("user" if i % 2 == 0 else "assistant", c) for i, c in enumerate(contents)]
    return [message("system", system), *turns] if system else turns


GREEDY = GenerationSettings(max_new_tokens=24, do_sample=False)


def run(
    engine: LocalEngine,
    messages: Sequence[Message],
    settings: GenerationSettings = GREEDY,
    cancel: threading.Event | None = None,
) -> tuple[str, GenerationFinished, list[Any]]:
    """The content, the last event and all events of one reply."""
    events = list(engine.stream(messages, lambda: settings, cancel or threading.Event()))
    finished = events[-1]
    assert isinstance(finished, GenerationFinished)
    deltas = [e for e in events if isinstance(e, TextDelta)]
    return "".join(d.text for d in deltas if d.kind == "content"), finished, events
