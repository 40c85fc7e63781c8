"""The forward passes of a reply: prefill in chunks, then one token after another.

Knows ids and tensors only; text, settings and the choice of what to reuse are elsewhere.
"""

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tui_chat.engine.attention import use_packed_attention
from tui_chat.engine.cpu_linear import widen_products
from tui_chat.engine.sampling import Sampler
from tui_chat.types import FinishReason, PrefillProgress

CPU_CHUNK = 512
GPU_CHUNK = 2048
LOOP_PERIODS = 128
LOOP_COPIES = 4
LOOP_TOKENS = 48
WORDLESS_LOOP_TOKENS = 192
LOOP_CHECK_EVERY = 16


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
        # Some state-space models call their cache so.
        self._cache_name = "cache_params" if "cache_params" in parameters else "past_key_values"
        takes_keep = "logits_to_keep" in parameters
        self._extra: dict[str, Any] = {"logits_to_keep": 1} if takes_keep else {}
        # oneDNN multiplies one or two bfloat16 rows at half the speed of torch's own kernel.
        self._avoids_onednn = is_cpu and model.dtype == torch.bfloat16
        if is_cpu:
            use_packed_attention(model)
            widen_products(model)

    def __call__(self, token_ids: Sequence[int], cache: KVCache) -> Tensor:
        """Append `token_ids` to `cache`; logits (vocabulary,) that follow the last of them."""
        ids = torch.tensor([list(token_ids)], dtype=torch.long, device=self.device)
        cache.is_intact = False
        arguments = {self._cache_name: cache.past_key_values, **self._extra}
        few_rows = len(token_ids) <= 2
        with torch.no_grad(), _without_onednn(self._avoids_onednn and few_rows):
            logits: Tensor = self.model(input_ids=ids, use_cache=True, **arguments).logits
        cache.token_ids.extend(token_ids)
        cache.is_intact = True
        return logits[0, -1]


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


def prefill(
    forward: ForwardPass,
    prompt_ids: Sequence[int],
    cache: KVCache,
    is_cancelled: Callable[[], bool],
) -> Generator[PrefillProgress, None, Tensor | None]:
    """Read what `cache` does not hold of the prompt, chunk by chunk.

    Yields progress before the first chunk and after each. Returns the logits that follow the
    prompt, or None when cancelled; what was read stays in the cache.
    """
    total = len(prompt_ids)
    done = len(cache.token_ids)
    logits: Tensor | None = None
    yield PrefillProgress(done, total)
    while done < total:
        if is_cancelled():
            return None
        chunk = prompt_ids[done : done + forward.chunk]
        logits = forward(chunk, cache)
        done += len(chunk)
        yield PrefillProgress(done, total)
    return logits


def decode(
    forward: ForwardPass,
    logits: Tensor,
    cache: KVCache,
    sampler: Sampler,
    *,
    end_ids: frozenset[int],
    max_new_tokens: int,
    is_wordless: Callable[[int], bool],
    is_cancelled: Callable[[], bool],
) -> Generator[int, None, FinishReason]:
    """Generate from the `logits` of a prefill; yields each id, the end-of-turn id included.

    Returns why it ended: stop, length, cancelled or repetition. The last id that was yielded
    is not in the cache.

    Raises:
        FloatingPointError: see `Sampler.sample`.
    """
    new_ids: list[int] = []
    while not is_cancelled():
        token = sampler.sample(logits)
        new_ids.append(token)
        yield token
        if token in end_ids:
            return "stop"
        if len(new_ids) >= max_new_tokens:
            return "length"
        if len(new_ids) % LOOP_CHECK_EVERY == 0 and is_looping(new_ids, is_wordless):
            return "repetition"
        if is_cancelled():
            break
        logits = forward((token,), cache)
    return "cancelled"


def is_looping(token_ids: Sequence[int], is_wordless: Callable[[int], bool]) -> bool:
    """Whether the ids end in at least four copies of one period of at most 128 tokens.

    The copies must span 48 tokens, and 192 where no token of the period holds a letter or a
    digit: rules, borders and indentation are long runs by nature.
    """
    for period in range(1, LOOP_PERIODS + 1):
        span = max(LOOP_COPIES * period, LOOP_TOKENS)
        if len(token_ids) < span:
            return False
        if not _repeats(token_ids, period, span):
            continue
        if not all(is_wordless(token) for token in set(token_ids[-period:])):
            return True
        longer = max(span, WORDLESS_LOOP_TOKENS)
        if len(token_ids) >= longer and _repeats(token_ids, period, longer):
            return True
    return False


def _repeats(token_ids: Sequence[int], period: int, span: int) -> bool:
    """Whether the last `span` ids repeat every `period`."""
    if token_ids[-1] != token_ids[-1 - period]:
        return False
    return token_ids[-span:-period] == token_ids[-span + period :]
