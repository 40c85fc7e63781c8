"""Memory of the device that holds the model: now, at its peak, and giving back what is unused."""

import contextlib
import gc
from pathlib import Path

import psutil
import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"
"""What Linux takes as the order to begin the peak of a process anew, see proc(5)."""


def device_memory(device: torch.device) -> tuple[int, int, int]:
    """What this process uses of the device's memory, what is free, and the total; in bytes."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return int(torch.cuda.memory_reserved(device)), int(free), int(total)
    machine = psutil.virtual_memory()
    if device.type == "mps":
        used = int(torch.mps.driver_allocated_memory())
        total = int(torch.mps.recommended_max_memory())
        return used, max(0, total - used), total
    return int(psutil.Process().memory_info().rss), int(machine.available), int(machine.total)


class PeakMemory:
    """The highest memory use since `reset`: of a CUDA device by torch, else of the process.

    Where the system does not keep the peak of a process, it is the use at the end.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_kept = False

    def reset(self) -> None:
        """Begin anew."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        self._is_kept = False
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
            self._is_kept = True

    def bytes(self) -> int:
        """The peak, in bytes."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        now = int(psutil.Process().memory_info().rss)
        return max(now, _kept_peak()) if self._is_kept else now


def free_unused() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _kept_peak() -> int:
    """The peak that Linux keeps of this process, in bytes; 0 where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
