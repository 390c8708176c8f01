"""What attention_speed.py and attention_step.py share: turns, memory, hardware, sections of a Markdown file.

Contestants take turns (A, B, A, B, ...), so a busy machine or a falling clock meets all of them alike. A CPU with one
thread is timed by the process's own time, and the fastest round counts; a GPU by CUDA events after its L2 cache was
overwritten, and the median counts.
"""

import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

Call = Callable[[], object]


def take_turns(
    calls: Mapping[str, Call], device: torch.device, *, rounds: int, warm_ups: int
) -> dict[str, list[float]]:
    """Run every call once per round and return each one's milliseconds, after rounds that do not count."""
    for _ in range(warm_ups):
        for call in calls.values():
            call()
    if device.type == "cuda":
        return _on_gpu(calls, device, rounds)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            samples[name].append(1e3 * (clock() - start))
    return samples


def _on_gpu(calls: Mapping[str, Call], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Queue all rounds between pairs of events and read the events at the end, so that no launch waits for a result."""
    cache = torch.empty(2 * torch.cuda.get_device_properties(device).L2_cache_size, dtype=torch.int8, device=device)
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            cache.zero_()
            start.record()
            call()
            end.record()
            events[name].append((start, end))
    torch.cuda.synchronize(device)
    return {name: [start.elapsed_time(end) for start, end in pairs] for name, pairs in events.items()}


def typical(samples: Sequence[float], device: torch.device) -> float:
    """Return the number that stands for all rounds: the fastest on a CPU, the median on a GPU."""
    return min(samples) if device.type == "cpu" else statistics.median(samples)


def eta(speed_up: float, density: float) -> float:
    """Return the share of the arithmetic's ideal that is realised: speed-up over dense / (1 / density)."""
    return speed_up * density


def amdahl(step: float, dense_ops: float, plan_ops: float) -> float:
    """Return the speed-up of a whole step in which only the attention's time changes, from `dense_ops` to `plan_ops`.

    Args:
        step: Time of the dense step, in any unit.
        dense_ops: Time of all self-attention calls inside it, alone.
        plan_ops: The same for the plan.
    """
    return step / (step - dense_ops + plan_ops)


def saved_bytes(call: Callable[[], Tensor]) -> int:
    """Return the bytes that the call's output keeps for its backward pass, each storage counted once."""
    storages: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = (storage.nbytes(), tensor)  # holding it keeps its address from being used again
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        call()
    return sum(size for size, _ in storages.values())


def peak_bytes(call: Call, device: torch.device) -> int | None:
    """Return how far one call goes above what was allocated before it, or None where there is no such counter."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def hardware(device: torch.device) -> str:
    """Return device and versions in one sentence."""
    versions = f"torch {torch.__version__}, Python {platform.python_version()}"
    if device.type == "cuda" and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(device)}, {versions}; {clocks()}"
    if device.type == "cuda":
        return f"No GPU, {versions}"
    capability = torch.backends.cpu.get_cpu_capability()
    return f"CPU, {torch.get_num_threads()} thread(s), {platform.machine()} with {capability}, {versions}"


def clocks() -> str:
    """Return driver, clocks and power of the first GPU as nvidia-smi tells them now."""
    fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "clocks not known (no nvidia-smi)"
    names = ("driver", "SM", "memory", "SM at most", "power", "power limit", "degrees C")
    return ", ".join(f"{name} {value.strip()}" for name, value in zip(names, answer.split(","), strict=True))


def write_section(path: Path, name: str, text: str) -> None:
    """Put a text between the file's marks of that name; a file without them gets marks and text at its end."""
    first, last = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before = path.read_text() if path.exists() else ""
    section = f"{first}\n\n{text.strip()}\n\n{last}"
    pattern = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    if pattern.search(before):
        path.write_text(pattern.sub(lambda _: section, before, count=1))
    else:
        path.write_text(f"{before.rstrip()}\n\n{section}\n".lstrip())


class Reasons:
    """Numbers the reasons why cells are empty, the same reason once."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cell(self, reason: str) -> str:
        """Return what stands in the cell."""
        return f"not measured ({self._numbers.setdefault(reason, len(self._numbers) + 1)})"

    def __str__(self) -> str:
        """Return the list that belongs under the table."""
        return "\n".join(f"({number}) {reason}  " for reason, number in self._numbers.items())
