from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, SIZES, tiny_model
from transformers import AutoModelForCausalLM, DynamicCache, MistralConfig, Qwen2Config

from tui_chat.engine import forward as forward_module
from tui_chat.engine.attention import use_packed_attention
from tui_chat.engine.cpu_plans import CpuPlan
from tui_chat.engine.forward import ForwardPass, KVCache
from tui_chat.engine.growing_cache import growing_cache
from tui_chat.engine.single_step import single_step

pytestmark = pytest.mark.engine

PROMPT = [(7 * i) % 300 + 3 for i in range(40)]
WRITTEN_OUT = ("llama", "mistral", "qwen2", "qwen3")
PLAIN = CpuPlan(
    avoids_onednn=False,
    packs_attention=False,
    widens_products=False,
    orders_weights=False,
    decode_threads=None,
    prefill_threads=None,
)


def make_model(kind: str, dtype: Any = torch.float32, **changes: Any) -> Any:
    if kind in CONFIGS and not changes:
        return tiny_model(kind, dtype=dtype)
    make = {"qwen2": Qwen2Config, "mistral": MistralConfig}[kind]
    torch.manual_seed(0)
    sizes = {**SIZES, "num_key_value_heads": 2, "eos_token_id": None, "bos_token_id": None}
    config = make(**{**sizes, **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.to(dtype).eval()


def greedy_ids(forward: ForwardPass, cache: Any, count: int = 24) -> list[int]:
    kept = KVCache(cache)
    logits = forward(PROMPT, kept)
    ids = []
    for _ in range(count):
        ids.append(int(logits.argmax()))
        logits = forward(ids[-1:], kept)
    assert kept.token_ids == PROMPT + ids
    assert cache.get_seq_length() == len(PROMPT) + count
    return ids


@pytest.mark.parametrize("kind", [*CONFIGS, "mistral"])
def test_greedy_ids_from_a_growing_cache_are_those_of_generate(kind: str) -> None:
    plain = make_model(kind)
    expected = plain.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)
    model = make_model(kind)

    ids = greedy_ids(ForwardPass(model), growing_cache(model.config))

    assert ids == expected[0, len(PROMPT) :].tolist()
    assert len(set(ids)) > 3


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", WRITTEN_OUT)
def test_written_out_step_gives_the_logits_of_the_model(kind: str, dtype: Any, packs: bool) -> None:
    model = make_model(kind, dtype)
    if packs:
        use_packed_attention(model)
    forward, steps = KVCache(DynamicCache(config=model.config)), growing_cache(model.config)
    plain = ForwardPass(model, PLAIN)
    plain._step = None
    step = single_step(model)
    assert step is not None
    with torch.inference_mode():
        for token in PROMPT:
            torch.testing.assert_close(step(token, steps)[0], plain([token], forward))


def test_models_with_scaled_rotary_positions_keep_their_logits() -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    changes = {"max_position_embeddings": 16, "rope_parameters": rope}
    plain = make_model("qwen2", **changes)
    expected = plain.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)
    # These frequencies depend on the longest text so far.
    model = make_model("qwen2", **changes)

    ids = greedy_ids(ForwardPass(model), growing_cache(model.config))

    assert ids == expected[0, len(PROMPT) :].tolist()


def test_sliding_windows_are_left_to_the_model() -> None:
    model = make_model("mistral", sliding_window=16)
    expected = model.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)

    ids = greedy_ids(ForwardPass(model), growing_cache(model.config))

    assert ids == expected[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in WRITTEN_OUT])
def test_other_kinds_have_no_written_out_step(kind: str) -> None:
    assert single_step(make_model(kind)) is None


def test_hooks_of_others_are_respected() -> None:
    model = make_model("llama")
    model.model.layers[1].mlp.register_forward_hook(lambda module, given, output: output * 0)

    assert single_step(model) is None


def test_a_step_that_does_not_agree_with_its_model_is_given_up() -> None:
    model = make_model("llama")
    expected = model.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)
    forward = ForwardPass(model)
    assert forward._step is not None
    forward._step._epsilon = 10.0

    assert greedy_ids(forward, growing_cache(model.config)) == expected[0, len(PROMPT) :].tolist()
    assert forward._step is None


@pytest.mark.parametrize("kind", WRITTEN_OUT)
def test_fused_weights_exist_once(kind: str) -> None:
    model = make_model(kind)

    def places() -> dict[int, int]:
        storages = [parameter.untyped_storage() for parameter in model.parameters()]
        return {storage.data_ptr(): storage.nbytes() for storage in storages}

    before = places()
    forward = ForwardPass(model)
    after = places()

    attention = model.model.layers[0].self_attn
    shared = {
        layer.weight.untyped_storage().data_ptr()
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    }
    assert len(shared) == 1
    assert len(after) < len(before)
    assert sum(after.values()) == sum(before.values())
    assert forward._step is not None


def test_quantised_layers_are_called_and_not_fused() -> None:
    class Quantised(torch.nn.Linear):
        """Stands for any layer that is not a plain product."""

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return super().forward(rows) * 0.5

    model = make_model("llama")
    for layer in model.model.layers:
        layer.self_attn.k_proj.__class__ = Quantised
        layer.mlp.down_proj.__class__ = Quantised
    expected = model.generate(torch.tensor([PROMPT]), max_new_tokens=24, do_sample=False)

    ids = greedy_ids(ForwardPass(model), growing_cache(model.config))

    assert ids == expected[0, len(PROMPT) :].tolist()


@pytest.mark.parametrize(("cores", "prefill"), [(2, 1), (8, 2)])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_threads_follow_the_plan_and_small_machines_share_their_cores(
    kind: str, cores: int, prefill: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward_module, "usable_cores", lambda: cores)
    plan = replace(PLAIN, decode_threads=1, prefill_threads=2)
    forward = ForwardPass(make_model(kind), plan)
    cache = KVCache(growing_cache(forward.model.config))

    forward(PROMPT, cache)
    assert torch.get_num_threads() == prefill
    forward([5], cache)
    assert torch.get_num_threads() == 1


def test_onednn_is_on_again_after_a_step_that_failed() -> None:
    forward = ForwardPass(make_model("qwen2", torch.bfloat16))
    cache = KVCache(growing_cache(forward.model.config))
    forward(PROMPT, cache)
    forward([5], cache)

    with pytest.raises(IndexError):
        forward([400_000], cache)

    assert torch._C._get_mkldnn_enabled()
    assert not cache.is_intact


def test_ordered_weights_verify_to_the_same_logits() -> None:
    def verified(plan: CpuPlan) -> torch.Tensor:
        forward = ForwardPass(make_model("qwen2", torch.bfloat16), plan)
        cache = KVCache(growing_cache(forward.model.config))
        forward(PROMPT, cache)
        rows = [forward.verify(PROMPT[start : start + 5], cache) for start in (0, 5, 10)]
        return torch.cat([*rows, forward(PROMPT, cache)[None], forward([7], cache)[None]])

    assert torch.equal(verified(replace(PLAIN, orders_weights=True)), verified(PLAIN))
