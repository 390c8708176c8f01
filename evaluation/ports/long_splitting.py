"""How VBench-Long cuts a clip: at scene changes where that is asked for, then into parts of equal length."""

from collections.abc import Sequence

import torch
from torch import Tensor

SCENE_FRAMES = 15
"""Frames that a scene has at least (PySceneDetect's default)."""


def parts(num_frames: int, size: int) -> list[range]:
    """Return the frames of each part.

    All have `size` frames, one after the other. What remains becomes a part of the last `size` frames, which overlaps
    its predecessor; a clip shorter than one part is a part of its own.

    Args:
        num_frames: Of the clip or scene, >= 1.
        size: Frames of a part, >= 1.
    """
    if num_frames < size:
        return [range(num_frames)]
    starts = list(range(0, num_frames - size + 1, size))
    if num_frames % size:
        starts.append(num_frames - size)
    return [range(start, start + size) for start in starts]


def scenes(frames: Tensor, threshold: float) -> list[range]:
    """Return the frames of each scene, one scene where nothing is cut.

    A frame starts a scene where it differs from its predecessor by `threshold` or more (`differences`), at least 15
    frames after the last cut or the beginning. The difference is that of PySceneDetect's ContentDetector, which
    VBench-Long uses; that one looks at frames shrunk to 256 pixels, and takes cuts in quick succession for one that
    lies at their end.

    Args:
        frames: uint8, (F, 3, H, W).
        threshold: In levels of 8 bit.
    """
    starts = [0]
    for number, difference in enumerate(differences(frames), 1):
        if difference >= threshold and number - starts[-1] >= SCENE_FRAMES:
            starts.append(number)
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(frames)], strict=True)]


def differences(frames: Tensor) -> Sequence[float]:
    """Return how much each frame but the first differs from its predecessor.

    The mean over pixels, and over hue (0 to 179), saturation and value (0 to 255), of the absolute differences; that
    hue is a circle is ignored, as in the original.

    Args:
        frames: uint8, RGB, (F, 3, H, W).
    """
    found: list[float] = []
    before: Tensor | None = None
    for frame in frames:
        shown = _hue_saturation_value(frame)
        if before is not None:
            found.append(float((shown - before).abs().mean()))
        before = shown
    return found


def _hue_saturation_value(frame: Tensor) -> Tensor:
    """Return hue in half degrees, saturation and value in 8-bit levels, rounded, (3, H, W), for uint8 RGB."""
    red, green, blue = frame.to(torch.float64)
    value = torch.stack([red, green, blue]).amax(dim=0)
    chroma = value - torch.stack([red, green, blue]).amin(dim=0)
    divisor = chroma.clamp(min=1.0)
    by_green = 120.0 + 60.0 * (blue - red) / divisor
    by_blue = 240.0 + 60.0 * (red - green) / divisor
    hue = torch.where(value == green, by_green, by_blue)
    hue = torch.where(value == red, 60.0 * (green - blue) / divisor, hue)
    hue = torch.where(chroma == 0.0, 0.0, hue % 360.0)
    saturation = 255.0 * chroma / value.clamp(min=1.0)
    return torch.stack([(hue / 2.0).round() % 180.0, saturation.round(), value])
