"""Chooses between ways to run a model on this machine's CPU by timing them once.

The choices change rounding at most. They are kept in the cache folder, so that the next start
with this model does not measure again.
"""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

from tui_chat import files
from tui_chat.engine.attention import grouping
from tui_chat.engine.cpu_linear import linear_layers, ordered, ordered_product, widened
from tui_chat.engine.cpu_plans import FILE_NAME, CpuPlan, keep_plan, read_plans
from tui_chat.engine.threads import decode_candidates, usable_cores, user_decides

logger = logging.getLogger(__name__)

WORTH_MEASURING_BYTES = 2 * 2**20
"""Smaller models gain nothing from any choice."""
BUDGET_SECONDS = 0.25
"""For each choice."""
SAMPLE_BYTES = 96 * 2**20
"""Weights that a timing reads: more than caches hold, or it would flatter."""
ROUNDS = 5
PREFILL_ROWS = 32
DRAFT_ROWS = 5
PREFILL_BYTES = 24 * 2**20
CONTEXT = 1024
CLEARLY = 0.9
WORTH_A_COPY = 0.75
WORTH_THE_SCREENS_CORE = 0.8
"""On a small machine all cores are taken only where that saves a fifth."""


def plan_for(model: Any) -> CpuPlan:
    """The plan for `model` on this machine: a kept one, or else measured and kept."""
    if sum(layer.weight.nbytes for layer in linear_layers(model)) < WORTH_MEASURING_BYTES:
        return assumed_plan(model, threads=1)
    place = files.cache_dir() / FILE_NAME
    key = _key(model)
    kept = read_plans(place, usable_cores())
    if (plan := kept.get(key)) is not None:
        logger.info("CPU plan, as measured before: %s", plan.describe())
        return plan
    started = time.perf_counter()
    plan = measure(model)
    logger.info("CPU plan, %.2f s: %s", time.perf_counter() - started, plan.describe())
    keep_plan(place, kept, key, plan)
    return plan


def assumed_plan(model: Any, threads: int | None = None) -> CpuPlan:
    """What is usually best, without measuring; on `threads` if the environment has no number."""
    threads = None if user_decides() else threads
    narrow = model.dtype == torch.bfloat16
    return CpuPlan(
        avoids_onednn=narrow,
        packs_attention=grouping(model) is not None,
        widens_products=narrow and not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        orders_weights=False,
        decode_threads=threads,
        prefill_threads=threads,
    )


def measure(model: Any) -> CpuPlan:
    """Time the alternatives with weights of `model`; about a second, on the calling thread."""
    layers = _sample(model, SAMPLE_BYTES)
    if not layers:
        return assumed_plan(model)
    before = torch.get_num_threads()
    try:
        with torch.inference_mode():
            return _measure(model, layers)
    finally:
        torch.set_num_threads(before)


def _measure(model: Any, layers: Sequence[nn.Linear]) -> CpuPlan:
    # One thread is hardly disturbed by what else runs; two wait for each other.
    torch.set_num_threads(1)
    avoids = _measure_onednn(layers)
    packs = _measure_attention(model)
    few = _sample(model, PREFILL_BYTES)
    widens = _measure_widening(few)
    plan = CpuPlan(
        avoids_onednn=avoids,
        packs_attention=packs,
        widens_products=widens,
        orders_weights=not widens and _measure_order(few),
        decode_threads=None,
        prefill_threads=None,
    )
    if user_decides():
        return plan
    cores = usable_cores()
    decode = _measure_threads(layers, decode_candidates(cores), cores, avoids)
    # A prefill is bound by computing, so that each core counts.
    return replace(plan, decode_threads=decode, prefill_threads=cores)


def _products(layers: Sequence[nn.Linear], rows: int, multiply: Any) -> Callable[[], None]:
    """All products of `layers` with as many rows."""
    given = [torch.randn(rows, layer.in_features).to(layer.weight.dtype) for layer in layers]

    def run() -> None:
        for layer, each in zip(layers, given, strict=True):
            multiply(each, layer.weight, layer.bias)

    return run


def _measure_onednn(layers: Sequence[nn.Linear]) -> bool:
    """Whether one row is multiplied faster without oneDNN."""
    if layers[0].weight.dtype == torch.float32:
        return False
    run = _products(layers, 1, linear)

    def run_without() -> None:
        with without_onednn(True):
            run()

    seconds = fastest({True: run_without, False: run})
    return bool(seconds[True] < CLEARLY * seconds[False])


