"""Keeps the KV cache of the last prompt and hands on the part that the next one shares."""

import sys
from collections.abc import Sequence
from typing import Any

from transformers.cache_utils import (
    DynamicSlidingWindowLayer,
    LinearAttentionCacheLayerMixin,
)

from tui_chat.engine.forward import KVCache
from tui_chat.engine.growing_cache import FULL_ATTENTION, growing_cache

NOTE_FROM_TOKENS = 16
"""Fewer tokens that have to be read again are not worth a word."""


class PromptCache:
    """One KV cache, cut back to the common prefix of what it holds and what comes next."""

    def __init__(self, config: Any) -> None:
        """Args: config: the model's transformers config; it decides the kinds of layers."""
        self._config = config
        self._kept: KVCache | None = None
        self.note = ""
        """Why the last `reuse` started over where it had something to reuse; else empty."""
        self._loss = ""

    def reuse(self, prompt_ids: Sequence[int]) -> KVCache:
        """The cache for `prompt_ids`: `token_ids` of it need not be read again.

        At least the last id of the prompt is left to be read, because its logits are needed.
        Where the layers cannot be cut back (a full sliding window, convolution or recurrent
        state), the cache starts over unless the prompt only adds to it, and `note` says so.
        """
        kept = self._kept
        self.note, self._loss = self._loss, ""
        if kept is not None and kept.is_intact:
            keep = min(common_prefix(kept.token_ids, prompt_ids), len(prompt_ids) - 1)
            refusal = cut_back(kept, keep) if keep > 0 else ""
            if keep > 0 and not refusal:
                return kept
            if keep >= NOTE_FROM_TOKENS:
                self.note = refusal
        self._kept = KVCache(growing_cache(self._config))
        return self._kept

    def count_shared(self, prompt_ids: Sequence[int]) -> int:
        """How many of `prompt_ids` `reuse` would find in the cache; from any thread."""
        kept = self._kept
        if kept is None:
            return 0
        keep = max(0, min(common_prefix(kept.token_ids, prompt_ids), len(prompt_ids) - 1))
        held = len(kept.token_ids)
        return 0 if held > keep and held > cut_limit(kept.past_key_values)[0] else keep

    def can_cut_back(self, tokens: int) -> bool:
        """Whether what is kept can be cut back once it has grown to `tokens`; any thread."""
        kept = self._kept
        return kept is not None and tokens <= cut_limit(kept.past_key_values)[0]

    def drop(self, loss: str = "") -> None:
        """Forget everything and free the memory; `loss` is what the next `note` says."""
        self._kept = None
        self._loss = loss

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


def cut_back(cache: KVCache, keep: int) -> str:
    """Cut `cache` to its first `keep` ids in place; returns why it cannot be cut, or "".

    After a refusal the cache may be of no use any more.
    """
    remove = len(cache.token_ids) - keep
    if remove == 0:
        return ""
    limit, refusal = cut_limit(cache.past_key_values)
    if len(cache.token_ids) > limit:
        return refusal
    cache.past_key_values.crop(-remove)
    del cache.token_ids[keep:]
    layers = cache.past_key_values.layers
    if any(layer.get_seq_length() != keep for layer in layers if layer.is_initialized):
        return "this model's cache cannot be cut back"
    return ""


def cut_limit(past_key_values: Any) -> tuple[int, str]:
    """The length up to which a transformers cache can be cut back, and why not beyond it.

    The cache's own `is_croppable` is true for layers that then raise or are silently wrong.
    """
    limit, refusal = sys.maxsize, ""
    for layer in past_key_values.layers:
        if type(layer) in FULL_ATTENTION:
            continue
        if type(layer) is DynamicSlidingWindowLayer:
            if layer.sliding_window - 1 < limit:
                limit = layer.sliding_window - 1
                refusal = "a full sliding-window cache cannot be cut back"
        elif isinstance(layer, LinearAttentionCacheLayerMixin):
            return 0, "a recurrent state cannot be cut back"
        else:
            return 0, "this model's cache cannot be cut back"
    return limit, refusal


def _bytes(layer: Any) -> int:
    tensors = [getattr(layer, "keys", None), getattr(layer, "values", None)]
    for name in ("conv_states", "recurrent_states"):
        tensors.extend(getattr(layer, name, {}).values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
