"""Matrix products of bfloat16 weights by other ways than torch's own.

On CPUs without instructions for them, torch multiplies many rows eight times slower in bfloat16
than in float32, while one row is as fast. So a prefill widens each weight for the moment of its
product. On other CPUs oneDNN spends half of the time for a few rows on bringing the weights into
its own order. So they are kept in that order as well where a few rows are multiplied often.
"""

from collections.abc import Iterator
from types import MethodType
from typing import Any

import psutil
import torch
from torch import Tensor, nn

WIDEN_FROM_ROWS = 8
"""From so many rows on the faster product outweighs the copy of the weight."""
ORDERED_ROWS = range(2, 65)
"""Counts of rows for which the order of the weights matters; one has a way of its own."""
ORDER_AT_ONCE_BYTES = 32 * 2**20
SPARE_COPIES = 3
"""How often the second copy of the weights must fit into the memory that is available."""


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
        layer.forward = MethodType(_forward_widened, layer)  # type: ignore[method-assign]
    return len(narrow)


def ordered(weight: Tensor) -> Tensor:
    """A copy of a bfloat16 `weight` in the order in which oneDNN multiplies."""
    copy: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return copy


def ordered_product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`linear` by an `ordered` weight: the same numbers that oneDNN computes from the plain one."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def order_products(model: nn.Module) -> Iterator[None]:
    """Let the linear layers of `model` multiply a few bfloat16 rows by `ordered` weights.

    Orders some of the layers at each `next`, so that no reply stands still for it, and none if
    the memory for a second copy of their weights is not plentiful.
    """
    layers = [
        layer
        for layer in linear_layers(model)
        if layer.weight.dtype == torch.bfloat16 and "forward" not in vars(layer)
    ]
    needed = sum(layer.weight.nbytes for layer in layers)
    if psutil.virtual_memory().available < SPARE_COPIES * needed:
        return
    done = 0
    for layer in layers:
        layer.ordered_weight = ordered(layer.weight)
        layer.forward = MethodType(_forward_ordered, layer)  # type: ignore[method-assign]
        done += layer.weight.nbytes
        if done >= ORDER_AT_ONCE_BYTES:
            yield
            done = 0


def _forward_ordered(layer: nn.Linear, rows: Tensor) -> Tensor:
    if rows.shape[:-1].numel() in ORDERED_ROWS:
        weight: Any = layer.ordered_weight
        return ordered_product(rows, weight, layer.bias)
    return nn.functional.linear(rows, layer.weight, layer.bias)


def _forward_widened(layer: nn.Linear, rows: Tensor) -> Tensor:
    if rows.shape[:-1].numel() < WIDEN_FROM_ROWS:
        return nn.functional.linear(rows, layer.weight, layer.bias)
    return widened(rows, layer.weight, layer.bias)
