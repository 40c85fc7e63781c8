import pytest
import torch
from tiny_models import tiny_model

from tui_chat.engine import cpu_linear
from tui_chat.engine.cpu_linear import WIDEN_FROM_ROWS, order_products, widen_products

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


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 5, 64, 65])
def test_ordered_weights_give_the_same_numbers(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(32, 48, bias=bias, dtype=torch.bfloat16)
    given = torch.randn(1, rows, 32, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = layer(given)
        assert list(order_products(layer)) == []

        assert torch.equal(layer(given), expected)
    assert "ordered_weight" in vars(layer)
    assert "ordered_weight" not in layer.state_dict()


def test_layers_are_ordered_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(dtype=torch.bfloat16)
    monkeypatch.setattr(cpu_linear, "ORDER_AT_ONCE_BYTES", 1)
    steps = order_products(model)

    next(steps)
    next(steps)

    assert sum(hasattr(module, "ordered_weight") for module in model.modules()) == 2


def test_weights_are_not_copied_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(dtype=torch.bfloat16)
    monkeypatch.setattr(cpu_linear, "SPARE_COPIES", 10**12)

    assert list(order_products(model)) == []
    assert not any(hasattr(module, "ordered_weight") for module in model.modules())
