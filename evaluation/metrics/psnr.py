"""Peak signal-to-noise ratio against reference clips."""

from pathlib import Path

import torch
from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import per_frame
from evaluation.metrics.reference_clips import ReferenceClips

_TINIEST_ERROR = 1e-10


class Psnr:
    """-10 log10 of the mean squared error over frames, channels and pixels in [0, 1], float64.

    Unit: dB, at most 100 (equal clips; the same bound and number as `rlhf_video.validation.psnr_scores`). Higher is
    better. The error is averaged over the clip before the logarithm, so one perfect frame does not lift the rest; the
    curve has each frame's own ratio.
    """

    spec = MetricSpec(
        name="psnr",
        version="1",
        family="measure",
        dimensions=("psnr",),
        unit="dB",
        higher_is_better=True,
        uses_prompt=False,
    )

    def __init__(self, references: str | Path) -> None:
        """Read what references there are in a folder, see `ReferenceClips`."""
        self._references = ReferenceClips(references)

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: There is no reference for it.
            DataError: The reference has another size or length.
        """
        errors = per_frame(_squared_error, clip.frames, self._references(clip))
        return ClipScore(values={"psnr": float(_decibels(errors.mean()))}, curves={"psnr": _decibels(errors).tolist()})


def _squared_error(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean squared difference of 8-bit frames (n, 3, height, width) in a range of 1, (n,) float64."""
    difference = first.to(torch.int32) - second.to(torch.int32)
    return difference.square().double().mean(dim=(1, 2, 3)) / 255.0**2


def _decibels(errors: Tensor) -> Tensor:
    return -10 * errors.clamp(min=_TINIEST_ERROR).log10()
