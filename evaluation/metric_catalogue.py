"""Metrics by short name: what a config may ask for. Classes are imported when a metric is built."""

CATALOGUE: dict[str, str] = {
    "reward": "evaluation.metrics.reward:RewardMetric",
}
"""Short name -> "package.module:Class" of a `Metric` or `SetMetric`."""
