from pathlib import Path

import pytest
import torch
from torch import nn

from tests.engine.tiny_models import CONFIGS, tiny_model
from tui_chat.engine.cpu_int8 import FEW_ROWS, Int8Linear, quantise

pytestmark = pytest.mark.engine


def exact(layer: Int8Linear, rows: torch.Tensor) -> torch.Tensor:
    """What the layer's own numbers give in float32."""
    bias = 0.0 if layer.bias is None else layer.bias.float()
    return rows.float() @ (layer.weight.float() * layer.scale.float()[:, None]).T + bias


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("rows", [1, FEW_ROWS, FEW_ROWS + 1, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_few_and_many_rows_give_the_product_of_the_quantised_weights(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(96, 48, bias=bias, dtype=torch.bfloat16))
    x = torch.randn(1, rows, 96, dtype=torch.bfloat16)
    found = layer(x)
    assert found.shape == (1, rows, 48) and found.dtype == torch.bfloat16
    assert relative_error(found, exact(layer, x)) < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_weights_are_within_half_a_level_of_the_original(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32, dtype=dtype)
    with torch.no_grad():
        linear.weight[3] = 0.0
    before = linear.weight.detach().clone()
    layer = Int8Linear(linear)
    assert torch.equal(linear.weight, before)
    scale = layer.scale.float()[:, None]
    error = (layer.weight.float() * scale - before.float()).abs()
    assert (error <= 0.51 * scale + 1e-6).all()
    assert not layer.weight[3].any()


@pytest.mark.parametrize("kind", sorted(set(CONFIGS) - {"mixtral", "qwen3_next"}))
def test_logits_stay_close_and_the_head_keeps_its_bits(kind: str) -> None:
    plain = tiny_model(kind, dtype=torch.bfloat16)
    model = tiny_model(kind, dtype=torch.bfloat16)
    seen: list[tuple[int, int]] = []
    count = quantise(model, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (count, count) and len(seen) == count > 0
    assert type(model.get_output_embeddings()) is nn.Linear
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        logits, expected = model(input_ids=ids).logits, plain(input_ids=ids).logits.float()
    assert relative_error(logits, expected) < 0.1


def test_float32_model_is_sixteen_bit_beside_its_eight_bit_layers() -> None:
    model = tiny_model("llama", dtype=torch.float32)
    quantise(model, lambda done, total: None)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.dtype == model.config.dtype == torch.bfloat16
    with torch.no_grad():
        assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.isfinite().all()


def test_what_report_raises_ends_the_work(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise InterruptedError(f"{done} of {total}")

    with pytest.raises(InterruptedError, match="1 of 14"):
        quantise(tiny_model("llama"), stop)
