"""A KV cache whose full-attention layers grow in preallocated memory instead of being copied."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

SPARE_TOKENS = 256
SPARE_SHARE = 8
"""Room for at least 256 tokens more, and for an eighth of what is held."""


class GrowingLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """A `DynamicLayer` whose keys and values are views of the filled part of larger buffers.

    Appending writes the new rows only; cutting back (`crop`) shortens the views.
    """

    _key_buffer: Tensor | None = None
    _value_buffer: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append rows (batch, heads, new, head_dim); all keys and values held then."""
        held = self.get_seq_length()
        length = held + key_states.shape[-2]
        if self._key_buffer is None or length > self._key_buffer.shape[-2]:
            self._make_room(key_states, value_states, held, length)
        keys, values = self._key_buffer, self._value_buffer
        assert keys is not None and values is not None
        keys.narrow(2, held, length - held).copy_(key_states)
        values.narrow(2, held, length - held).copy_(value_states)
        self.keys = keys.narrow(2, 0, length)
        self.values = values.narrow(2, 0, length)
        return self.keys, self.values

    def reset(self) -> None:
        """Forget everything and free the memory."""
        self._key_buffer = self._value_buffer = None
        super().reset()

    def _make_room(self, key_states: Tensor, value_states: Tensor, held: int, length: int) -> None:
        capacity = length + max(SPARE_TOKENS, length // SPARE_SHARE)
        # Tensors born in inference mode could not be written to outside of it.
        with torch.inference_mode(False):
            buffers = [
                states.new_empty((*states.shape[:2], capacity, states.shape[3]))
                for states in (key_states, value_states)
            ]
        if held:
            for buffer, old in zip(buffers, (self.keys, self.values), strict=True):
                buffer.narrow(2, 0, held).copy_(old)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._key_buffer, self._value_buffer = buffers


FULL_ATTENTION = (DynamicLayer, GrowingLayer)
"""The kinds of layers that keep everything and can be cut back to any length."""


def growing_cache(config: Any) -> DynamicCache:
    """The cache that transformers would make for `config`, its plain layers growing in place."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def grows_only(past_key_values: Any) -> bool:
    """Whether all layers of a transformers cache attend to everything they were given."""
    return all(type(layer) in FULL_ATTENTION for layer in past_key_values.layers)
