"""Guards against reward hacking: motion, saturation, diversity and held-out rewards, relative to the base.

Image rewards freeze videos and wash them in colour while the trained score rises (VADER, arXiv:2407.08737, and
EasyAnimate v3, arXiv:2405.18991, section 4.3, both report it), so every validation reads these beside the reward.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_video.errors import ConfigError
from rlhf_video.validation.clips import DIVERSITY
from rlhf_video.validation.comparison import Comparison


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """Limits of the guards, as ratios of the adapter's mean to the base's."""

    enabled: bool = True
    """Read the guards at each validation; without them a rising reward proves nothing."""
    min_motion_ratio: float = 0.7
    """Least motion (frame-difference energy) kept; below it the adapter freezes the clips."""
    max_saturation_ratio: float = 1.3
    """Most colour saturation; above it the adapter washes the clips in colour."""
    min_diversity_ratio: float = 0.6
    """Least mean distance between clips of one prompt; below it the adapter collapses to one clip per prompt."""
    dynamic_degree_weights: Path | None = None
    """RAFT weights; where given, optical flow guards motion too, which flicker fools less than frame differences. 20
    refinements per pair of frames: slow on a CPU. rewards/ledger.py says where to get them."""
    min_dynamic_degree_ratio: float = 0.7
    """Least dynamic degree (optical flow) kept, where its weights are given."""
    held_out_tolerance: float = 0.05
    """Fall of a held-out reward that counts, in standard deviations of the base's scores: with many clips an interval
    lies below zero for falls that nobody sees. It must exceed this, and its whole 95% interval lie below zero."""
    motion_score: str = "frame_difference/motion"
    """Score that measures motion."""
    dynamic_degree_score: str = "dynamic_degree/degree"
    """Score that measures motion by optical flow."""
    saturation_score: str = "saturation/saturation"
    """Score that measures saturation."""
    diversity_score: str = DIVERSITY
    """Score that measures within-prompt diversity."""

    def __post_init__(self) -> None:
        """Check that every limit is a positive ratio."""
        limits = {
            "min_motion_ratio": self.min_motion_ratio,
            "max_saturation_ratio": self.max_saturation_ratio,
            "min_diversity_ratio": self.min_diversity_ratio,
            "min_dynamic_degree_ratio": self.min_dynamic_degree_ratio,
        }
        for name, value in limits.items():
            if not (math.isfinite(value) and value > 0.0):
                raise ConfigError(f"guards.{name}={value} is not a positive ratio: use for example 0.7 or 1.3.")
        if not (math.isfinite(self.held_out_tolerance) and self.held_out_tolerance >= 0.0):
            raise ConfigError(f"guards.held_out_tolerance={self.held_out_tolerance} must be 0 or more, such as 0.05.")


@dataclass(frozen=True)
class GuardReading:
    """What one guard saw."""

    name: str
    score: str
    """Score it reads."""
    value: float
    """Ratio to the base, or for held-out rewards the difference; NaN when not measured."""
    limit: float
    side: Literal["at least", "at most"]
    """On which side of the limit the value must stay."""
    state: Literal["ok", "tripped", "not measured"]
    advice: str
    """What to do when it trips, or why it was not measured."""


@dataclass(frozen=True)
class Alarm:
    """A guard that tripped."""

    name: str
    value: float
    limit: float
    message: str
    """What happened and what to do next."""


_ADVICE = {
    "motion": "Clips freeze. Add a motion or video reward, lower the reward's weight or the learning rate, raise the "
    "pull to the base, or publish a smaller adapter strength.",
    "dynamic-degree": "Things move less, even where pixels still flicker. Add a motion or video reward, lower the "
    "reward's weight or the learning rate, raise the pull to the base, or publish a smaller adapter strength.",
    "saturation": "Colours are washed out to please the reward. Lower the learning rate or the number of steps, raise "
    "the pull to the base, or add a second reward.",
    "diversity": "Clips of one prompt become alike. Stop earlier, raise the pull to the base, or train on more "
    "prompts.",
    "held-out": "A reward that was not trained on got worse: the trained reward is being exploited. Take an earlier "
    "checkpoint or a smaller adapter strength, or train on an ensemble of rewards.",
}


def read_guards(
    comparison: Comparison, config: GuardConfig | None = None, *, held_out: Sequence[str] = ()
) -> tuple[GuardReading, ...]:
    """Return the reading of every guard.

    Args:
        comparison: Paired scores; a score it lacks gives a reading "not measured", never a silent pass.
        config: Limits; the defaults where None.
        held_out: Scores that were not trained on; one trips when its whole 95% interval lies below zero and its mean
            fell by more than `held_out_tolerance`.
    """
    config = config or GuardConfig()
    if not config.enabled:
        return ()
    readings = [
        _ratio_reading("motion", comparison, config.motion_score, config.min_motion_ratio, "at least"),
        _ratio_reading("saturation", comparison, config.saturation_score, config.max_saturation_ratio, "at most"),
        _ratio_reading("diversity", comparison, config.diversity_score, config.min_diversity_ratio, "at least"),
    ]
    if config.dynamic_degree_weights is not None:
        score, limit = config.dynamic_degree_score, config.min_dynamic_degree_ratio
        readings.append(_ratio_reading("dynamic-degree", comparison, score, limit, "at least"))
    for key in held_out:
        interval = comparison.change(key).difference
        limit = -config.held_out_tolerance * comparison.base_deviation(key)
        fell = interval.is_below_zero and interval.mean < limit
        state: Literal["ok", "tripped"] = "tripped" if fell else "ok"
        readings.append(GuardReading("held-out", key, interval.mean, limit, "at least", state, _ADVICE["held-out"]))
    return tuple(readings)


def check_guards(
    comparison: Comparison, config: GuardConfig | None = None, *, held_out: Sequence[str] = ()
) -> tuple[Alarm, ...]:
    """Return an alarm for every guard that tripped; arguments as `read_guards`."""
    return alarms_of(read_guards(comparison, config, held_out=held_out))


def alarms_of(readings: Sequence[GuardReading]) -> tuple[Alarm, ...]:
    """Return the alarms among the readings."""
    alarms = []
    for reading in readings:
        if reading.state == "tripped":
            unit = "the change of" if reading.name == "held-out" else "the ratio to the base of"
            fact = f"Guard '{reading.name}': {unit} {reading.score} is {reading.value:.3f}, allowed is {reading.side} "
            alarms.append(
                Alarm(reading.name, reading.value, reading.limit, f"{fact}{reading.limit:.3g}. {reading.advice}")
            )
    return tuple(alarms)


def _ratio_reading(
    name: str, comparison: Comparison, key: str, limit: float, side: Literal["at least", "at most"]
) -> GuardReading:
    """Read one guard that compares means."""
    if key not in comparison.base:
        why = (
            "Generate two or more clips per prompt to measure it."
            if key == DIVERSITY
            else f"Score '{key}' was not computed: add its reward to the validation."
        )
        return GuardReading(name, key, math.nan, limit, side, "not measured", why)
    ratio = comparison.ratio(key)
    if math.isnan(ratio):
        why = f"The base's mean of '{key}' is not positive, so a ratio says nothing."
        return GuardReading(name, key, math.nan, limit, side, "not measured", why)
    holds = ratio >= limit if side == "at least" else ratio <= limit
    return GuardReading(name, key, ratio, limit, side, "ok" if holds else "tripped", _ADVICE[name])
