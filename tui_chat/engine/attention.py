"""Grouped-query attention of one query row that reads each key and value once.

On a CPU, torch's own grouped-query path (`enable_gqa`) is slow for half-precision weights;
packing the query heads of a group into rows of one head is the same sum in one pass.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

PACKED = "packed_sdpa"
_OWN_BUSINESS = ("softcap", "position_bias", "cache", "s_aux", "sinks")


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention in the form that transformers calls; all but plain decode steps go to sdpa.

    `query` is (batch, heads, rows, head_dim), `key` and `value` have the key-value heads; the
    result is (batch, rows, heads, head_dim).
    """
    batch, heads, rows, width = query.shape
    groups = key.shape[1]
    extras = any(kwargs.get(name) is not None for name in _OWN_BUSINESS)
    if rows != 1 or attention_mask is not None or heads == groups or extras:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return result
    packed = query.reshape(batch, groups, heads // groups, width)
    output = torch.nn.functional.scaled_dot_product_attention(packed, key, value, scale=scaling)
    return output.reshape(batch, heads, 1, value.shape[-1]).transpose(1, 2).contiguous(), None


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)


def grouping(model: Any) -> tuple[int, int, int] | None:
    """Query heads, key-value heads and head width, where packing applies to `model`.

    It does with sdpa and fewer key-value heads than query heads.
    """
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", None)
    groups = getattr(config, "num_key_value_heads", None)
    if not heads or not groups or heads == groups:
        return None
    if getattr(model.config, "_attn_implementation", "") not in ("sdpa", PACKED):
        return None
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads, groups, width


def use_packed_attention(model: Any) -> None:
    """Switch `model` to packed attention if that applies to it."""
    if grouping(model) is not None:
        model.set_attn_implementation(PACKED)
