from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CONFIGS, tiny_model
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tui_chat.engine.cuda_attention import (
    SPLIT_KV,
    STOCK,
    USED_LENGTH,
    attend_to_used,
    attentions,
    split_kv,
)
from tui_chat.engine.cuda_graph import EagerStep, are_close, choose_attention, why_not_graph
from tui_chat.engine.forward import ForwardPass, KVCache
from tui_chat.engine.window_cache import (
    WindowCache,
    aligned,
    first_capacity,
    has_plain_layers,
    next_capacity,
)

pytestmark = pytest.mark.engine

PROMPT = [(7 * i) % 300 + 3 for i in range(40)]
GIGABYTE = 10**9
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("gemma3", "sliding-window or recurrent layers"),
        ("lfm2", "sliding-window or recurrent layers"),
        ("qwen3_next", "sliding-window or recurrent layers"),
        ("mixtral", "mixture of experts"),
        ("llama", "no CUDA device"),
        ("qwen3", "no CUDA device"),
        ("gpt_neox", "no CUDA device"),
    ],
)
def test_a_model_that_a_graph_would_get_wrong_is_refused(kind: str, reason: str) -> None:
    assert reason in why_not_graph(tiny_model(kind), 1024, GIGABYTE)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 1024,
        },
    ],
    ids=["dynamic", "longrope"],
)
def test_a_rotary_embedding_that_looks_at_the_position_is_refused(rope: dict[str, Any]) -> None:
    model = tiny_model()
    model.config.rope_parameters = rope

    assert "rotary embedding" in why_not_graph(model, 1024, GIGABYTE)
    model.config.rope_parameters = {"full_attention": rope}
    assert "rotary embedding" in why_not_graph(model, 1024, GIGABYTE)


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("is_loaded_in_8bit", True, "LLM.int8"),
        ("hf_device_map", {"model": 0, "lm_head": "cpu"}, "several devices"),
        ("_can_compile_fullgraph", False, "depends on the data"),
    ],
)
def test_what_the_model_says_of_itself_is_heard(attribute: str, value: Any, reason: str) -> None:
    model = tiny_model()
    setattr(model, attribute, value)

    assert reason in why_not_graph(model, 1024, GIGABYTE)


def test_experts_that_are_picked_on_the_device_are_not_the_obstacle() -> None:
    model = tiny_model("mixtral")
    model.set_experts_implementation("batched_mm")

    assert why_not_graph(model, 1024, GIGABYTE) == "there is no CUDA device"


@pytest.mark.gpu
@needs_cuda
def test_on_a_cuda_device_only_a_cache_that_does_not_fit_is_left_to_refuse() -> None:
    model = tiny_model().to("cuda")

    assert why_not_graph(model, 4096, GIGABYTE) == ""
    assert "does not fit into the" in why_not_graph(model, 4096, 1000)


@pytest.mark.parametrize("kind", CONFIGS)
def test_plain_layers_are_those_that_hold_the_whole_context(kind: str) -> None:
    plain = kind in ("llama", "qwen2", "qwen3", "mixtral", "gpt_neox")
    assert has_plain_layers(tiny_model(kind).config) is plain


@settings(max_examples=100, deadline=None)
@given(
    window=st.integers(1, 300_000),
    per_token=st.integers(1, 10**6),
    free=st.integers(0, 10**11),
    follows_use=st.booleans(),
)
def test_first_capacity_fits_and_holds_a_conversation(
    window: int, per_token: int, free: int, follows_use: bool
) -> None:
    capacity = first_capacity(window, per_token, free, follows_use=follows_use)

    if capacity == 0:
        assert min(aligned(window), 4096) * per_token > 0.9 * free
        return
    assert capacity * per_token <= 0.9 * free
    assert capacity in (aligned(window), min(aligned(window), 4096))


@settings(max_examples=100, deadline=None)
@given(
    tokens=st.integers(1, 300_000),
    capacity=st.integers(1, 1000).map(lambda count: 256 * count),
    window=st.integers(1, 300_000),
    per_token=st.integers(1, 10**6),
    free=st.integers(0, 10**11),
)
def test_the_next_capacity_grows_by_doubling_as_far_as_window_and_memory_go(
    tokens: int, capacity: int, window: int, per_token: int, free: int
) -> None:
    grown = next_capacity(tokens, capacity, window, per_token, free)

    assert grown >= capacity
    assert grown % 256 == 0
    assert grown == capacity or grown <= aligned(window)
    assert grown == capacity or grown * per_token <= free
    if free > 10 * per_token * max(tokens, capacity) and window >= 2 * capacity >= tokens:
        assert grown == 2 * capacity


def read(model: Any, capacity: int = 256) -> tuple[EagerStep, KVCache]:
    """A step behind `PROMPT`, and what it holds."""
    forward = ForwardPass(model)
    cache = KVCache(WindowCache(2, capacity, "cpu"))
    step = EagerStep(model, cache.past_key_values, forward(PROMPT, cache))
    return step, cache


def whole_logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0, -1]
    return logits


