"""The forward pass: new ids and a KV cache in, logits out, the fast way for this device."""

import inspect
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tui_chat.engine.attention import use_packed_attention
from tui_chat.engine.calibration import assumed_plan, without_onednn
from tui_chat.engine.cpu_linear import order_products, widen_products
from tui_chat.engine.cpu_plans import CpuPlan
from tui_chat.engine.growing_cache import grows_only
from tui_chat.engine.single_step import SingleStep, single_step
from tui_chat.engine.threads import (
    SMALL_MACHINE_CORES,
    ThreadTuner,
    decode_candidates,
    usable_cores,
    use_threads,
)

logger = logging.getLogger(__name__)

CPU_CHUNK = 512
GPU_CHUNK = 2048
FEW_ROWS = 2
"""So many bfloat16 rows are still faster without oneDNN where one is."""
STEP_TOLERANCE = 0.1
"""How far the written-out step may be off, in standard deviations of the logits."""


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

    def __init__(self, model: Any, plan: CpuPlan | None = None) -> None:
        """Prepare `model` (transformers, eval mode).

        On a CPU its attention and layers may be switched, as `plan` says (what is usually best
        if there is none), and the weights of small models fused.
        """
        self.model = model
        self.device = torch.device(model.device)
        is_cpu = self.device.type == "cpu"
        self.chunk = CPU_CHUNK if is_cpu else GPU_CHUNK
        self._cache_name = cache_argument(model)
        self._takes_keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.plan = (plan or assumed_plan(model)) if is_cpu else None
        """How the CPU runs the model; None on other devices."""
        self._step: SingleStep | None = None
        self._is_step_checked = False
        self._tuner: ThreadTuner | None = None
        self._shares_cores = False
        self._ordering: Iterator[None] = iter(())
        if self.plan is not None:
            self._follow(self.plan)

    def __call__(self, token_ids: Sequence[int], cache: KVCache) -> Tensor:
        """Append `token_ids` to `cache`; logits (vocabulary,) that follow the last of them."""
        return self._run(token_ids, cache, keep=1)[-1]

    def verify(self, token_ids: Sequence[int], cache: KVCache) -> Tensor:
        """Append `token_ids` to `cache`; logits (n, vocabulary) that follow each of them."""
        if len(token_ids) > 1:
            next(self._ordering, None)
        return self._run(token_ids, cache, keep=len(token_ids))[-len(token_ids) :]

    def _follow(self, plan: CpuPlan) -> None:
        if plan.packs_attention:
            use_packed_attention(self.model)
        self._step = single_step(self.model)
        if plan.widens_products:
            widen_products(self.model)
        if plan.orders_weights:
            self._ordering = order_products(self.model)
        if plan.decode_threads is not None:
            cores = usable_cores()
            self._shares_cores = cores <= SMALL_MACHINE_CORES
            self._tuner = ThreadTuner(decode_candidates(cores), plan.decode_threads)

    def _run(self, token_ids: Sequence[int], cache: KVCache, keep: int) -> Tensor:
        """Logits after at least the last `keep` of `token_ids`, which are then in `cache`."""
        cache.is_intact = False
        if len(token_ids) == 1 and self.plan is not None:
            logits = self._run_one(token_ids[0], cache.past_key_values, self.plan)
        else:
            if self._tuner is not None:
                use_threads(self._prefill_threads(self._tuner))
            avoids = self.plan is not None and self.plan.avoids_onednn
            with without_onednn(avoids and len(token_ids) <= FEW_ROWS):
                logits = self._run_model(token_ids, cache.past_key_values, keep)
        cache.token_ids.extend(token_ids)
        cache.is_intact = True
        return logits

    def _prefill_threads(self, tuner: ThreadTuner) -> int:
        """All cores, but on a small machine only those that steps had for themselves.

        There, waiting for a core that another program uses costs more than the core gains.
        """
        count = self.plan.prefill_threads if self.plan is not None else None
        return tuner.chosen if self._shares_cores or count is None else count

    def _run_one(self, token_id: int, past_key_values: Any, plan: CpuPlan) -> Tensor:
        """Logits (1, vocabulary) after one id, on the threads that are fastest for one."""
        started = time.perf_counter()
        if self._tuner is not None:
            use_threads(self._tuner.next_count)
        with without_onednn(plan.avoids_onednn):
            if self._step is None or not grows_only(past_key_values):
                logits = self._run_model((token_id,), past_key_values, 1)
            else:
                with torch.inference_mode():
                    logits = self._step(token_id, past_key_values)
                # Tensors of inference mode could not be changed in place outside of it.
                logits = logits.clone()
                if not self._is_step_checked:
                    logits = self._checked(logits, token_id, past_key_values)
        if self._tuner is not None:
            self._tuner.record(time.perf_counter() - started)
        return logits

    def _checked(self, logits: Tensor, token_id: int, past_key_values: Any) -> Tensor:
        """`logits` of the written-out step if the model agrees; else its own from now on."""
        self._is_step_checked = True
        past_key_values.crop(-1)
        expected = self._run_model((token_id,), past_key_values, 1)
        difference = (logits.float() - expected.float()).abs().max()
        if difference <= STEP_TOLERANCE * expected.float().std():
            return logits
        logger.warning("%s is not what its written-out step says", type(self.model).__name__)
        self._step = None
        return expected

    def _run_model(self, token_ids: Sequence[int], past_key_values: Any, keep: int) -> Tensor:
        """Logits (n, vocabulary) by the model's own forward method; at least the last `keep`."""
        ids = torch.tensor([list(token_ids)], dtype=torch.long, device=self.device)
        arguments = {self._cache_name: past_key_values}
        if self._takes_keep:
            arguments["logits_to_keep"] = keep
        with torch.no_grad():
            logits: Tensor = self.model(input_ids=ids, use_cache=True, **arguments).logits
        return logits[0]


def cache_argument(model: Any) -> str:
    """What the forward method of `model` calls its cache; state-space models have their own name.

    transformers 5.24 renamed it from `past_key_values` to `cache`, and warns of the old name.
    """
    parameters = inspect.signature(model.forward).parameters
    names = ("cache", "cache_params", "past_key_values")
    return next((name for name in names if name in parameters), names[-1])
