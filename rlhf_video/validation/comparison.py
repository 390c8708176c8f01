"""Base against adapter on the same prompts and the same noise, with paired intervals clustered by prompt."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_video.errors import DataError
from rlhf_video.report.markdown import markdown_table
from rlhf_video.stats import Interval, bootstrap_mean, paired_bootstrap
from rlhf_video.validation.clips import Clips, Scores

_NUM_RESAMPLES = 10_000


@dataclass(frozen=True)
class ScoreChange:
    """One score before and after, and the paired difference, over the pairs both models have a score for."""

    base: Interval
    adapter: Interval
    difference: Interval
    num_masked: int
    """Pairs left out because the reward masked a clip of the pair."""


@dataclass(frozen=True)
class Comparison:
    """Scores of paired clips: entry i of base and adapter has the same prompt and the same noise."""

    base: Scores
    adapter: Scores
    clusters: NDArray[np.int64]
    """Prompt index of each pair, shape (n,)."""

    def __post_init__(self) -> None:
        """Check that base and adapter hold the same scores of the same pairs."""
        if self.base.keys() != self.adapter.keys():
            unpaired = sorted(self.base.keys() ^ self.adapter.keys())
            raise DataError(f"Scores {', '.join(unpaired)} exist for only one of base and adapter: score both alike.")
        for key in self.base:
            shapes = {self.base[key].shape, self.adapter[key].shape, self.clusters.shape}
            if len(shapes) > 1:
                raise DataError(f"Score '{key}' has shapes {sorted(shapes)}: base, adapter and clusters must be (n,).")

    @classmethod
    def of(cls, base_clips: Clips, base: Scores, adapter_clips: Clips, adapter: Scores) -> "Comparison":
        """Pair the scores of two sets of clips.

        Raises:
            DataError: The clips do not have the same prompts and seeds in the same order.
        """
        if base_clips.prompts != adapter_clips.prompts or base_clips.seeds != adapter_clips.seeds:
            raise DataError("Base and adapter clips differ in prompts or seeds: pairs must share prompt and noise.")
        return cls(base=base, adapter=adapter, clusters=base_clips.clusters)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the scores."""
        return tuple(self.base)

    @property
    def num_pairs(self) -> int:
        """Number of pairs, masked ones included."""
        return len(self.clusters)

    @property
    def num_prompts(self) -> int:
        """Number of distinct prompts."""
        return len(np.unique(self.clusters))

    def valid(self, key: str) -> NDArray[np.bool_]:
        """Return which pairs both models have a score for, shape (n,).

        Raises:
            DataError: The score is unknown, or no pair is left.
        """
        if key not in self.base:
            raise DataError(f"Unknown score '{key}'. Known: {', '.join(self.keys)}.")
        mask = np.isfinite(self.base[key]) & np.isfinite(self.adapter[key])
        if not mask.any():
            raise DataError(f"Score '{key}' masked every pair: look at the reward's reasons, nothing can be compared.")
        return mask

    def change(self, key: str, *, num_resamples: int = _NUM_RESAMPLES) -> ScoreChange:
        """Return one score before, after, and the paired difference, each with its 95% interval."""
        mask = self.valid(key)
        base, adapter, clusters = self.base[key][mask], self.adapter[key][mask], self.clusters[mask]
        return ScoreChange(
            base=bootstrap_mean(base, clusters, num_resamples=num_resamples),
            adapter=bootstrap_mean(adapter, clusters, num_resamples=num_resamples),
            difference=paired_bootstrap(adapter - base, clusters, num_resamples=num_resamples),
            num_masked=int((~mask).sum()),
        )

    def changes(self) -> dict[str, ScoreChange]:
        """Return the change of every score."""
        return {key: self.change(key) for key in self.keys}

    def intervals(self, *, num_resamples: int = _NUM_RESAMPLES) -> dict[str, Interval]:
        """Return the 95% interval of adapter minus base of every score."""
        intervals = {}
        for key in self.keys:
            mask = self.valid(key)
            differences = self.adapter[key][mask] - self.base[key][mask]
            intervals[key] = paired_bootstrap(differences, self.clusters[mask], num_resamples=num_resamples)
        return intervals

    def ratio(self, key: str) -> float:
        """Return the adapter's mean over the base's; NaN where the base's mean is not positive."""
        mask = self.valid(key)
        base = float(self.base[key][mask].mean())
        return float(self.adapter[key][mask].mean()) / base if base > 1e-12 else math.nan

    def base_deviation(self, key: str) -> float:
        """Return the standard deviation of the base's scores; 1 where they are constant."""
        deviation = float(self.base[key][self.valid(key)].std())
        return deviation if deviation > 1e-9 else 1.0

    def normalised_gain(self, keys: Sequence[str] | Mapping[str, float]) -> float:
        """Return the mean over scores of the paired difference in standard deviations of the base's scores.

        Args:
            keys: Scores to average, at least one; a constant base score counts in its own unit. A mapping gives each
                its direction: the gain of a score with a number below 0 is its fall.
        """
        if not keys:
            raise DataError("A gain needs at least one score: name the held-out or trained rewards.")
        gains = []
        for key in keys:
            mask = self.valid(key)
            sign = -1.0 if isinstance(keys, Mapping) and keys[key] < 0 else 1.0
            gains.append(sign * float((self.adapter[key] - self.base[key])[mask].mean()) / self.base_deviation(key))
        return float(np.mean(gains))

    def metrics(self, *, prefix: str = "validation") -> dict[str, float]:
        """Return flat numbers for `Run.log`: base, adapter, difference, low and high of every score.

        Infinite ends (a single prompt) are left out.
        """
        numbers = {}
        for key, change in self.changes().items():
            stem = f"{prefix}/{key}"
            numbers[f"{stem}/base"] = change.base.mean
            numbers[f"{stem}/adapter"] = change.adapter.mean
            numbers[f"{stem}/difference"] = change.difference.mean
            if math.isfinite(change.difference.low):
                numbers[f"{stem}/difference_low"] = change.difference.low
                numbers[f"{stem}/difference_high"] = change.difference.high
        return numbers

    def table(self, *, names: tuple[str, str] = ("base", "adapter")) -> str:
        """Return a Markdown table: score, base, adapter, difference with its 95% interval.

        Args:
            names: What base and adapter are called.
        """
        rows = []
        for key, change in self.changes().items():
            difference = change.difference
            interval = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
            rows.append((key, f"{change.base.mean:.3f}", f"{change.adapter.mean:.3f}", interval))
        return markdown_table(("score", *names, "difference, 95% interval"), rows, align="lrrr")

    def to_json(self) -> dict[str, object]:
        """Return plain lists; masked scores become null."""
        return {
            "clusters": self.clusters.tolist(),
            "base": {key: _to_list(values) for key, values in self.base.items()},
            "adapter": {key: _to_list(values) for key, values in self.adapter.items()},
        }

    @classmethod
    def from_json(cls, record: dict[str, object]) -> "Comparison":
        """Rebuild what `to_json` wrote.

        Raises:
            DataError: The record lacks a part.
        """
        base, adapter, clusters = record.get("base"), record.get("adapter"), record.get("clusters")
        if not isinstance(base, dict) or not isinstance(adapter, dict) or not isinstance(clusters, list):
            raise DataError("A stored comparison needs 'base', 'adapter' and 'clusters': run the validation again.")
        return cls(
            base={key: _to_array(values) for key, values in base.items()},
            adapter={key: _to_array(values) for key, values in adapter.items()},
            clusters=np.array(clusters, dtype=np.int64),
        )


def _to_list(values: NDArray[np.float64]) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _to_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
