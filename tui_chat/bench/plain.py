"""What a chat does between the model's steps, done the plain way: the "before" of the host rows."""

import re
from collections.abc import Sequence
from typing import Any

from tui_chat.types import Message


def turns_of(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages as transformers' templates take them."""
    return [{"role": str(message.role), "content": message.content} for message in messages]


def trim(tokenizer: Any, messages: Sequence[Message], budget: int) -> list[Message]:
    """Re-tokenize each message to know its size, then keep the newest that fit."""
    sizes = [len(tokenizer(m.content, add_special_tokens=False)["input_ids"]) for m in messages]
    start, used = len(messages), 0
    while start > 0 and used + sizes[start - 1] <= budget:
        start -= 1
        used += sizes[start]
    return list(messages[start:])


def trim_by_popping(tokenizer: Any, messages: Sequence[Message], budget: int) -> list[Message]:
    """Drop the oldest message and re-tokenize all that is left, until it fits."""
    kept = list(messages)
    while sum(len(tokenizer(m.content)["input_ids"]) for m in kept) > budget and len(kept) > 1:
        kept.pop(0)
    return kept


def count(tokenizer: Any, messages: Sequence[Message]) -> int:
    """Tokenize the whole prompt to know its length."""
    return len(tokenize(tokenizer, build_prompt(tokenizer, messages)))


def build_prompt(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Render the chat template over everything."""
    return str(
        tokenizer.apply_chat_template(
            turns_of(messages), tokenize=False, add_generation_prompt=True
        )
    )


def tokenize(tokenizer: Any, prompt: str) -> list[int]:
    """Encode the whole prompt."""
    ids: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return ids


def processors(settings: Any) -> Any:
    """The logits processors that `generate` makes for temperature and top-p."""
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    return LogitsProcessorList(
        [TemperatureLogitsWarper(settings.temperature), TopPLogitsWarper(settings.top_p)]
    )


def probabilities(warp: Any, prompt_ids: Any, logits: Any) -> Any:
    """What `generate` draws from, of shape (1, vocabulary)."""
    import torch

    return torch.softmax(warp(prompt_ids, logits[None].float()), dim=-1)


def sample(warp: Any, prompt_ids: Any, logits: Any) -> int:
    """Draw the next token as `generate` does."""
    import torch

    return int(torch.multinomial(probabilities(warp, prompt_ids, logits), num_samples=1))


def clean(text: str) -> str:
    """Take role tags and markers off the ends of the whole text."""
    text = re.sub(r"^\s*(<\|im_start\|>)?assistant[:\n]\s*", "", text)
    text = re.sub(r"^\s*<\|start_header_id\|>assistant<\|end_header_id\|>\s*", "", text)
    text = re.sub(r"^\s*<start_of_turn>model\n\s*", "", text)
    text = re.sub(r"^\s*<\|assistant\|>\s*", "", text)
    text = re.sub(r"(\s*(<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<\|endoftext\|>))+\s*$", "", text)
    text = re.sub(
        r"(\s*(<\|end_of_text\|>|<\|end_of_turn\|>|<\|end\|>|<\|return\|>))+\s*$", "", text
    )
    text = re.sub(r"(\s*(<end_of_turn>|<eos>|</s>))+\s*$", "", text)
    return text.strip()


def clean_while_streaming(pieces: Sequence[str]) -> str:
    """Clean the whole text so far for each piece that comes."""
    text = shown = ""
    for piece in pieces:
        text += piece
        shown = clean(text)
    return shown
