"""Differentiable pixel operations without torchvision.

`resize` equals torchvision's `Resize` on float tensors (`F.interpolate(align_corners=False, antialias=True)`, bit for
bit); it does not round to 8 bit or clamp, so bicubic overshoot of a few hundredths passes through, with its gradient.
Letters: F frames, C channels, H height, W width. Each takes (..., C, H, W) with any leading axes.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from rewards.errors import RewardError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""RGB mean of OpenAI CLIP's training images (github.com/openai/CLIP, clip.py)."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""RGB standard deviation of the same."""

Fit = Literal["crop", "processor_crop", "letterbox", "squash"]
"""How a frame meets a square: cut its long side, pad its short side with black, or ignore its aspect ratio.

The two crops differ by one pixel where the cut is not even: `crop` rounds half to even as torchvision does,
`processor_crop` down as the image processors of transformers do.
"""


def resize(frames: Tensor, size: tuple[int, int], *, mode: Literal["bicubic", "bilinear"] = "bicubic") -> Tensor:
    """Resize with antialiasing; the identity where the size fits already.

    Args:
        frames: (..., C, H, W).
        size: New (height, width).
        mode: Interpolation kernel.
    """
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    flat = frames.reshape(-1, *frames.shape[-3:])
    resized = functional.interpolate(flat, size=size, mode=mode, align_corners=False, antialias=True)
    return resized.reshape(*frames.shape[:-2], *size)


def resize_short_side(frames: Tensor, size: int, *, mode: Literal["bicubic", "bilinear"] = "bicubic") -> Tensor:
    """Resize so that the short side has `size` pixels and the aspect ratio stays (long side rounded down).

    Args:
        frames: (..., C, H, W).
        size: New length of the short side.
        mode: Interpolation kernel.
    """
    height, width = frames.shape[-2:]
    short = min(height, width)
    return resize(frames, (size * height // short, size * width // short), mode=mode)


def centre_crop(frames: Tensor, size: tuple[int, int], *, rounds_down: bool = False) -> Tensor:
    """Cut the centre out.

    Args:
        frames: (..., C, H, W), at least `size` large.
        size: (height, width) to keep.
        rounds_down: Where the margin is odd, cut as transformers does; else as torchvision does.

    Raises:
        RewardError: The frames are smaller than the cut.
    """
    height, width = frames.shape[-2:]
    if height < size[0] or width < size[1]:
        raise RewardError(f"Cannot crop {size[0]}x{size[1]} from frames of {height}x{width}: resize first.")
    margins = (height - size[0], width - size[1])
    top, left = (margin // 2 if rounds_down else round(margin / 2) for margin in margins)
    return frames[..., top : top + size[0], left : left + size[1]]


def letterbox(frames: Tensor, size: int) -> Tensor:
    """Resize the long side to `size` and pad the short one with black to a centred square.

    Args:
        frames: (..., C, H, W).
        size: Side of the square.
    """
    height, width = frames.shape[-2:]
    long = max(height, width)
    inner = (max(1, round(size * height / long)), max(1, round(size * width / long)))
    top, left = (size - inner[0]) // 2, (size - inner[1]) // 2
    padding = (left, size - inner[1] - left, top, size - inner[0] - top)
    return functional.pad(resize(frames, inner), padding)


def fit_square(frames: Tensor, size: int, fit: Fit) -> Tensor:
    """Bring frames of any size and aspect ratio to a square.

    Args:
        frames: (..., C, H, W).
        size: Side of the square.
        fit: How, see `Fit`.

    Raises:
        RewardError: Unknown `fit`.
    """
    if fit in ("crop", "processor_crop"):
        whole = resize_short_side(frames, size)
        return centre_crop(whole, (size, size), rounds_down=fit == "processor_crop")
    if fit == "letterbox":
        return letterbox(frames, size)
    if fit == "squash":
        return resize(frames, (size, size))
    raise RewardError(f"Unknown fit {fit!r}. Known: {', '.join(get_args(Fit))}.")


def normalise(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract the channel means and divide by the channel deviations.

    Args:
        frames: (..., C, H, W).
        mean: Per channel.
        std: Per channel, > 0.
    """
    shape = (len(mean), 1, 1)
    mean_tensor = torch.tensor(mean, dtype=frames.dtype, device=frames.device).reshape(shape)
    std_tensor = torch.tensor(std, dtype=frames.dtype, device=frames.device).reshape(shape)
    return (frames - mean_tensor) / std_tensor


def take_frames(video: Tensor, indices: Sequence[int]) -> Tensor:
    """Return the chosen frames; a view when they are all of them.

    Args:
        video: (batch, F, C, H, W).
        indices: Frame numbers, repeats allowed.
    """
    if list(indices) == list(range(video.shape[1])):
        return video
    return video.index_select(1, torch.tensor(indices, device=video.device))
