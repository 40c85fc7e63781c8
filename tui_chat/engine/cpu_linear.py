"""Matrix products of bfloat16 weights on CPUs that have no instructions for them.

There, torch multiplies many rows eight times slower in bfloat16 than in float32, while one row
is as fast. So a prefill widens each weight for the moment of its product.
"""

from types import MethodType

import torch
from torch import Tensor, nn

WIDEN_FROM_ROWS = 8
"""From so many rows on the faster product outweighs the copy of the weight."""


def linear_layers(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of `model` that are not quantised."""
    return [module for module in model.modules() if type(module) is nn.Linear]


def widened(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear`, computed in float32 and rounded to the type of `rows`."""
    wide_bias = None if bias is None else bias.float()
    return nn.functional.linear(rows.float(), weight.float(), wide_bias).to(rows.dtype)


def widen_products(model: nn.Module) -> int:
    """Let the linear layers of `model` multiply many bfloat16 rows in float32.

    Returns how many layers were changed. Weights and results stay bfloat16.
    """
    narrow = [layer for layer in linear_layers(model) if layer.weight.dtype == torch.bfloat16]
    for layer in narrow:
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
    return len(narrow)


def _forward(layer: nn.Linear, rows: Tensor) -> Tensor:
    if rows.shape[:-1].numel() < WIDEN_FROM_ROWS:
        return nn.functional.linear(rows, layer.weight, layer.bias)
    return widened(rows, layer.weight, layer.bias)
