"""Devices and their memory, what a model needs at each precision, and what fits where."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tui_chat.engine.checkpoint import Checkpoint, as_gigabytes
from tui_chat.types import Precision

# nf4 with double quantisation: half a byte, the scales, and padding; measured 0.55 to 0.6.
_NF4_BYTES = 0.58
_INT8_BYTES = 1.05
_GPU_OVERHEAD_BYTES = 600_000_000
"""CUDA context, kernels and workspaces, beside weights and cache."""
_QUANTISING_BYTES = 200_000_000
"""One layer more than there is, while the weights are quantised on a CPU."""
_ROOM_TOKENS = 4096
"""Tokens of the KV cache that must fit for a model to be worth loading."""
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


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model needs at one precision on one device, and what there is; in bytes."""

    needed_bytes: int
    free_bytes: int
    shortage: str
    """One sentence where less is free than is needed, else an empty text."""


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


def cpu_device(cgroup: Path = Path("/sys/fs/cgroup")) -> Device:
    """The machine's memory, or what a container's limit in `cgroup` leaves of it."""
    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    limit, used = _number_in(cgroup / "memory.max"), _number_in(cgroup / "memory.current")
    if limit is not None and used is not None and limit < total:
        free, total = min(free, max(0, limit - used)), limit
    return Device("cpu", "CPU", free, total)


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text().strip())
    except (OSError, ValueError):
        return None


def kv_bytes_per_token(config: Mapping[str, Any], element_bytes: int = 2) -> int:
    """Bytes that one token adds to the KV cache, all layers; 0 where the config does not say.

    Sliding-window and recurrent layers are counted in full, so it is an upper bound for them.
    """
    layers = _whole(config, "num_hidden_layers", "n_layer", "num_layers")
    heads = _whole(config, "num_attention_heads", "n_head")
    kv_heads = _whole(config, "num_key_value_heads", "multi_query_group_num") or heads
    hidden = _whole(config, "hidden_size", "n_embd", "d_model")
    head_dim = _whole(config, "head_dim") or (hidden // heads if heads else 0)
    return 2 * layers * kv_heads * head_dim * element_bytes


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


def estimate(checkpoint: Checkpoint, precision: Precision, device: Device, window: int = 0) -> Fit:
    """What `checkpoint` needs on `device`: weights, KV cache of `window`, workspace.

    A window of 0 stands for the model's own, of which 4,096 tokens must have room.
    """
    config = checkpoint.text_config
    tokens = window or _ROOM_TOKENS
    tokens = min(tokens, _whole(config, "max_position_embeddings") or tokens)
    needed = weights_needed(checkpoint, precision) + tokens * kv_bytes_per_token(config)
    if device.name != "cpu":
        needed += _GPU_OVERHEAD_BYTES
    elif precision in (Precision.INT4, Precision.INT8):
        needed += _QUANTISING_BYTES
    kind = "The model" if precision is Precision.CPU else precision.value
    where = "memory" if device.name == "cpu" else device.name
    shortage = (
        f"{kind} needs about {as_gigabytes(needed)} but only"
        f" {as_gigabytes(device.free_bytes)} is free in {where}."
    )
    return Fit(needed, device.free_bytes, "" if needed <= device.free_bytes else shortage)
