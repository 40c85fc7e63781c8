"""Writes a model of the Llama or Qwen2 shape as GGUF, for llama.cpp; ids only, no vocabulary."""

from pathlib import Path
from typing import Any

from tui_chat.bench.harness import BenchError
from tui_chat.engine.base import LoadError
from tui_chat.engine.checkpoint import read_json

TYPES = ("llama", "qwen2")
_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TOP = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write_gguf(folder: Path, path: Path) -> None:
    """Write the weights in `folder` (config.json, safetensors) to `path`, in their own type.

    Raises:
        BenchError: the model has another shape, or its files cannot be read.
    """
    import gguf
    from safetensors import safe_open

    try:
        config = read_json(folder / "config.json")
    except LoadError as error:
        raise BenchError(str(error)) from None
    rope = config.get("rope_parameters") or {}
    if config["model_type"] not in TYPES or rope.get("rope_type", "default") != "default":
        raise BenchError(f"The converter for llama.cpp knows only plain {' and '.join(TYPES)}.")
    files = sorted(folder.glob("*.safetensors"))
    # Biases on queries, keys and values are what sets Qwen2 apart.
    biased = config["model_type"] == "qwen2" or bool(config.get("attention_bias"))
    writer = gguf.GGUFWriter(path, "qwen2" if biased else "llama")
    _write_facts(writer, config, rope)
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                _add(writer, name, tensors.get_tensor(name), config, biased=biased)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_facts(writer: Any, config: dict[str, Any], rope: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")


def _add(writer: Any, name: str, tensor: Any, config: dict[str, Any], *, biased: bool) -> None:
    import gguf
    import torch

    stem, _, kind = name.rpartition(".")
    if stem in _TOP:
        target = _TOP[stem]
    else:
        _, _, number, part = stem.split(".", 3)
        target = f"blk.{number}.{_LAYER[part]}"
        if kind == "bias" and part == "self_attn.o_proj":
            if bool(tensor.any()):
                raise BenchError("The converter for llama.cpp knows no bias on the output.")
            return
        if not biased and part in ("self_attn.q_proj", "self_attn.k_proj"):
            heads = config["num_attention_heads"]
            if part == "self_attn.k_proj":
                heads = config.get("num_key_value_heads") or heads
            tensor = _interleaved(tensor, heads)
    target = f"{target}.{kind}"
    if tensor.dim() == 1 or tensor.dtype != torch.bfloat16:
        writer.add_tensor(target, tensor.float().contiguous().numpy())
        return
    raw = tensor.contiguous().view(torch.uint8).numpy()
    writer.add_tensor(target, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)


def _interleaved(tensor: Any, heads: int) -> Any:
    """Rows in the order of llama.cpp's "llama", which turns neighbours instead of halves."""
    rows, width = tensor.shape
    return tensor.view(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width)
