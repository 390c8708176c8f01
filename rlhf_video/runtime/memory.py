"""Peak memory of a piece of work: CUDA's allocator on a GPU, resident memory on a CPU."""

import contextlib
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_LINUX_STATUS = Path("/proc/self/status")
_LINUX_CLEAR = Path("/proc/self/clear_refs")


@dataclass
class Peak:
    """Memory of one measured block, in bytes; filled when the block ends."""

    before: int = 0
    """In use when the block began."""
    peak: int = 0
    """Most in use inside the block."""

    @property
    def increase(self) -> int:
        """How far the block went above what was in use before it."""
        return max(self.peak - self.before, 0)


def peak_memory(device: torch.device | str) -> int:
    """Return the peak memory since the last reset (CUDA), or the peak resident memory of the process, in bytes."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    high_water = _linux_status("VmHWM")
    if high_water is not None:
        return high_water
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS


@contextlib.contextmanager
def measure_peak(device: torch.device | str = "cpu") -> Iterator[Peak]:
    """Measure the peak memory of a block.

    On Linux the kernel's high-water mark is reset first; elsewhere on a CPU the peak is that of the whole process so
    far, so measure the largest block first or in a process of its own. Resident memory counts what the allocator keeps
    for reuse: a second, equal block may show a smaller increase than the first.

    Args:
        device: Whose memory to read.

    Yields:
        A `Peak` that is filled when the block ends.
    """
    device, measured = torch.device(device), Peak()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        measured.before = torch.cuda.memory_allocated(device)
    else:
        with contextlib.suppress(OSError):  # not Linux, or a container that forbids it
            _LINUX_CLEAR.write_text("5")  # 5 resets VmHWM, man 5 proc
        measured.before = _linux_status("VmRSS") or peak_memory(device)
    try:
        yield measured
    finally:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        measured.peak = peak_memory(device)


def _linux_status(key: str) -> int | None:
    """Return one memory line of /proc/self/status in bytes, or None where there is no such file or line."""
    if not _LINUX_STATUS.exists():
        return None
    for line in _LINUX_STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None
