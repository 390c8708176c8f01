"""How VBench brings frames to a model's size: torchvision's `Resize` with antialias=False, as in vbench/utils.py.

It reads 8-bit frames; bicubic results are then clamped and rounded to 8 bit again, which moves a score by more than
float precision. Letters: F frames, H height, W width.
"""

import itertools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rewards.raft import CELL
from rewards.video_ops import CLIP_MEAN, CLIP_STD, centre_crop, normalise


def middle_frames(num_frames: int, count: int) -> list[int]:
    """Return the middle frame of each of `count` equal stretches of a clip; a shorter clip repeats its last one.

    Args:
        num_frames: Of the clip, >= 1.
        count: Frames wanted.
    """
    borders = np.linspace(0, num_frames, min(count, num_frames) + 1).astype(int)
    middles = [(int(start) + int(end) - 1) // 2 for start, end in itertools.pairwise(borders)]
    return middles + [middles[-1]] * (count - len(middles))


def clip_square(frames: Tensor, size: int) -> Tensor:
    """Return CLIP's input: short side to `size` (bicubic, back to 8 bit), centre crop, CLIP's normalisation.

    Args:
        frames: uint8, (F, 3, H, W).
        size: Side of the square.

    Returns:
        float32, (F, 3, size, size).
    """
    height, width = frames.shape[-2:]
    pixels = frames.to(torch.float32)
    short = min(height, width)
    if short != size:
        whole = (size * height // short, size * width // short)
        pixels = functional.interpolate(pixels, size=whole, mode="bicubic", align_corners=False)
        pixels = pixels.clamp_(0, 255).round_()
    return normalise(centre_crop(pixels, (size, size)) / 255, CLIP_MEAN, CLIP_STD)


def flow_input(frames: Tensor) -> Tensor:
    """Return RAFT's input as VBench makes it: sides padded to multiples of 8 by repeating the border.

    VBench never cuts the padding off again, so it counts among the pixels.

    Args:
        frames: uint8, (F, 3, H, W).

    Returns:
        float32 in [0, 1], (F, 3, H or more, W or more).
    """
    height, width = frames.shape[-2:]
    across, down = -width % CELL, -height % CELL
    padding = (across // 2, across - across // 2, down // 2, down - down // 2)
    return functional.pad(frames.to(torch.float32) / 255, padding, mode="replicate")
