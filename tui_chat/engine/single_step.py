"""The forward pass of one token, written out for decoders of the Llama kind.

The modules of transformers spend more time on calls than a small model computes. Here the same
operations follow each other in the same order, so that the logits are the same to the bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from tui_chat.engine.attention import PACKED
from tui_chat.engine.fusion import FUSE_BELOW_BYTES, Product, joint_product, product

KNOWN = frozenset(
    {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}
)


@dataclass(slots=True)
class _Layer:
    """What one decoder layer consists of."""

    input_norm: Tensor
    queries_keys_values: Product
    head_norm: Tensor | None
    """(heads + groups, 1, head_dim), where queries and keys are normalised too."""
    output: Product
    mlp_norm: Tensor
    gate_up: Product
    activation: Callable[[Tensor], Tensor]
    down: Product


class SingleStep:
    """One token through a model of `KNOWN`; make it by `single_step`."""

    def __init__(self, model: Any) -> None:
        """Take the tensors out of `model`; weights of one input are fused in small models."""
        config, decoder = model.config, model.model
        attention = decoder.layers[0].self_attn
        self._embeddings = decoder.embed_tokens.weight.detach()
        self._rotary = decoder.rotary_emb
        self._width = attention.head_dim
        self._heads = config.num_attention_heads
        self._groups = config.num_key_value_heads
        self._scaling = attention.scaling
        self._epsilon = config.rms_norm_eps
        self._packs = config._attn_implementation == PACKED
        fuse = sum(p.nbytes for p in decoder.layers.parameters()) < FUSE_BELOW_BYTES
        self._layers = [self._take(layer, fuse) for layer in decoder.layers]
        self._last_norm = decoder.norm.weight.detach()
        self._head = product(model.lm_head)

    def __call__(self, token_id: int, past_key_values: Any) -> Tensor:
        """Append `token_id` to the transformers cache; logits (1, vocabulary) that follow it."""
        heads, groups, width = self._heads, self._groups, self._width
        epsilon, rotated, half = self._epsilon, heads + groups, width // 2
        queries_shape = (1, groups, heads // groups, width) if self._packs else (1, heads, 1, width)
        enable_gqa = not self._packs and heads != groups
        states = self._embeddings.narrow(0, token_id, 1)
        position = torch.tensor([[past_key_values.get_seq_length()]])
        cosine, sine = self._rotary(states, position)
        # Half of the rotated states change sign; the factor does it for all heads at once.
        sine = torch.cat((-sine[..., :half], sine[..., half:]), -1)
        for layer, cached in zip(self._layers, past_key_values.layers, strict=True):
            normed = _rms_norm(states, layer.input_norm, epsilon)
            mixed = layer.queries_keys_values(normed).view(1, rotated + groups, 1, width)
            turning, values = mixed.split_with_sizes((rotated, groups), 1)
            if layer.head_norm is not None:
                turning = _rms_norm(turning, layer.head_norm, epsilon)
            turned = (turning * cosine).add_(turning.roll(half, -1).mul_(sine))
            queries, keys = turned.split_with_sizes((heads, groups), 1)
            keys, values = cached.update(keys, values)
            attended = scaled_dot_product_attention(
                queries.view(queries_shape),
                keys,
                values,
                scale=self._scaling,
                enable_gqa=enable_gqa,
            )
            states = states + layer.output(attended.reshape(1, heads * width))
            normed = _rms_norm(states, layer.mlp_norm, epsilon)
            gate, up = layer.gate_up(normed).chunk(2, -1)
            states = states + layer.down(layer.activation(gate) * up)
        return self._head(_rms_norm(states, self._last_norm, epsilon))

    def _take(self, layer: Any, fuse: bool) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        return _Layer(
            input_norm=layer.input_layernorm.weight.detach(),
            queries_keys_values=joint_product(projections, fuse=fuse),
            head_norm=self._head_norm(attention),
            output=product(attention.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight.detach(),
            gate_up=joint_product((mlp.gate_proj, mlp.up_proj), fuse=fuse),
            activation=silu if isinstance(mlp.act_fn, nn.SiLU) else mlp.act_fn,
            down=product(mlp.down_proj),
        )

    def _head_norm(self, attention: Any) -> Tensor | None:
        if not hasattr(attention, "q_norm"):
            return None
        queries = attention.q_norm.weight.detach().expand(self._heads, 1, -1)
        keys = attention.k_norm.weight.detach().expand(self._groups, 1, -1)
        return torch.cat((queries, keys))


def single_step(model: Any) -> SingleStep | None:
    """The written-out step of `model`; None if it is of another kind, or has hooks of others."""
    kind = type(model)
    if kind.__name__ not in KNOWN or not kind.__module__.startswith("transformers.models."):
        return None
    if model.config._attn_implementation not in ("sdpa", PACKED):
        return None
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return None
    if type(model.model.embed_tokens) is not nn.Embedding:
        return None
    return SingleStep(model)


def _rms_norm(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Rounded where the modules of transformers round, which torch's own does not."""
    wide = states.float()
    variance = wide.pow(2).mean(-1, keepdim=True)
    return weight * (wide * torch.rsqrt(variance + epsilon)).to(states.dtype)
