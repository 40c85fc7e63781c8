"""Devices and their memory, what a model needs at each precision, and what fits where."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from tui_chat.engine.checkpoint import Checkpoint, as_gigabytes
from tui_chat.types import MemoryUse, Precision

# nf4 with double quantisation: half a byte, the scales, and padding; measured 0.55 to 0.6.
_NF4_BYTES = 0.58
_INT8_BYTES = 1.05
_GPU_OVERHEAD_BYTES = 600_000_000
"""CUDA context, kernels and workspaces, beside weights and cache."""
_QUANTISING_BYTES = 200_000_000
"""One layer more than there is, while the weights are quantised on a CPU."""
_ROOM_TOKENS = 4096
"""Tokens of the KV cache that must fit for a model to be worth loading."""
_WITHOUT_KEYS = ("linear_attention", "conv", "mamba", "recurrent", "moe", "mlp")
"""Kinds of layers that keep a state of one size, or nothing, however long the prompt is."""
_FULL_LAYER_EVERY = {"gemma2": 2, "gpt_oss": 2, "cohere2": 4, "gemma3": 6, "gemma3_text": 6}
"""Families whose config may leave out which layers attend to everything: every so-manieth."""
_SLIDING_FAMILIES = ("mistral", "mixtral", "phi3", "starcoder2")
"""Families all of whose layers slide where the config names a window."""
_GPU_NODES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""One of these is there where torch could find a GPU on Linux."""
SMALL_PARAMETERS = 100_000_000
"""Below this, quantising saves too little memory to pay for itself."""


@dataclass(frozen=True, slots=True)
class Device:
    """A place that can hold a model; memory in bytes."""

    name: str
    """`cpu`, `cuda:0`, `mps`."""
    label: str
    """What it calls itself."""
    free_bytes: int
    total_bytes: int
    bfloat16: bool = True
    """Whether it computes bfloat16 itself."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine: its memory and its GPUs, the one with the most free memory first."""

    cpu: Device
    gpus: tuple[Device, ...] = ()

    def find(self, name: str) -> Device | None:
        """The device called `name`; `cuda` is the first CUDA device, `auto` the best of all."""
        if name == "auto":
            return self.gpus[0] if self.gpus else self.cpu
        for device in (self.cpu, *self.gpus):
            if device.name == name or device.name.split(":")[0] == name:
                return device
        return None

    def after_freeing(self, name: str, memory: MemoryUse) -> "Hardware":
        """The machine as it will be once the model in `memory` of the device `name` is freed.

        On a CPU only what no file backs counts: weights that are mapped count as free already.
        """

        def freed(device: Device) -> Device:
            if device.name != name:
                return device
            held = memory.used_bytes
            if name == "cpu":
                held = min(_unmapped_bytes(), memory.weights_bytes + memory.cache_bytes)
            return replace(device, free_bytes=min(device.total_bytes, device.free_bytes + held))

        return Hardware(freed(self.cpu), tuple(map(freed, self.gpus)))


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model needs at one precision on one device, and what there is; in bytes."""

    weights_bytes: int
    cache_bytes: int
    """The KV cache of `cache_tokens`."""
    workspace_bytes: int
    free_bytes: int
    shortage: str
    """One sentence where less is free than is needed, else an empty text."""
    cache_tokens: int = 0

    @property
    def needed_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.cache_bytes + self.workspace_bytes


def detect_hardware() -> Hardware:
    """The devices of this machine as they are now. Imports torch to ask for GPUs."""
    import torch  # deferred: everything else here serves the model screen without torch

    gpus: list[Device] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            newer = torch.version.hip is not None or torch.cuda.get_device_capability(index)[0] >= 8
            gpus.append(Device(f"cuda:{index}", name, free, total, bfloat16=newer))
    elif torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory()
        free = min(total - torch.mps.driver_allocated_memory(), psutil.virtual_memory().available)
        gpus.append(Device("mps", "Apple GPU", max(0, free), total))
    gpus.sort(key=lambda device: -device.free_bytes)
    return Hardware(cpu_device(), tuple(gpus))


def known_hardware() -> Hardware | None:
    """The devices, as far as they are known without importing torch; None where they are not."""
    if "torch" in sys.modules:
        return detect_hardware()
    if sys.platform == "linux" and not any(Path(node).exists() for node in _GPU_NODES):
        return Hardware(cpu_device())
    return None


def cpu_device(cgroup: Path = Path("/sys/fs/cgroup")) -> Device:
    """The machine's memory, or what a container's limit in `cgroup` leaves of it."""
    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    limit, used = _number_in(cgroup / "memory.max"), _number_in(cgroup / "memory.current")
    if limit is not None and used is not None and limit < total:
        free, total = min(free, max(0, limit - used)), limit
    return Device("cpu", "CPU", free, total)


def _unmapped_bytes() -> int:
    """Memory of this process that would be free without it; 0 where the system does not tell."""
    memory = psutil.Process().memory_info()
    return max(0, memory.rss - getattr(memory, "shared", memory.rss))


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def kv_bytes_per_token(config: Mapping[str, Any], element_bytes: int = 2) -> int:
    """Bytes that one token adds to the KV cache, all layers; 0 where the config does not say.

    Sliding-window and recurrent layers are counted in full, so it is an upper bound for them.
    """
    return _layers(config) * _layer_bytes_per_token(config, element_bytes)


def kv_cache_bytes(config: Mapping[str, Any], tokens: int, element_bytes: int = 2) -> int:
    """Bytes of the KV cache of `tokens`; 0 where the config does not say.

    A sliding-window layer keeps its window at most, a recurrent or convolution layer no keys.
    Layers of unknown kind are counted in full.
    """
    held = sum(_tokens_kept(config, kind, tokens) for kind in _layer_kinds(config))
    return held * _layer_bytes_per_token(config, element_bytes)


def model_window(config: Mapping[str, Any]) -> int:
    """Tokens that the model can hold; 0 where the config does not say."""
    return _whole(config, "max_position_embeddings", "n_positions")


def _layers(config: Mapping[str, Any]) -> int:
    return _whole(config, "num_hidden_layers", "n_layer", "num_layers")


def _layer_bytes_per_token(config: Mapping[str, Any], element_bytes: int) -> int:
    heads = _whole(config, "num_attention_heads", "n_head")
    kv_heads = _whole(config, "num_key_value_heads", "multi_query_group_num") or heads
    hidden = _whole(config, "hidden_size", "n_embd", "d_model")
    head_dim = _whole(config, "head_dim") or (hidden // heads if heads else 0)
    return 2 * kv_heads * head_dim * element_bytes


def _layer_kinds(config: Mapping[str, Any]) -> Sequence[str]:
    """The kind of each layer in transformers' words, as far as the config or the family tells."""
    layers, family = _layers(config), config.get("model_type")
    listed = config.get("layer_types")
    if isinstance(listed, list) and len(listed) == layers:
        return [str(kind) for kind in listed]
    every = _whole(config, "sliding_window_pattern") or _FULL_LAYER_EVERY.get(str(family), 0)
    other = "sliding_attention"
    if family == "qwen3_next":
        every, other = _whole(config, "full_attention_interval") or 4, "linear_attention"
    if every:
        return ["full_attention" if at % every == 0 else other for at in range(1, layers + 1)]
    return ["sliding_attention" if family in _SLIDING_FAMILIES else "full_attention"] * layers


