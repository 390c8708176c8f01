"""The one check of what a reward is given, and the precision that it scores in."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rewards.errors import RewardError

Precision = Literal["float32", "bfloat16"]
"""What a tower multiplies in; heads and cosines are float32 whatever it is."""

RANGE_TOLERANCE = 1e-3
"""Pixels may leave [0, 1] by this much: rounding of half-precision decoders, not another convention."""


@dataclass(frozen=True)
class CheckedClips:
    """Clips that may be scored."""

    video: Tensor
    """(batch, frames, 3, height, width) in float32 (float64 stays); clips that cannot be scored are zeroed."""
    valid: Tensor
    """(batch,), bool."""
    reasons: tuple[str | None, ...]
    """Per clip: why not, None where valid."""


def check_clips(video: Tensor, prompts: Sequence[str], *, fps: float, min_frames: int = 1) -> CheckedClips:
    """Check a batch and lift it to the scoring precision.

    Args:
        video: (batch, frames, 3, height, width), RGB, float, in [0, 1].
        prompts: One per clip.
        fps: Frames per second, > 0.
        min_frames: Fewest frames that the reward can work with.

    Returns:
        The clips in float32 (float64 is kept for gradient checks). A clip with NaN or infinite pixels is not valid.

    Raises:
        RewardError: Wrong shape, dtype, channel count, value range, fps, number of prompts or of frames.
    """
    if video.ndim != 5:
        raise RewardError(
            f"A reward needs video of shape (batch, frames, channels, height, width), got {tuple(video.shape)}."
        )
    if not video.is_floating_point():
        raise RewardError(f"A reward needs float video in [0, 1], got {video.dtype}: convert with video.float() / 255.")
    batch, num_frames, channels, height, width = video.shape
    if channels != 3:
        hint = " Channels come third: use video.movedim(-1, 2)." if width == 3 else ""
        raise RewardError(f"A reward needs 3 RGB channels, got {channels} in shape {tuple(video.shape)}.{hint}")
    if batch == 0 or height == 0 or width == 0 or num_frames < min_frames:
        raise RewardError(
            f"This reward needs at least one clip and {min_frames} frame(s), got shape {tuple(video.shape)}."
        )
    if isinstance(prompts, str) or len(prompts) != batch:
        given = "one string" if isinstance(prompts, str) else f"{len(prompts)} prompts"
        raise RewardError(f"A reward needs one prompt per clip: got {given} for {batch} clips.")
    if not fps > 0:
        raise RewardError(f"A reward needs fps > 0, got {fps}.")
    return _lift(video)


def _lift(video: Tensor) -> CheckedClips:
    if video.dtype != torch.float64:
        video = video.float()
    finite = torch.isfinite(video.detach()).flatten(1).all(dim=1)
    # A zeroed clip passes through the reward without poisoning the gradient of its neighbours.
    if not bool(finite.all()):
        video = torch.where(finite[:, None, None, None, None], video, torch.zeros_like(video))
    low, high = (float(bound) for bound in torch.aminmax(video.detach()))
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        is_signed = low < 0 and high <= 1 + RANGE_TOLERANCE
        hint = "(video + 1) / 2 maps [-1, 1]" if is_signed else "divide 8-bit values by 255"
        raise RewardError(f"A reward needs pixels in [0, 1], got [{low:.4g}, {high:.4g}]: {hint}, or clamp.")
    reasons = tuple(None if ok else "pixels are NaN or infinite" for ok in finite.tolist())
    return CheckedClips(video, finite, reasons)


@contextlib.contextmanager
def full_precision(video: Tensor) -> Iterator[None]:
    """Switch autocast off around the scoring of `video`: a bf16 cosine loses the digits that carry the gradient."""
    with torch.autocast(device_type=video.device.type, enabled=False):
        yield


def check_precision(precision: Precision) -> Precision:
    """Return the option, or refuse it.

    Raises:
        RewardError: Unknown precision.
    """
    if precision not in get_args(Precision):
        raise RewardError(f"Unknown precision {precision!r}. Known: {', '.join(get_args(Precision))}.")
    return precision


def tower_precision(precision: Precision, like: Tensor) -> torch.autocast:
    """Return the context in which a tower runs: matrix products in bfloat16 where asked, except for gradient checks.

    Args:
        precision: The option.
        like: What the tower is given; float64 stays float64.
    """
    is_half = precision == "bfloat16" and like.dtype == torch.float32
    return torch.autocast(like.device.type, dtype=torch.bfloat16, enabled=is_half)
