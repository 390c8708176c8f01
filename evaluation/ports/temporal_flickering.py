"""VBench's temporal flickering: how little neighbouring frames differ, on 8-bit frames."""

from pathlib import Path

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import Device, neighbour_distances
from evaluation.ports.frame_features import check_two_frames, mean_and_curve
from evaluation.ports.static_filter import KEPT, StaticFilter


class TemporalFlickering:
    """(255 - mean absolute difference of neighbouring frames) / 255, in [0, 1]; a still clip has 1.

    Motion lowers it as flicker does. VBench therefore makes 25 clips of a prompt and counts the first five that its
    static filter passes; with `static_filter` clips that move are skipped, and so are further ones of the prompt.
    """

    def __init__(self, *, static_filter: str | Path | None = None, device: Device = "auto") -> None:
        """Declare the facts, and load the filter's flow model where one is asked for.

        Args:
            static_filter: Weights of RAFT: "raft_things" (where VBench has unpacked the file, it is found), or a file.
                None counts every clip, moving or not, which is not VBench's number.
            device: Where the filter computes; the differences never leave the CPU, where the clip is decoded.

        Raises:
            RewardError: Missing or wrong weights.
            ConfigError: The device is not there.
        """
        self._filter = None if static_filter is None else StaticFilter(static_filter, device=device)
        self.spec = MetricSpec(
            name="temporal_flickering",
            version="1",
            family="vbench-port",
            dimensions=("temporal_flickering",),
            unit="share",
            higher_is_better=True,
            uses_prompt=False,
            weights=() if self._filter is None else ("raft_things",),
            licence="Apache-2.0" if self._filter is None else "Apache-2.0 AND BSD-3-Clause",
            paper="arXiv:2311.17982",
            first_of_prompt=None if self._filter is None else KEPT,
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: It has a single frame, or the filter is on and the clip moves.
        """
        check_two_frames(clip)
        reason = None if self._filter is None else self._filter.why_moving(clip)
        if reason is not None:
            raise SkipClipError(reason)
        return mean_and_curve("temporal_flickering", (255.0 - neighbour_distances(clip)) / 255.0)
