"""Matrix products of bfloat16 weights on CPUs that have no instructions for them.

There, torch multiplies many rows eight times slower in bfloat16 than in float32, while one row
is as fast. So a prefill widens each weight for the moment of its product.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

WIDEN_FROM_ROWS = 8
"""From so many rows on the faster product outweighs the copy of the weight."""


def widen_products(model: nn.Module) -> int:
    """Let the linear layers of `model` multiply many bfloat16 rows in float32.

    Returns how many layers were changed; none where the CPU computes bfloat16 itself. Weights
    and results stay bfloat16; quantised layers are left alone.
    """
    if _has_bfloat16():
        return 0
    layers = [m for m in model.modules() if type(m) is nn.Linear]
    narrow = [layer for layer in layers if layer.weight.dtype == torch.bfloat16]
    for layer in narrow:
        layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
    return len(narrow)


def _forward(layer: nn.Linear, rows: Tensor) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if rows.shape[:-1].numel() < WIDEN_FROM_ROWS:
        return nn.functional.linear(rows, weight, bias)
    wide_bias = None if bias is None else bias.float()
    return nn.functional.linear(rows.float(), weight.float(), wide_bias).to(rows.dtype)


def _has_bfloat16() -> bool:
    supported: Any = torch.ops.mkldnn._is_mkldnn_bf16_supported
    return bool(supported())
