"""Which attention back-ends can train on a machine, and why the others cannot."""

import torch

from rlhf_video.attention.box_windows import Local
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.windowed import BACKENDS

_GRID = Grid(2, 16, 16)
_WINDOW = Local((2, 8, 8))
"""Every back-end has this window, so that a refusal is about the machine."""


def backend_reasons(device: torch.device) -> dict[str, str | None]:
    """Ask every back-end for a small window and its gradient, in the type that trains on the device.

    Args:
        device: bfloat16 is asked for on CUDA, float32 elsewhere, with heads of 64 channels.

    Returns:
        Name -> None where it can, else the reason.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    query = torch.zeros(1, _GRID.num_tokens, 1, 64, device=device, dtype=dtype)
    problem = Problem(_GRID, _WINDOW, None, query.shape[-1] ** -0.5, needs_backward=True)
    return {name: backend.unsuitable(query, problem) for name, backend in BACKENDS.items()}
