"""Which rungs of the loading ladder to try for a model on this machine, and why not the rest."""

from dataclasses import dataclass

from tui_chat.engine.base import LoadError
from tui_chat.engine.checkpoint import Checkpoint, as_gigabytes
from tui_chat.engine.hardware import (
    SMALL_PARAMETERS,
    Device,
    Hardware,
    estimate,
    weights_needed,
)
from tui_chat.types import ModelSpec, Precision

_GPU_RUNGS = (Precision.INT4, Precision.INT8, Precision.FP16)
# Below this a CPU computes float32 faster than bfloat16, and the memory does not matter.
_FLOAT32_PARAMETERS = 50_000_000
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
    cpu = _on_cpu(checkpoint, hardware.cpu)
    if device.name == "cpu":
        asked = "The CPU was chosen with --device cpu."
        reason = asked if spec.device == "cpu" else "No GPU was found."
        fallen = tuple(Step(rung, "cpu", "", obstacle=reason) for rung in _GPU_RUNGS)
        return (*fallen, cpu)
    window = spec.context_window or 0
    return (*(_on_gpu(checkpoint, rung, device, window) for rung in _GPU_RUNGS), cpu)


def _forced(checkpoint: Checkpoint, spec: ModelSpec, hardware: Hardware, device: Device) -> Step:
    precision = spec.precision or Precision.CPU
    if precision is Precision.CPU:
        if device.name != "cpu" and spec.device != "auto":
            raise LoadError(f"--precision cpu and --device {spec.device} contradict each other.")
        return _on_cpu(checkpoint, hardware.cpu)
    quantize = precision is not Precision.FP16
    if quantize and checkpoint.quantization:
        raise LoadError(
            f"{checkpoint.folder.name} is already quantised ({checkpoint.quantization});"
            " leave --precision out."
        )
    if quantize and device.name == "mps":
        raise LoadError(f"{precision} does not run on an Apple GPU; use --precision 16-bit.")
    obstacle = _too_large(checkpoint, precision, device) if device.name == "cpu" else ""
    return Step(precision, device.name, _dtype(checkpoint, device), quantize, obstacle)


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
    elif not (fit := estimate(checkpoint, precision, device, window)).fits:
        obstacle = fit.sentence
    return Step(precision, device.name, _dtype(checkpoint, device), quantize, obstacle)


def _on_cpu(checkpoint: Checkpoint, cpu: Device) -> Step:
    dtype = _dtype(checkpoint, cpu)
    if dtype == "bfloat16" and checkpoint.parameters < _FLOAT32_PARAMETERS:
        dtype = "float32"
    if checkpoint.dtype in ("F32", "F64"):
        dtype = "float32"
    obstacle = _too_large(checkpoint, Precision.CPU, cpu)
    return Step(Precision.CPU, "cpu", dtype, obstacle=obstacle)


def _too_large(checkpoint: Checkpoint, precision: Precision, cpu: Device) -> str:
    needed = weights_needed(checkpoint, precision)
    if needed <= cpu.free_bytes:
        return ""
    advice = "choose a smaller model"
    if precision is not Precision.INT4 and not checkpoint.quantization:
        advice += " or --precision 4-bit"
    return (
        f"The weights need {as_gigabytes(needed)} of memory but only"
        f" {as_gigabytes(cpu.free_bytes)} is free; {advice}."
    )


def _dtype(checkpoint: Checkpoint, device: Device) -> str:
    if checkpoint.quantization:
        return "auto"
    if device.name == "cpu":
        return "bfloat16"
    return "float16" if checkpoint.dtype == "F16" or not device.bfloat16 else "bfloat16"
