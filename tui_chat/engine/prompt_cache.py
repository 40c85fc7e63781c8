"""Keeps the KV cache of the last prompt and hands on the part that the next one shares."""

from collections.abc import Sequence
from typing import Any

from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from tui_chat.engine.forward import KVCache


class PromptCache:
    """One KV cache, cut back to the common prefix of what it holds and what comes next."""

    def __init__(self, config: Any) -> None:
        """Args: config: the model's transformers config; it decides the kinds of layers."""
        self._config = config
        self._kept: KVCache | None = None

    def reuse(self, prompt_ids: Sequence[int]) -> KVCache:
        """The cache for `prompt_ids`: `token_ids` of it need not be read again.

        At least the last id of the prompt is left to be read, because its logits are needed.
        Where the layers cannot be cut back (a full sliding window, convolution or recurrent
        state), the cache starts over unless the prompt only adds to it.
        """
        kept = self._kept
        if kept is not None and kept.is_intact:
            common = common_prefix(kept.token_ids, prompt_ids)
            keep = min(common, len(prompt_ids) - 1)
            if keep > 0 and _cut_back(kept, keep):
                return kept
        self._kept = KVCache(DynamicCache(config=self._config))
        return self._kept

    def drop(self) -> None:
        """Forget everything and free the memory."""
        self._kept = None

    @property
    def memory_bytes(self) -> int:
        """Memory that keys, values and other states take."""
        kept = self._kept
        return 0 if kept is None else sum(_bytes(layer) for layer in kept.past_key_values.layers)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids two sequences have in common from the start."""
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    return min(len(left), len(right))


def _cut_back(cache: KVCache, keep: int) -> bool:
    """Cut `cache` to its first `keep` ids in place; False where its layers cannot do that."""
    remove = len(cache.token_ids) - keep
    if remove == 0:
        return True
    layers = cache.past_key_values.layers
    # `is_croppable` is true for layers that then raise or are silently wrong.
    if not all(_is_croppable(layer) for layer in layers):
        return False
    cache.past_key_values.crop(-remove)
    del cache.token_ids[keep:]
    return all(layer.get_seq_length() == keep for layer in layers if layer.is_initialized)


def _is_croppable(layer: Any) -> bool:
    if type(layer) is DynamicSlidingWindowLayer:
        return bool(layer.get_seq_length() < layer.sliding_window)
    return type(layer) is DynamicLayer


def _bytes(layer: Any) -> int:
    tensors = [getattr(layer, "keys", None), getattr(layer, "values", None)]
    for name in ("conv_states", "recurrent_states"):
        tensors.extend(getattr(layer, name, {}).values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
