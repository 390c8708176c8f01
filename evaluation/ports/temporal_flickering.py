"""VBench's temporal flickering: how little neighbouring frames differ, on 8-bit frames."""

import torch
from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.ports.frame_features import check_two_frames, mean_and_curve


class TemporalFlickering:
    """(255 - mean absolute difference of neighbouring frames) / 255, in [0, 1]; a still clip has 1.

    VBench asks it of clips that its static filter has kept: motion lowers it as flicker does.
    """

    def __init__(self) -> None:
        """Declare the facts; there is nothing to load."""
        self.spec = MetricSpec(
            name="temporal_flickering",
            version="1",
            family="vbench-port",
            dimensions=("temporal_flickering",),
            unit="share",
            higher_is_better=True,
            uses_prompt=False,
            paper="arXiv:2311.17982",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: It has a single frame.
        """
        check_two_frames(clip)
        pairs = zip(clip.frames[:-1], clip.frames[1:], strict=True)
        differences = torch.stack([_mean_difference(former, latter) for former, latter in pairs])
        return mean_and_curve("temporal_flickering", (255.0 - differences) / 255.0)


def _mean_difference(former: Tensor, latter: Tensor) -> Tensor:
    """Return the exact mean absolute difference of two uint8 frames, a float64 scalar."""
    difference = torch.maximum(former, latter) - torch.minimum(former, latter)  # stays uint8
    return difference.sum(dtype=torch.int64).double() / difference.numel()
