"""Which rungs of the loading ladder to try for a model on this machine, and why not the rest."""

from dataclasses import dataclass, replace

from tui_chat.engine.base import LoadError
from tui_chat.engine.checkpoint import Checkpoint, as_gigabytes
from tui_chat.engine.hardware import (
    SMALL_PARAMETERS,
    Device,
    Fit,
    Hardware,
    estimate,
    weights_needed,
)
from tui_chat.types import ModelSpec, Precision

_GPU_RUNGS = (Precision.INT4, Precision.INT8, Precision.FP16)
_SMALLER_CPU_RUNGS = (Precision.INT8, Precision.INT4)
# Below this a CPU computes float32 faster than bfloat16, and the memory does not matter.
_FLOAT32_PARAMETERS = 50_000_000
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "num_routed_experts")
_NEEDS: dict[str, str] = {
    "awq": "gptqmodel",
    "gptq": "gptqmodel",
    "compressed-tensors": "compressed_tensors",
    "torchao": "torchao",
}
"""Packages that weights quantised in advance need, by their method."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: what would be tried, or the obstacle that keeps it from being tried."""

    precision: Precision
    device: str
    dtype: str
    """What is computed with: `bfloat16`, `float16`, `float32`; "auto" is as stored."""
    quantize: bool = False
    obstacle: str = ""
    needed_bytes: int = 0
    """What it takes: weights, KV cache and workspace, by the estimate."""
    is_short: bool = False
    """Whether the obstacle is that this is not free."""
    for_want_of_memory: bool = False
    """Tried only where the rung before it did not fit in memory."""


def needed_package(checkpoint: Checkpoint) -> str:
    """The module that must be importable to load weights quantised in advance, or ""."""
    if checkpoint.quantization.startswith("bitsandbytes"):
        return "bitsandbytes"
    return _NEEDS.get(checkpoint.quantization, "")


def plan_ladder(checkpoint: Checkpoint, spec: ModelSpec, hardware: Hardware) -> tuple[Step, ...]:
    """The rungs for `checkpoint` in the order to try them.

    Raises:
        LoadError: `spec` asks for a device or a precision that cannot be had.
    """
    device = hardware.find(spec.device)
    if device is None:
        names = ", ".join(found.name for found in (hardware.cpu, *hardware.gpus))
        raise LoadError(f"There is no device {spec.device!r} here; choose one of: auto, {names}.")
    if spec.precision is not None:
        return (_forced(checkpoint, spec, hardware, device),)
    window = spec.context_window or 0
    cpu = _on_cpu(checkpoint, hardware.cpu, window)
    if device.name == "cpu":
        asked = "The CPU was chosen with --device cpu."
        reason = asked if spec.device == "cpu" else "No GPU was found."
        above = tuple(Step(rung, "cpu", "", obstacle=reason) for rung in _GPU_RUNGS)
    else:
        above = tuple(_on_gpu(checkpoint, rung, device, window) for rung in _GPU_RUNGS)
    return (*above, *cpu)


def _forced(checkpoint: Checkpoint, spec: ModelSpec, hardware: Hardware, device: Device) -> Step:
    precision = spec.precision or Precision.CPU
    window = spec.context_window or 0
    if precision is Precision.CPU:
        if device.name != "cpu" and spec.device != "auto":
            raise LoadError(f"--precision cpu and --device {spec.device} contradict each other.")
        return _full_on_cpu(checkpoint, hardware.cpu, window)
    quantize = precision is not Precision.FP16
    if quantize and checkpoint.quantization:
        raise LoadError(
            f"{checkpoint.folder.name} is already quantised ({checkpoint.quantization});"
            " leave --precision out."
        )
    if quantize and device.name == "mps":
        raise LoadError(f"{precision} does not run on an Apple GPU; use --precision 16-bit.")
    if device.name == "cpu":
        if quantize:
            return _quantised_on_cpu(checkpoint, precision, device, window)
        step = Step(precision, "cpu", _dtype(checkpoint, device))
        return _measured(step, checkpoint, device, window)
    # The user may know better than an estimate of the GPU's memory.
    return Step(precision, device.name, _dtype(checkpoint, device), quantize)


def _on_gpu(checkpoint: Checkpoint, precision: Precision, device: Device, window: int) -> Step:
    obstacle = ""
    quantize = precision is not Precision.FP16
    if quantize and checkpoint.quantization:
        obstacle = f"The weights are already quantised ({checkpoint.quantization})."
    elif quantize and checkpoint.parameters < SMALL_PARAMETERS:
        size = as_gigabytes(weights_needed(checkpoint, Precision.FP16))
        obstacle = f"The whole model is {size}; quantising it would save next to nothing."
    elif quantize and device.name == "mps":
        obstacle = "bitsandbytes has no kernels of its own for Apple GPUs."
    step = Step(precision, device.name, _dtype(checkpoint, device), quantize, obstacle)
    return _measured(step, checkpoint, device, window)


def _on_cpu(checkpoint: Checkpoint, cpu: Device, window: int) -> tuple[Step, ...]:
    """16 bits, and fewer for the case that these do not fit; the last says what to do then."""
    full = _full_on_cpu(checkpoint, cpu, window)
    if checkpoint.quantization:
        return (full,)
    smaller = [
        replace(_quantised_on_cpu(checkpoint, rung, cpu, window), for_want_of_memory=True)
        for rung in _SMALLER_CPU_RUNGS
    ]
    return (full, *smaller)


def _full_on_cpu(checkpoint: Checkpoint, cpu: Device, window: int) -> Step:
    dtype = _dtype(checkpoint, cpu)
    if dtype == "bfloat16" and checkpoint.parameters < _FLOAT32_PARAMETERS:
        dtype = "float32"
    if checkpoint.dtype in ("F32", "F64"):
        dtype = "float32"
    return _measured(Step(Precision.CPU, "cpu", dtype), checkpoint, cpu, window)


def _quantised_on_cpu(
    checkpoint: Checkpoint, precision: Precision, cpu: Device, window: int
) -> Step:
    obstacle = ""
    if any(isinstance(checkpoint.text_config.get(name), int) for name in _EXPERTS):
        obstacle = "A mixture of experts is not quantised on a CPU."
    elif precision is Precision.INT4 and not checkpoint.whole_blocks:
        obstacle = "4-bit on a CPU needs matrices whose rows divide into blocks of 64."
    step = Step(precision, "cpu", "bfloat16", True, obstacle)
    return _measured(step, checkpoint, cpu, window)


def step_fit(step: Step, checkpoint: Checkpoint, device: Device, window: int) -> Fit:
    """What `step` needs on its `device`; the window as in `estimate`."""
    size = 4 if step.dtype == "float32" else 2
    return estimate(checkpoint, step.precision, device, window, element_bytes=size)


def _measured(step: Step, checkpoint: Checkpoint, device: Device, window: int) -> Step:
    """`step` with what it needs; an obstacle where that is more than is free."""
    fit = step_fit(step, checkpoint, device, window)
    if step.obstacle or not fit.shortage:
        return replace(step, needed_bytes=fit.needed_bytes)
    return replace(step, needed_bytes=fit.needed_bytes, obstacle=fit.shortage, is_short=True)


def _dtype(checkpoint: Checkpoint, device: Device) -> str:
    if checkpoint.quantization:
        return "auto"
    if device.name == "cpu":
        return "bfloat16"
    return "float16" if checkpoint.dtype == "F16" or not device.bfloat16 else "bfloat16"