@pytest.mark.parametrize("attention", [USED_LENGTH, SPLIT_KV, STOCK])
def test_a_step_reads_only_what_is_used_of_the_cache(attention: str) -> None:
    model = tiny_model()
    model.set_attn_implementation(attention)
    step, _ = read(model)
    for layer in step.cache.layers:  # what another reply left behind
        layer.keys[:, :, len(PROMPT) + 1 :] = 50.0
        layer.values[:, :, len(PROMPT) + 1 :] = -50.0

    step.feed(7, len(PROMPT))
    step()

    expected = whole_logits(tiny_model(), [*PROMPT, 7])
    torch.testing.assert_close(step.logits, expected, atol=2e-4, rtol=2e-4)
    assert int(step.cache.length) == len(PROMPT) + 1


def test_a_grown_cache_holds_the_same_at_other_addresses() -> None:
    model = tiny_model()
    step, _ = read(model)
    before = [layer.keys[:, :, : len(PROMPT)].clone() for layer in step.cache.layers]
    small = step.cache

    step.cache = small.grown(512, len(PROMPT))
    step.feed(7, len(PROMPT))
    step()

    assert small.memory_bytes == 0
    assert step.cache.capacity == 512
    for layer, keys in zip(step.cache.layers, before, strict=True):
        assert torch.equal(layer.keys[:, :, : len(PROMPT)], keys)
    expected = whole_logits(tiny_model(), [*PROMPT, 7])
    torch.testing.assert_close(step.logits, expected, atol=2e-4, rtol=2e-4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    groups=st.sampled_from([1, 2, 4]),
    shared=st.sampled_from([1, 2, 7]),
    width=st.sampled_from([8, 24]),
    used=st.integers(1, 256),
    scaling=st.sampled_from([None, 0.3]),
)
def test_attention_over_the_used_part_is_that_of_torch(
    seed: int, groups: int, shared: int, width: int, used: int, scaling: float | None
) -> None:
    random = torch.Generator().manual_seed(seed)
    query = torch.randn(1, groups * shared, 1, width, generator=random)
    key, value = (torch.randn(1, groups, 256, width, generator=random) for _ in range(2))
    module = torch.nn.Module()
    module.num_key_value_groups = shared  # type: ignore[assignment]
    mask = (torch.arange(256) < used).view(1, 1, 1, 256)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)

    split, _ = split_kv(module, query, key, value, mask, scaling=scaling)
    length = torch.tensor([used], dtype=torch.int32)
    by_length, _ = attend_to_used(module, query, key, value, length, scaling=scaling)

    torch.testing.assert_close(split, expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(split, by_length)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("used", [1, 63, 64, 1000, 4000])
def test_flash_attention_with_the_length_on_the_device_is_that_of_torch(used: int) -> None:
    query = torch.randn(1, 32, 1, 128, device="cuda", dtype=torch.bfloat16)
    key, value = (
        torch.randn(1, 8, 4096, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2)
    )
    module = torch.nn.Module()
    module.num_key_value_groups = 4  # type: ignore[assignment]
    mask = (torch.arange(4096, device="cuda") < used).view(1, 1, 1, 4096)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask)

    length = torch.tensor([used], dtype=torch.int32, device="cuda")
    found, _ = attend_to_used(module, query, key, value, length)

    torch.testing.assert_close(found, expected, atol=1e-2, rtol=2e-2)


def test_the_fastest_attention_that_gives_the_stock_logits_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("gpt_neox")
    step, cache = read(model)
    assert attentions(model) == (SPLIT_KV, STOCK)

    assert choose_attention(step, cache.token_ids) == SPLIT_KV

    def wrong(*args: Any, **kwargs: Any) -> Any:
        output, weights = sdpa_attention_forward(*args, **kwargs)
        return -output, weights

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no kernel image is available")

    from transformers import AttentionInterface

    for fault in (wrong, broken):
        model.set_attn_implementation(STOCK)
        AttentionInterface.register(SPLIT_KV, fault)
        try:
            assert choose_attention(step, cache.token_ids) == STOCK
        finally:
            AttentionInterface.register(SPLIT_KV, split_kv)
        assert model.config._attn_implementation == STOCK
    assert int(step.cache.length) == len(cache.token_ids)


@pytest.mark.parametrize(
    ("dtype", "error", "close"),
    [
        (torch.float32, 1e-5, True),
        (torch.float32, 1e-2, False),
        (torch.bfloat16, 1e-2, True),
        (torch.bfloat16, 0.2, False),
        (torch.bfloat16, float("nan"), False),
    ],
)
def test_logits_are_close_within_the_rounding_of_their_type(
    dtype: torch.dtype, error: float, close: bool
) -> None:
    random = torch.Generator().manual_seed(1)
    expected = torch.randn(1000, generator=random)
    found = expected + error * torch.randn(1000, generator=random)

    assert are_close(found.to(dtype), expected.to(dtype)) is close


def test_another_best_token_is_close_only_where_it_is_as_good() -> None:
    expected = torch.tensor([5.0, 4.999, 1.0, *[0.5] * 100])
    tie, other = expected.clone(), expected.clone()
    tie[0] = 4.998
    other[2] = 5.01

    assert are_close(tie, expected)
    assert not are_close(other, expected)
