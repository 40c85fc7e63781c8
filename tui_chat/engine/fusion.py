"""Linear layers of one input as one product, whose weights exist once."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Product = Callable[[Tensor], Tensor]
"""Rows (n, in) to rows (n, out)."""

FUSE_BELOW_BYTES = 256 * 2**20
"""Above, one call less gains nothing measurable, and the weights would be copied at load."""


def product(layer: Any) -> Product:
    """The product of `layer`: its tensors without the calls around them, if it is a plain one."""
    if not _is_plain(layer):
        call: Product = layer
        return call
    weight, bias = layer.weight.detach(), None
    if layer.bias is not None:
        bias = layer.bias.detach()
    return lambda rows: nn.functional.linear(rows, weight, bias)


def joint_product(layers: Sequence[Any], *, fuse: bool) -> Product:
    """One product whose columns are those of `layers`, one after another.

    With `fuse` their weights become views of one tensor, row by row the same numbers; layers
    that are quantised, or of which only some have a bias, are left as they are.
    """
    plain = all(_is_plain(layer) for layer in layers)
    if fuse and plain and len({layer.bias is None for layer in layers}) == 1:
        weight = _join([layer.weight for layer in layers])
        bias = None if layers[0].bias is None else _join([layer.bias for layer in layers])
        return lambda rows: nn.functional.linear(rows, weight, bias)
    products = [product(layer) for layer in layers]
    return lambda rows: torch.cat([one(rows) for one in products], -1)


def _join(parameters: Sequence[nn.Parameter]) -> Tensor:
    """One tensor that holds `parameters` along their first axis, which become views of it."""
    whole = torch.cat([parameter.detach() for parameter in parameters])
    sizes = [len(parameter) for parameter in parameters]
    for parameter, part in zip(parameters, whole.split_with_sizes(sizes), strict=True):
        parameter.data = part
    return whole


def _is_plain(layer: Any) -> bool:
    """Whether `layer` multiplies by its weight and does nothing else."""
    return type(layer) is nn.Linear and "forward" not in vars(layer)
