import pytest
import torch
from tiny_models import tiny_model

from tui_chat.engine.cpu_linear import WIDEN_FROM_ROWS, widen_products

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("rows", [1, WIDEN_FROM_ROWS - 1, WIDEN_FROM_ROWS, 40])
@pytest.mark.parametrize("bias", [True, False])
def test_widened_products_are_the_rounded_exact_ones(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 48, bias=bias, dtype=torch.bfloat16)
    given = torch.randn(1, rows, 32, dtype=torch.bfloat16)
    exact = torch.nn.functional.linear(
        given.double(), layer.weight.double(), layer.bias.double() if bias else None
    )

    assert widen_products(layer) == 1
    result = layer(given)

    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.double(), exact, atol=2e-2, rtol=1e-2)


def test_float32_models_are_left_alone() -> None:
    assert widen_products(tiny_model()) == 0
