"""What several metrics do with frames before they measure."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.base import DecodedClip, SkipClipError
from rewards.sharpness import LUMA
from rlhf_video.errors import ConfigError

Device = Literal["auto", "cpu", "cuda"]
"""Where a metric with weights computes; auto takes a GPU where there is one."""

_FRAMES_PER_PASS = 16


def pick_device(device: Device) -> torch.device:
    """Return the device that an option names.

    Raises:
        ConfigError: Unknown name, or a GPU that is not there.
    """
    if device not in get_args(Device):
        raise ConfigError(f"Unknown device {device!r}. Known: {', '.join(get_args(Device))}.")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("This machine has no CUDA device: set the metric's device to auto or cpu.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def luma(frames: Tensor) -> Tensor:
    """Return luma (ITU-R BT.601 weights on RGB) of 8-bit frames in [0, 1].

    Args:
        frames: uint8, (frames, 3, height, width).

    Returns:
        float32, (frames, height, width).
    """
    red, green, blue = (weight / 255.0 for weight in LUMA)
    planes = frames[:, 0].to(torch.float32).mul_(red)  # in place: a third of the time for large frames
    return planes.add_(frames[:, 1], alpha=green).add_(frames[:, 2], alpha=blue)


def luma_of(clip: DecodedClip) -> Tensor:
    """Return `luma` of a whole clip, made once for all metrics: float32, (frames, height, width)."""
    return clip.once(luma, lambda: per_frame(luma, clip.frames))


def neighbour_distances(clip: DecodedClip) -> Tensor:
    """Return the mean absolute difference of each frame and the next, made once for all metrics.

    Returns:
        float64, (frames - 1,), in 8-bit levels; the sums are exact.
    """
    return clip.once(mean_distance, lambda: mean_distance(clip.frames[:-1], clip.frames[1:]))


def mean_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean absolute difference of 8-bit frames, each (n, 3, height, width): float64, (n,), in levels."""
    count = first.shape[1:].numel()
    whole = torch.int32 if 255 * count < 2**31 else torch.int64  # exact, and the narrow one in half the time
    sums = torch.zeros(len(first), dtype=torch.float64, device=first.device)
    for number, (former, latter) in enumerate(zip(first, second, strict=True)):
        sums[number] = (torch.maximum(former, latter) - torch.minimum(former, latter)).sum(dtype=whole)  # in uint8
    return sums / count


def per_frame(function: Callable[..., Tensor], *frames: Tensor, size: int = _FRAMES_PER_PASS) -> Tensor:
    """Apply a function to a few frames at a time and join the results: memory stays that of `size` frames.

    Args:
        function: Maps slices of `frames` to a tensor with the same first axis, row by row.
        *frames: Tensors with a common first axis.
        size: Rows at a time.
    """
    starts = range(0, len(frames[0]), size)
    return torch.cat([function(*(tensor[start : start + size] for tensor in frames)) for start in starts])


def shrink(planes: Tensor, side: int) -> Tensor:
    """Average planes (n, height, width) down to at most side x side; averages never move further apart than pixels."""
    size = (min(side, planes.shape[-2]), min(side, planes.shape[-1]))
    return functional.adaptive_avg_pool2d(planes[:, None], size)[:, 0]


def need_frames(clip: DecodedClip, fewest: int, purpose: str) -> None:
    """Skip a clip that is too short to measure.

    Raises:
        SkipClipError: The clip has fewer than `fewest` frames.
    """
    if len(clip.frames) < fewest:
        raise SkipClipError(f"{purpose} needs {fewest} frames, the clip has {len(clip.frames)}")
