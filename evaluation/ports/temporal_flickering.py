"""VBench's temporal flickering: how little neighbouring frames differ, on 8-bit frames."""

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import neighbour_distances
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
        return mean_and_curve("temporal_flickering", (255.0 - neighbour_distances(clip)) / 255.0)
