"""Structural similarity against reference clips (Wang, Bovik, Sheikh and Simoncelli 2004)."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import luma, per_frame
from evaluation.metrics.reference_clips import ReferenceClips

WINDOW, SIGMA = 11, 1.5
"""Side in pixels and standard deviation of the paper's circular Gaussian window, normalised to a sum of 1."""
K1, K2 = 0.01, 0.03
"""The paper's constants, for a dynamic range of 1."""


class Ssim:
    """Mean over frames and window places of (2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2)).

    On luma (BT.601 weights), float64, with C1 = 0.01^2, C2 = 0.03^2 and an 11x11 Gaussian window of sigma 1.5 that
    stays inside the picture; moments are weighted by the window, variances without Bessel's correction, and frames are
    not reduced first: the paper's section III B (doi:10.1109/TIP.2003.819861) and its authors' ssim_index.m. Unit:
    none. Range [-1, 1], 1 for equal clips. Higher is better. The curve has one value per frame.
    """

    spec = MetricSpec(
        name="ssim",
        version="1",
        family="measure",
        dimensions=("ssim",),
        unit="SSIM",
        higher_is_better=True,
        uses_prompt=False,
        paper="doi:10.1109/TIP.2003.819861",
    )

    def __init__(self, references: str | Path) -> None:
        """Read what references there are in a folder, see `ReferenceClips`."""
        self._references = ReferenceClips(references)

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: There is no reference for it, or its frames are smaller than the window.
            DataError: The reference has another size or length.
        """
        height, width = clip.frames.shape[-2:]
        if min(height, width) < WINDOW:
            raise SkipClipError(f"SSIM's window of {WINDOW} pixels does not fit into frames of {height}x{width}")
        curve = per_frame(_similarity, clip.frames, self._references(clip), size=4)
        return ClipScore(values={"ssim": float(curve.mean())}, curves={"ssim": curve.tolist()})


def _similarity(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean SSIM of 8-bit frames (n, 3, height, width), (n,) float64."""
    x, y = luma(first).double(), luma(second).double()
    mean_x, mean_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    variance_x, variance_y, covariance = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    c1, c2 = K1**2, K2**2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return (above / below).mean(dim=(1, 2))


def _blur(planes: Tensor) -> Tensor:
    """Return Gaussian means at every place of the window, (kinds, n, height - 10, width - 10) of (kinds, n, h, w)."""
    places = torch.arange(WINDOW, dtype=planes.dtype) - WINDOW // 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    weights = weights / weights.sum()  # the product of both axes is the normalised circular window
    flat = planes.flatten(0, 1)[:, None]
    down = functional.conv2d(flat, weights.view(1, 1, -1, 1))
    return functional.conv2d(down, weights.view(1, 1, 1, -1)).unflatten(0, planes.shape[:2])[:, :, 0]