def _measure_attention(model: Any) -> bool:
    """Whether one row attends faster with its grouped queries packed."""
    shape = grouping(model)
    if shape is None:
        return False
    heads, groups, width = shape
    keys = torch.randn(1, groups, CONTEXT, width).to(model.dtype)
    queries = torch.randn(1, heads, 1, width).to(model.dtype)
    packed = queries.view(1, groups, heads // groups, width)
    seconds = fastest(
        {
            True: lambda: scaled_dot_product_attention(packed, keys, keys),
            False: lambda: scaled_dot_product_attention(queries, keys, keys, enable_gqa=True),
        }
    )
    return bool(seconds[True] < CLEARLY * seconds[False])


def _measure_widening(layers: Sequence[nn.Linear]) -> bool:
    """Whether many bfloat16 rows are multiplied faster in float32."""
    if layers[0].weight.dtype != torch.bfloat16:
        return False
    ways = {True: widened, False: linear}
    seconds = fastest({wide: _products(layers, PREFILL_ROWS, way) for wide, way in ways.items()})
    return bool(seconds[True] < CLEARLY * seconds[False])


def _measure_order(layers: Sequence[nn.Linear]) -> bool:
    """Whether a few bfloat16 rows are multiplied faster by weights in oneDNN's order."""
    if layers[0].weight.dtype != torch.bfloat16:
        return False
    weights = [ordered(layer.weight) for layer in layers]
    given = [torch.randn(DRAFT_ROWS, layer.in_features).bfloat16() for layer in layers]

    def run() -> None:
        for layer, weight, rows in zip(layers, weights, given, strict=True):
            ordered_product(rows, weight, layer.bias)

    seconds = fastest({True: run, False: _products(layers, DRAFT_ROWS, linear)})
    return bool(seconds[True] < WORTH_A_COPY * seconds[False])


def _measure_threads(
    layers: Sequence[nn.Linear], counts: Sequence[int], cores: int, avoids_onednn: bool
) -> int:
    """The smallest count that is about as fast as any; the screen's core has to earn it."""
    run = _products(layers, 1, linear)

    def run_on(threads: int) -> Callable[[], None]:
        def run_so() -> None:
            torch.set_num_threads(threads)
            with without_onednn(avoids_onednn):
                run()

        return run_so

    seconds: dict[int, float] = fastest({count: run_on(count) for count in counts})
    best = min(seconds.values())
    for count in sorted(seconds):
        share = WORTH_THE_SCREENS_CORE if count == cores - 1 else CLEARLY
        if share * seconds[count] <= best:
            return count
    return cores


def fastest(ways: Mapping[Any, Callable[[], Any]]) -> dict[Any, float]:
    """The least time of each way, in seconds; they take turns, after one turn unmeasured."""
    least = dict.fromkeys(ways, float("inf"))
    until = time.perf_counter() + BUDGET_SECONDS
    for turn in range(ROUNDS + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            if turn:
                least[name] = min(least[name], time.perf_counter() - started)
        if turn and time.perf_counter() > until:
            break
    return least


@contextmanager
def without_onednn(applies: bool) -> Iterator[None]:
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


def _sample(model: Any, most_bytes: int) -> list[nn.Linear]:
    """The first linear layers of `model`, up to `most_bytes` but at least one."""
    sample: list[nn.Linear] = []
    size = 0
    for layer in linear_layers(model):
        size += layer.weight.nbytes
        if sample and size > most_bytes:
            break
        sample.append(layer)
    return sample


def _key(model: Any) -> str:
    """What a plan depends on."""
    shapes = dict.fromkeys(tuple(layer.weight.shape) for layer in linear_layers(model))
    parts = (
        _cpu_name(),
        f"{usable_cores()} cores",
        f"torch {torch.__version__}",
        type(model).__name__,
        str(model.dtype).removeprefix("torch."),
        " ".join("x".join(map(str, shape)) for shape in shapes),
        str(grouping(model)),
        f"OMP_NUM_THREADS={torch.get_num_threads()}" if user_decides() else "",
    )
    return "; ".join(part for part in parts if part)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
