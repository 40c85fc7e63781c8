"""Attention of one query over a cache that is only partly used, in forms a CUDA graph can hold.

transformers' own way builds a mask over the whole cache for such a step; with a mask torch
neither takes flash attention nor splits the context over the processors of the GPU.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

USED_LENGTH = "used_length"
"""Its name may not hold "flash": transformers would look for a package or a kernel to load."""
SPLIT_KV = "split_kv"
STOCK = "sdpa"
SPLITS = 16
"""Parts of the context that are summed side by side; divides every capacity of a cache."""
FLASH_CAPABILITY = (8, 0)
FLASH_HEAD_DIM = 256


def used_length_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """For one query over a cache with its length on the device: the number of valid keys.

    An int32 tensor (1,) that travels in the mask's place; the usual mask for several queries.
    """
    offset = kwargs.get("q_offset")
    if kwargs.get("q_length") != 1 or not isinstance(offset, Tensor):
        mask: Tensor | None = sdpa_mask(*args, **kwargs)
        return mask
    return (offset + 1).to(torch.int32).view(1)


def attend_to_used(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Flash attention that reads the used length on the device, and no key behind it.

    For grouped queries it splits the context (flash decoding); parts that are not used return
    at once. Shapes as in transformers: `query` (1, heads, rows, head_dim), the result
    (1, rows, heads, head_dim). Off CUDA the same sum is taken by `split_kv`.
    """
    used = attention_mask
    if query.shape[2] != 1 or used is None or used.dim() != 1:
        return _stock(module, query, key, value, used, dropout, scaling, **kwargs)
    capacity = key.shape[2]
    if not query.is_cuda:
        valid = (torch.arange(capacity, device=query.device) < used).view(1, 1, 1, capacity)
        return split_kv(module, query, key, value, valid, scaling=scaling)
    output: Tensor = torch.ops.aten._flash_attention_forward(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        _ends(1, query.device),
        _ends(capacity, query.device),
        1,
        capacity,
        0.0,
        False,
        False,
        scale=scaling,
        seqused_k=used,
    )[0]
    return output.unsqueeze(0), None


def split_kv(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The same in plain torch: products over the key-value heads, the values in parts.

    Reads each key and value of the whole cache once. Any dtype; shapes as in `attend_to_used`, and
    `attention_mask` (1, 1, 1, capacity) true where a key is valid.
    """
    rows, capacity = query.shape[2], key.shape[2]
    if rows != 1 or attention_mask is None or capacity % SPLITS:
        return _stock(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    heads, groups, width = query.shape[1], key.shape[1], value.shape[3]
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    packed = query.view(groups, heads // groups, query.shape[3])
    scores = torch.matmul(packed, key[0].transpose(1, 2)).float() * scale
    scores = scores.masked_fill(~attention_mask.view(1, 1, capacity), float("-inf"))
    shares = scores.softmax(-1).to(value.dtype)
    parts = torch.matmul(
        shares.view(groups, heads // groups, SPLITS, -1).transpose(1, 2),
        value[0].view(groups, SPLITS, -1, width),
    )
    output = parts.sum(1, dtype=torch.float32).to(query.dtype)
    return output.view(1, 1, heads, width), None


def _stock(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    result: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return result


_known_ends: dict[tuple[int, torch.device], Tensor] = {}


def _ends(tokens: int, device: torch.device) -> Tensor:
    """Where one sequence of `tokens` begins and ends; made before a capture, as none may copy."""
    if (tokens, device) not in _known_ends:
        _known_ends[tokens, device] = torch.tensor([0, tokens], dtype=torch.int32, device=device)
    return _known_ends[tokens, device]


AttentionInterface.register(USED_LENGTH, attend_to_used)
AttentionMaskInterface.register(USED_LENGTH, used_length_mask)
AttentionInterface.register(SPLIT_KV, split_kv)
AttentionMaskInterface.register(SPLIT_KV, sdpa_mask)


def attentions(model: Any) -> tuple[str, ...]:
    """The ways to attend that may work for `model`, the fastest first."""
    stock = str(model.config._attn_implementation)
    if stock != STOCK:
        return (stock,)
    return (USED_LENGTH, SPLIT_KV, STOCK) if _can_flash(model) else (SPLIT_KV, STOCK)


def follows_use(attention: str) -> bool:
    """Whether a step with `attention` costs what is used of the cache, not its capacity."""
    return attention == USED_LENGTH


def _can_flash(model: Any) -> bool:
    """Whether flash attention takes the heads of `model`, and splits the context for them.

    It does not split where every query head has keys of its own; 32 blocks would then do the
    work of a card with more than a hundred processors.
    """
    device = torch.device(model.device)
    if device.type != "cuda" or model.dtype not in (torch.bfloat16, torch.float16):
        return False
    config = model.config.get_text_config(decoder=True)
    heads, groups = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return (
        torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY
        and groups is not None
        and groups < heads
        and width <= FLASH_HEAD_DIM
        and width % 8 == 0
    )
