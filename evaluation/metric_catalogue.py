"""Metrics by short name: what a config may ask for. Classes are imported when a metric is built."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricEntry:
    """Where a metric's class is, and what it loads."""

    target: str
    """"package.module:Class" of a `Metric` or `SetMetric`."""
    weights: tuple[str, ...] = ()
    """Names in rewards/ledger.py of the files that it loads by default."""


CATALOGUE: dict[str, MetricEntry] = {
    "reward": MetricEntry("evaluation.metrics.reward:RewardMetric"),
}
"""Short name -> metric; `reward` measures any reward: {name: reward, options: {name: sharpness}}."""
