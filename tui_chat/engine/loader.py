"""Loads a model by the ladder 4-bit, 8-bit, 16-bit, CPU, and says why a rung fell."""

from dataclasses import dataclass
from typing import Any

from tui_chat.types import Precision, Rung


@dataclass(slots=True)
class LoadedModel:
    """A model in memory and everything the screen says about it."""

    model: Any
    """A transformers causal LM in eval mode, on `device`."""
    tokenizer: Any
    """Its Hugging Face tokenizer."""
    name: str
    """Short name for the screen."""
    precision: Precision
    device: str
    """`cpu`, `cuda:0`, `mps`."""
    dtype: str
    """What is computed with: `bfloat16`, `float32`."""
    rungs: tuple[Rung, ...]
    notes: tuple[str, ...]
    context_window: int
    weights_bytes: int
