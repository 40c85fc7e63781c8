"""Linear layers with 8-bit weights on a CPU: half the memory of 16 bits, nearly the same logits.

Weights are int8 with one scale for each output row (symmetric, rounded to nearest); what they
are multiplied with stays bfloat16, unlike in LLM.int8(), so the error is that of the weights.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

FEW_ROWS = 8
"""Up to so many rows torch's 8-bit product is faster than one over widened weights."""
_LEVELS = 127


class Int8Linear(nn.Module):
    """y = x W^T + b with W as int8 and a scale for each row; x and y are bfloat16."""

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        """Quantise `linear`, of any floating type, which is left as it is."""
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        wide = linear.weight.detach().float()
        scale = (wide.abs().amax(dim=1) / _LEVELS).clamp_min(torch.finfo(torch.float32).tiny)
        scale = scale.to(torch.bfloat16)
        levels = (wide / scale.float()[:, None]).round_().clamp_(-_LEVELS, _LEVELS)
        self.register_buffer("weight", levels.to(torch.int8))
        self.register_buffer("scale", scale)
        bias = None if linear.bias is None else linear.bias.detach().to(torch.bfloat16)
        self.register_buffer("bias", bias)

    def forward(self, rows: Tensor) -> Tensor:
        """`rows` (..., in_features) to (..., out_features)."""
        flat = rows.reshape(-1, self.in_features)
        if len(flat) <= FEW_ROWS:
            product = torch._weight_int8pack_mm(flat, self.weight, self.scale)
        else:
            product = nn.functional.linear(flat, self.weight.to(flat.dtype)) * self.scale
        if self.bias is not None:
            product = product + self.bias
        return product.view(*rows.shape[:-1], self.out_features)


def quantise(model: nn.Module, report: Callable[[int, int], None]) -> int:
    """Turn the linear layers of `model` to `Int8Linear` and everything else to bfloat16.

    One layer after the other, so that memory holds one of them twice and no more; the output
    head, which the logits depend on most, and the embeddings keep 16 bits.

    Args:
        model: on the CPU, its weights in any floating type, mapped from a file or not.
        report: called with the layers done and all of them; what it raises ends the work.

    Returns how many layers were quantised.
    """
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    places = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and child is not head
    ]
    total = len(places)
    for done in range(1, total + 1):
        parent, name, child = places.pop()
        setattr(parent, name, Int8Linear(child))
        del child
        report(done, total)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(torch.bfloat16)
    if hasattr(model, "config"):
        model.config.dtype = torch.bfloat16
    return total
