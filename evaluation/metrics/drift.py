"""Drift of a long clip: any metric over its segments, so that accumulating errors show."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipScore, DecodedClip, Metric, MetricSpec, SkipClipError
from evaluation.metrics.pixels import Device
from evaluation.registry import build_metric
from rlhf_video.errors import ConfigError

Source = Literal["segments", "curve"]
_LEAST_FOR_TREND = 4


class Drift:
    """How another metric changes from the first segment of a clip to the last, for each of its dimensions d.

    "d_change": value of the last segment minus that of the first. "d_trend" (where asked for): the least-squares line
    through all segments, its last value minus its first; over the clip's duration it is the slope per second, and it is
    less at the mercy of two segments than the change. Both in the unit of d, 0 for a clip that looks the same
    throughout; the better direction is that of d. The curve of "d_change" has the value of each segment. Segments have
    `segment_frames` frames each, the first starts at the first frame and the last ends at the last frame; where the
    length is no multiple they overlap a little, so that no frame is left out.
    """

    def __init__(
        self,
        metric: str,
        *,
        options: Mapping[str, object] | None = None,
        segment_frames: int = 16,
        source: Source = "segments",
        device: Device = "auto",
        trend: bool = False,
    ) -> None:
        """Build the metric that is followed.

        Args:
            metric: Short name or "package.module:Class" of a metric of single clips.
            options: Of that metric.
            segment_frames: Frames of a segment.
            source: "segments" scores every segment as a clip of its own; "curve" scores the clip once and averages the
                metric's own curve of one value per frame over each segment (for metrics against references).
            device: Where that metric computes, unless its options say so.
            trend: Give the trend too, for clips of four segments or more: of fewer it is the change again, another
                column of the same number that Holm's correction would count.

        Raises:
            ConfigError: The metric is of another kind, or a number is out of range.
            RewardError: The metric cannot be built.
        """
        if segment_frames < 1 or source not in get_args(Source):
            raise ConfigError(
                f"Drift needs segment_frames >= 1 and source 'segments' or 'curve', got {segment_frames}, {source!r}."
            )
        named = build_metric(metric, None, options or {}, device=device)
        inner = named.metric
        if not isinstance(inner, Metric) or inner.spec.reads != "frames":
            raise ConfigError(
                f"Drift follows metrics that score the frames of one clip; '{metric}' compares sets or reads files."
            )
        self._inner, self._segment_frames, self._source, self._trend = inner, segment_frames, source, trend
        facts = inner.spec
        self.spec = MetricSpec(
            name=f"drift_{facts.name}",
            version=f"2-{facts.version}",
            family="measure",
            dimensions=tuple(
                f"{name}_{kind}"
                for name in facts.dimensions
                for kind in (("change", "trend") if trend else ("change",))
            ),
            unit=facts.unit,
            higher_is_better=facts.higher_is_better,
            uses_prompt=facts.uses_prompt,
            weights=facts.weights,
            licence=facts.licence,
            paper=facts.paper,
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: The clip has no two segments (four for a trend), or the metric has nothing to say about one.
        """
        starts = self._starts(len(clip.frames))
        curves = self._from_segments(clip, starts) if self._source == "segments" else self._from_curve(clip, starts)
        values: dict[str, float] = {}
        for name, curve in curves.items():
            values[f"{name}_change"] = float(curve[-1] - curve[0])
            if self._trend:
                values[f"{name}_trend"] = fitted_rise(np.array(starts), curve)
        return ClipScore(values=values, curves={f"{name}_change": curve.tolist() for name, curve in curves.items()})

    def _starts(self, num_frames: int) -> list[int]:
        """Return the first frame of each segment."""
        size = self._segment_frames
        if num_frames <= size:
            raise SkipClipError(f"drift needs more than the {size} frames of one segment, the clip has {num_frames}")
        last = -(-num_frames // size) - 1
        if self._trend and last < _LEAST_FOR_TREND - 1:
            raise SkipClipError(
                f"a trend of {last + 1} segments is the change: it needs {_LEAST_FOR_TREND}, leave out trend: true, or "
                "take shorter segments"
            )
        return [(2 * number * (num_frames - size) + last) // (2 * last) for number in range(last + 1)]

    def _from_segments(self, clip: DecodedClip, starts: list[int]) -> dict[str, NDArray[np.float64]]:
        rows = []
        for number, start in enumerate(starts, 1):
            segment = DecodedClip(clip.entry, clip.frames[start : start + self._segment_frames], clip.fps)
            try:
                rows.append(self._inner.score(segment).values)
            except SkipClipError as error:
                raise SkipClipError(f"segment {number} of {len(starts)}: {error}") from error
        return {name: np.array([row[name] for row in rows]) for name in self._inner.spec.dimensions}

    def _from_curve(self, clip: DecodedClip, starts: list[int]) -> dict[str, NDArray[np.float64]]:
        found = self._inner.score(clip).curves
        for name in self._inner.spec.dimensions:
            if len(found.get(name, ())) != len(clip.frames):
                raise ConfigError(
                    f"'{self._inner.spec.name}' gives no curve of one value per frame for '{name}': set source: "
                    "segments."
                )
        size = self._segment_frames
        return {
            name: np.array([np.mean(found[name][start : start + size]) for start in starts])
            for name in self._inner.spec.dimensions
        }


def fitted_rise(places: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """Return how much the least-squares line through (places, values) rises from the first place to the last."""
    centred = places - places.mean()
    slope = float(centred @ values / (centred @ centred))
    return slope * float(places[-1] - places[0])
