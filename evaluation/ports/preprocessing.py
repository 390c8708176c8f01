"""VBench's ways from 8-bit frames to a model's input; a resize with other settings is another score.

VBench fixes `antialias=False` for tensors, where reward models have it on. Its tensors hold floats of 0 to 255, so the
cubic kernel may overshoot and nothing is rounded. Appearance style alone goes through Pillow, which always smooths and
rounds to 8 bit.
Letters: F frames, H height, W width.
"""

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rewards.video_ops import CLIP_MEAN, CLIP_STD, centre_crop, normalise

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB mean of ImageNet."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB standard deviation of the same."""


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) with the short side as asked and the long one rounded down, as torchvision does."""
    short = min(height, width)
    return short_side * height // short, short_side * width // short


def resize_short_side_aliased(frames: Tensor, short_side: int, *, mode: Literal["bicubic", "bilinear"]) -> Tensor:
    """Resize floats without smoothing before a reduction; the identity where the size fits already.

    Args:
        frames: Float, (F, 3, H, W).
        short_side: In pixels.
        mode: Interpolation kernel.
    """
    height, width = frames.shape[-2:]
    size = short_side_size(height, width, short_side)
    if size == (height, width):
        return frames
    return functional.interpolate(frames, size=size, mode=mode, align_corners=False, antialias=False)


def clip_input(frames: Tensor, size: int) -> Tensor:
    """Return CLIP's input as VBench makes it of tensors: cubic, the centre cut out.

    Args:
        frames: uint8, (F, 3, H, W).
        size: Side of the square, 224 in VBench.

    Returns:
        Float32, normalised, (F, 3, size, size).
    """
    resized = resize_short_side_aliased(frames.to(torch.float32), size, mode="bicubic")
    return normalise(centre_crop(resized, (size, size)) / 255.0, CLIP_MEAN, CLIP_STD)


def clip_input_by_pillow(frames: Tensor, size: int) -> Tensor:
    """Return CLIP's input as VBench makes it of Pillow images: cubic and smoothed, rounded to 8 bit.

    Args:
        frames: uint8, (F, 3, H, W), on the CPU.
        size: Side of the square, 224 in VBench.

    Returns:
        Float32, normalised, (F, 3, size, size).
    """
    height, width = short_side_size(int(frames.shape[-2]), int(frames.shape[-1]), size)
    images = (Image.fromarray(frame) for frame in frames.permute(0, 2, 3, 1).contiguous().numpy())
    resized = np.stack([np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in images])
    square = centre_crop(torch.from_numpy(resized).permute(0, 3, 1, 2), (size, size))
    return normalise(square.to(torch.float32) / 255.0, CLIP_MEAN, CLIP_STD)


def dino_input(frames: Tensor, short_side: int = 224) -> Tensor:
    """Return DINO's input as VBench makes it: linear, nothing cut off, so that the width need not fit the patches.

    Args:
        frames: uint8, (F, 3, H, W).
        short_side: In pixels, 224 in VBench.

    Returns:
        Float32, normalised, (F, 3, height, width), for example 224x398 for a clip of 480x854.
    """
    resized = resize_short_side_aliased(frames.to(torch.float32), short_side, mode="bilinear")
    return normalise(resized / 255.0, IMAGENET_MEAN, IMAGENET_STD)


def dinov2_input(frames: Tensor) -> Tensor:
    """Return DINOv2's input as VBench-Long makes it: cubic and smoothed, the centre cut out.

    It states no `antialias`; torchvision smooths since 0.17, and did not before.

    Args:
        frames: uint8, (F, 3, H, W).

    Returns:
        Float32, normalised, (F, 3, 224, 224).
    """
    height, width = short_side_size(int(frames.shape[-2]), int(frames.shape[-1]), 256)
    pixels = frames.to(torch.float32)
    if (height, width) != frames.shape[-2:]:
        pixels = functional.interpolate(
            pixels, size=(height, width), mode="bicubic", align_corners=False, antialias=True
        )
    return normalise(centre_crop(pixels, (224, 224)) / 255.0, IMAGENET_MEAN, IMAGENET_STD)
