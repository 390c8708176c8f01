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
    `segment_frames` frames each, or there are `num_segments` of them whatever the clip's length; the first starts at
    the first frame and the last ends at the last frame; where the length is no multiple they overlap a little, so that
    no frame is left out.

    For roll-outs much longer than the clips of training: "d_gap", where asked for in place of the change, is its
    absolute value (quality drift, Rolling Forcing, arXiv:2509.25161), so that clips that fade and clips that burn out
    do not cancel in a mean; "d_1" to "d_n" are the values of the segments, for example a verifier's in each eighth.
    """

    def __init__(
        self,
        metric: str,
        *,
        options: Mapping[str, object] | None = None,
        segment_frames: int = 16,
        num_segments: int | None = None,
        source: Source = "segments",
        device: Device = "auto",
        trend: bool = False,
        gap: bool = False,
        parts: bool = False,
    ) -> None:
        """Build the metric that is followed.

        Args:
            metric: Short name or "package.module:Class" of a metric of single clips.
            options: Of that metric.
            segment_frames: Frames of a segment.
            num_segments: Segments of every clip, at least 2; None has as many as segment_frames makes.
            source: "segments" scores every segment as a clip of its own; "curve" scores the clip once and averages the
                metric's own curve of one value per frame over each segment (for metrics against references).
            device: Where that metric computes, unless its options say so.
            trend: Give the trend too, for clips of four segments or more: of fewer it is the change again, another
                column of the same number that Holm's correction would count.
            gap: Give the absolute change instead of the change; lower is better then.
            parts: Give the value of every segment instead; needs num_segments.

        Raises:
            ConfigError: The metric is of another kind, a number is out of range, or options exclude each other.
            RewardError: The metric cannot be built.
        """
        if segment_frames < 1 or source not in get_args(Source):
            raise ConfigError(
                f"Drift needs segment_frames >= 1 and source 'segments' or 'curve', got {segment_frames}, {source!r}."
            )
        if num_segments is not None and num_segments < 2:
            raise ConfigError(f"Drift needs num_segments >= 2, got {num_segments}.")
        if trend + gap + parts > 1 or (parts and num_segments is None):
            raise ConfigError("Drift gives one of trend, gap and parts, and parts needs num_segments, for example 8.")
        named = build_metric(metric, None, options or {}, device=device)
        inner = named.metric
        if not isinstance(inner, Metric) or inner.spec.reads != "frames":
            raise ConfigError(
                f"Drift follows metrics that score the frames of one clip; '{metric}' compares sets or reads files."
            )
        self._inner, self._segment_frames, self._num_segments = inner, segment_frames, num_segments
        self._source, self._trend, self._gap, self._parts = source, trend, gap, parts
        facts = inner.spec
        kinds: tuple[str, ...] = ("change", "trend") if trend else ("gap",) if gap else ("change",)
        if parts:
            kinds = tuple(str(number) for number in range(1, (num_segments or 0) + 1))
        self.spec = MetricSpec(
            name=f"drift_{facts.name}",
            version=f"2-{facts.version}",
            family="measure",
            dimensions=tuple(f"{name}_{kind}" for name in facts.dimensions for kind in kinds),
            unit=facts.unit,
            higher_is_better=False if gap else facts.higher_is_better,
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
        starts, size = self._segments(len(clip.frames))
        segments = self._from_segments if self._source == "segments" else self._from_curve
        curves = segments(clip, starts, size)
        values: dict[str, float] = {}
        for name, curve in curves.items():
            if self._parts:
                values |= {f"{name}_{number}": float(value) for number, value in enumerate(curve, 1)}
                continue
            change = float(curve[-1] - curve[0])
            values[f"{name}_gap" if self._gap else f"{name}_change"] = abs(change) if self._gap else change
            if self._trend:
                values[f"{name}_trend"] = fitted_rise(np.array(starts), curve)
        kind = "1" if self._parts else "gap" if self._gap else "change"
        return ClipScore(values=values, curves={f"{name}_{kind}": curve.tolist() for name, curve in curves.items()})

    def _segments(self, num_frames: int) -> tuple[list[int], int]:
        """Return the first frame of each segment, and the frames of one."""
        count = self._num_segments
        size = self._segment_frames if count is None else -(-num_frames // count)
        if num_frames <= size:
            raise SkipClipError(f"drift needs more than the {size} frames of one segment, the clip has {num_frames}")
        if count is not None and num_frames < count:
            raise SkipClipError(f"the clip's {num_frames} frames cannot be cut into {count} segments")
        last = (-(-num_frames // size) if count is None else count) - 1
        if self._trend and last < _LEAST_FOR_TREND - 1:
            raise SkipClipError(
                f"a trend of {last + 1} segments is the change: it needs {_LEAST_FOR_TREND}, leave out trend: true, or "
                "take shorter segments"
            )
        return [(2 * number * (num_frames - size) + last) // (2 * last) for number in range(last + 1)], size

    def _from_segments(self, clip: DecodedClip, starts: list[int], size: int) -> dict[str, NDArray[np.float64]]:
        rows = []
        for number, start in enumerate(starts, 1):
            segment = DecodedClip(clip.entry, clip.frames[start : start + size], clip.fps)
            try:
                rows.append(self._inner.score(segment).values)
            except SkipClipError as error:
                raise SkipClipError(f"segment {number} of {len(starts)}: {error}") from error
        return {name: np.array([row[name] for row in rows]) for name in self._inner.spec.dimensions}

    def _from_curve(self, clip: DecodedClip, starts: list[int], size: int) -> dict[str, NDArray[np.float64]]:
        found = self._inner.score(clip).curves
        for name in self._inner.spec.dimensions:
            if len(found.get(name, ())) != len(clip.frames):
                raise ConfigError(
                    f"'{self._inner.spec.name}' gives no curve of one value per frame for '{name}': set source: "
                    "segments."
                )
        return {
            name: np.array([np.mean(found[name][start : start + size]) for start in starts])
            for name in self._inner.spec.dimensions
        }


def fitted_rise(places: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """Return how much the least-squares line through (places, values) rises from the first place to the last."""
    centred = places - places.mean()
    slope = float(centred @ values / (centred @ centred))
    return slope * float(places[-1] - places[0])