def _tokens_kept(config: Mapping[str, Any], kind: str, tokens: int) -> int:
    """How many of `tokens` a layer of this kind keeps."""
    if kind in _WITHOUT_KEYS:
        return 0
    limits = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    window = _whole(config, limits[kind]) if kind in limits else 0
    return min(tokens, window or tokens)


def _whole(config: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0


def weights_needed(checkpoint: Checkpoint, precision: Precision) -> int:
    """Bytes that the weights take in memory at `precision`; as stored if already quantised."""
    if checkpoint.quantization:
        return checkpoint.weights_bytes
    embeddings = 2 * checkpoint.embedding_parameters
    linear = checkpoint.parameters - checkpoint.embedding_parameters
    match precision:
        case Precision.INT4:
            return int(linear * _NF4_BYTES) + embeddings
        case Precision.INT8:
            return int(linear * _INT8_BYTES) + embeddings
        case Precision.FP16:
            return 2 * checkpoint.parameters
        case Precision.CPU:
            return checkpoint.weights_bytes


def estimate(
    checkpoint: Checkpoint,
    precision: Precision,
    device: Device,
    window: int = 0,
    *,
    element_bytes: int = 2,
) -> Fit:
    """What `checkpoint` needs on `device`: weights, KV cache of `window`, workspace.

    A window of 0 stands for the model's own, of which 4,096 tokens must have room.
    `element_bytes` is the size of the numbers that are computed with.
    """
    config = checkpoint.text_config
    tokens = window or _ROOM_TOKENS
    tokens = min(tokens, model_window(config) or tokens)
    weights = weights_needed(checkpoint, precision)
    if precision is Precision.CPU and not checkpoint.quantization:
        weights = max(weights, checkpoint.parameters * element_bytes)
    cache = kv_cache_bytes(config, tokens, element_bytes)
    workspace = 0
    if device.name != "cpu":
        workspace = _GPU_OVERHEAD_BYTES
    elif precision in (Precision.INT4, Precision.INT8):
        workspace = _QUANTISING_BYTES
    needed = weights + cache + workspace
    kind = "The model" if precision is Precision.CPU else precision.value
    where = "memory" if device.name == "cpu" else device.name
    shortage = (
        f"{kind} needs about {as_gigabytes(needed)} but only"
        f" {as_gigabytes(device.free_bytes)} is free in {where}."
    )
    shortage = "" if needed <= device.free_bytes else shortage
    return Fit(weights, cache, workspace, device.free_bytes, shortage, tokens)
