"""Black, frozen and repeated frames: faults that a mean score hides."""

import torch
from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import luma_of, mean_distance, neighbour_distances, per_frame, shrink
from rlhf_video.errors import ConfigError

_SIDE = 16  # pixels of the pictures by which frames are told apart before they are compared in full


class FrameFaults:
    """Shares of frames in [0, 1] that are black, frozen, or repeated. Lower is better.

    "black": at least 98% of the pixels have a luma of at most 0.1 (FFmpeg's blackdetect with its defaults). "frozen":
    the mean absolute difference to the frame before, over channels and pixels, is at most `tolerance` (FFmpeg's
    freezedetect; the first frame has none before it, so the share is of the other frames; 0 for a single frame).
    "repeated": the frame has such a twin anywhere else in the clip, so it does not depend on the order of the frames;
    a loop has many, and no frozen one. A still clip is frozen = repeated = 1. A small slow object may move the mean by
    less than the tolerance: lower it for such clips.
    """

    def __init__(self, *, tolerance: float = 0.001) -> None:
        """Set when two frames are the same.

        Args:
            tolerance: Mean absolute difference, in grey levels of a range of 1; 0.001 is FFmpeg's, 0 asks for equal
                pixels.

        Raises:
            ConfigError: It is not in [0, 1).
        """
        if not 0 <= tolerance < 1:
            raise ConfigError(f"tolerance={tolerance} must be in [0, 1), for example FFmpeg's 0.001.")
        self._tolerance = tolerance
        self.spec = MetricSpec(
            name="frame_faults",
            version="1",
            family="measure",
            dimensions=("black", "frozen", "repeated"),
            unit="share",
            higher_is_better=False,
            uses_prompt=False,
            paper="FFmpeg, filters blackdetect and freezedetect",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`."""
        planes = luma_of(clip)
        is_black = per_frame(lambda few: (few <= 0.1).sum(dim=(1, 2)) / few[0].numel() >= 0.98, planes)
        is_frozen = neighbour_distances(clip) / 255.0 <= self._tolerance
        return ClipScore(
            values={
                "black": float(is_black.double().mean()),
                "frozen": float(is_frozen.double().mean()) if len(is_frozen) else 0.0,
                "repeated": float(self._have_twins(clip.frames, planes, is_frozen).double().mean()),
            },
            curves={"black": is_black.double().tolist()},
        )

    def _are_equal(self, first: Tensor, second: Tensor) -> Tensor:
        """Return which frames (n, 3, height, width) equal their partners, (n,) bool."""
        return mean_distance(first, second) / 255.0 <= self._tolerance

    def _have_twins(self, frames: Tensor, planes: Tensor, is_frozen: Tensor) -> Tensor:
        """Return which frames occur again, (frames,) bool.

        Args:
            frames: uint8, (frames, 3, height, width).
            planes: Their luma, (frames, height, width).
            is_frozen: What is known of the neighbours, (frames - 1,).
        """
        has_twin = torch.zeros(len(frames), dtype=torch.bool)
        has_twin[1:] |= is_frozen
        has_twin[:-1] |= is_frozen
        small = per_frame(lambda few: shrink(few, _SIDE).flatten(1).double(), planes)
        # Means never differ by more than what they are means of: only close small pictures can belong to twins.
        gaps = torch.cdist(small, small, p=1) / small.shape[1]
        close = (gaps <= self._tolerance + 1e-6).triu(diagonal=2)
        for number in range(len(frames)):
            others = close[number].nonzero()[:, 0]
            others = others[~(has_twin[number] & has_twin[others])]  # both are known already
            if len(others):
                equal = others[self._are_equal(frames[number].expand(len(others), -1, -1, -1), frames[others])]
                has_twin[equal] = True
                has_twin[number] |= len(equal) > 0
        return has_twin
