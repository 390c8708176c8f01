"""How the ports compute: without gradient, in float32 to the last digit, wherever."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def exactly(device: torch.device) -> Iterator[None]:
    """Switch off what changes digits: autocast, and TF32 in the convolutions of a GPU, which torch has on by default.

    A result's key in the store does not name the device, so that a score must not depend on it either.
    """
    cudnn = torch.backends.cudnn
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    with (
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
        cudnn.flags(**kept, allow_tf32=False),
    ):
        yield
