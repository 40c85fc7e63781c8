"""The forward pass: new ids and a KV cache in, logits out, the fast way for this device."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tui_chat.engine.attention import use_packed_attention
from tui_chat.engine.cpu_linear import widen_products

CPU_CHUNK = 512
GPU_CHUNK = 2048


@dataclass(slots=True)
class KVCache:
    """Keys and values, and the ids they belong to."""

    past_key_values: Any
    """A transformers Cache."""
    token_ids: list[int] = field(default_factory=list)
    """Exactly the ids that `past_key_values` holds."""
    is_intact: bool = True
    """False while a forward pass runs, and for good after one that failed."""


class ForwardPass:
    """Runs a causal LM over new ids and a cache, the fast way for this device."""

    def __init__(self, model: Any) -> None:
        """Prepare `model` (transformers, eval mode); on a CPU its layers may be switched."""
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self.device = torch.device(model.device)
        is_cpu = self.device.type == "cpu"
        self.chunk = CPU_CHUNK if is_cpu else GPU_CHUNK
        self._cache_name = cache_argument(model)
        self._takes_keep = "logits_to_keep" in parameters
        # oneDNN multiplies one or two bfloat16 rows at half the speed of torch's own kernel.
        self._avoids_onednn = is_cpu and model.dtype == torch.bfloat16
        if is_cpu:
            use_packed_attention(model)
            widen_products(model)

    def __call__(self, token_ids: Sequence[int], cache: KVCache) -> Tensor:
        """Append `token_ids` to `cache`; logits (vocabulary,) that follow the last of them."""
        return self._run(token_ids, cache, keep=1)[-1]

    def verify(self, token_ids: Sequence[int], cache: KVCache) -> Tensor:
        """Append `token_ids` to `cache`; logits (n, vocabulary) that follow each of them."""
        return self._run(token_ids, cache, keep=len(token_ids))[-len(token_ids) :]

    def _run(self, token_ids: Sequence[int], cache: KVCache, keep: int) -> Tensor:
        """Logits after at least the last `keep` of `token_ids`, which are then in `cache`."""
        ids = torch.tensor([list(token_ids)], dtype=torch.long, device=self.device)
        cache.is_intact = False
        arguments = {self._cache_name: cache.past_key_values}
        if self._takes_keep:
            arguments["logits_to_keep"] = keep
        few_rows = len(token_ids) <= 2
        with torch.no_grad(), _without_onednn(self._avoids_onednn and few_rows):
            logits: Tensor = self.model(input_ids=ids, use_cache=True, **arguments).logits
        cache.token_ids.extend(token_ids)
        cache.is_intact = True
        return logits[0]


def cache_argument(model: Any) -> str:
    """What the forward method of `model` calls its cache; state-space models have their own name.

    transformers 5.24 renamed it from `past_key_values` to `cache`, and warns of the old name.
    """
    parameters = inspect.signature(model.forward).parameters
    names = ("cache", "cache_params", "past_key_values")
    return next((name for name in names if name in parameters), names[-1])


@contextmanager
def _without_onednn(applies: bool) -> Iterator[None]:
    """Keep oneDNN off inside; the switch is global, so it is put back whatever happens."""
    if not applies:
        yield
        return
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)
