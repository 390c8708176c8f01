"""Whether a clip plays the same content again and again."""

import torch
from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import luma_of, need_frames, per_frame, shrink

_SIDE = 32  # pixels to which frames are averaged
_STILL = 0.0005
"""Mean absolute difference, in grey levels of a range of 1, below which a clip does not move: an eighth of an 8-bit
level, less than what a codec changes."""


class Loop:
    """max over lags k of 1 - e(k) / max over j < k of e(j), k from 2 to half the clip. Our own.

    e(k) is the mean over frames of the mean absolute difference between luma (averaged to 32x32) k frames apart: the
    diagonals of the self-similarity matrix that Cutler and Davis 2000 (TPAMI 22:8) read periods from. Unit: share.
    Range [0, 1]: 1 where the content comes back exactly at least once, 0 where frames only move on (e grows with k),
    about 0.05 for frames in random order. It equals that of the clip played backwards, brighter, or with more contrast.
    A back-and-forth clip counts once it has gone there and back twice. Whether looping is wanted is the prompt's
    business, so neither direction is better. A clip that does not move has no period and is skipped.
    """

    spec = MetricSpec(
        name="loop",
        version="1",
        family="measure",
        dimensions=("loop",),
        unit="share",
        higher_is_better=None,
        uses_prompt=False,
        paper="doi:10.1109/34.868681",
    )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: Fewer than 4 frames, or no motion.
        """
        need_frames(clip, 4, "a loop")
        small = per_frame(lambda planes: shrink(planes, _SIDE).flatten(1).double(), luma_of(clip))
        errors = _lag_errors(small)
        if float(errors.max()) < _STILL:
            raise SkipClipError("the clip does not move, so it has no period")
        highest = errors.cummax(dim=0).values[:-1]
        strengths = 1 - errors[1:] / highest.clamp(min=_STILL)
        return ClipScore(values={"loop": float(strengths.max().clamp(0, 1))})


def _lag_errors(small: Tensor) -> Tensor:
    """Return e(1), e(2), ... up to half the clip for pictures (frames, pixels)."""
    lags = range(1, len(small) // 2 + 1)
    return torch.stack([(small[lag:] - small[:-lag]).abs().mean() for lag in lags])
