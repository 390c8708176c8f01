"""Metrics by name, loaded when they are asked for, with the key under which their results are stored."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.base import Metric, MetricSpec, SetMetric
from evaluation.metric_catalogue import CATALOGUE
from evaluation.option_hash import options_sha256
from rewards.errors import RewardError
from rewards.factories import construct
from rewards.ledger import LEDGER


@dataclass(frozen=True)
class NamedMetric:
    """A metric as a run uses it."""

    label: str
    """As tables call it."""
    metric: Metric | SetMetric
    key: str
    """SHA-256 over name, version, options, the content of files that these name, and the hashes of its weights."""

    @property
    def spec(self) -> MetricSpec:
        """The metric's facts."""
        return self.metric.spec


def available() -> tuple[str, ...]:
    """Return the short names, sorted."""
    return tuple(sorted(CATALOGUE))


def build_metric(name: str, label: str | None, options: Mapping[str, object]) -> NamedMetric:
    """Build a metric.

    Args:
        name: A short name of `available()`, or "package.module:Class".
        label: As tables call it; None takes the metric's own name.
        options: Arguments of that class.

    Raises:
        RewardError: Unknown name, module or class, unknown, missing or mistyped option, absent weights, or the result
            is no metric.
    """
    metric = construct("metric", name, CATALOGUE, options)
    if not isinstance(metric, Metric | SetMetric):
        raise RewardError(
            f"{name!r} built a {type(metric).__name__}, which is not a metric: it needs `spec` and `score(clip)`, or "
            "`features(clip)` and `distance(features, reference)`, see evaluation/base.py. A reward is measured by "
            "{name: reward, options: {name: ...}}."
        )
    spec = metric.spec
    weights = {
        weight: LEDGER[weight].sha256 or LEDGER[weight].md5 if weight in LEDGER else None for weight in spec.weights
    }
    parts = [spec.name, spec.version, options_sha256(options), weights]
    return NamedMetric(label or spec.name, metric, hashlib.sha256(json.dumps(parts).encode()).hexdigest())


def _weight_hash(name: str) -> str | None:
    """Return the hash that the ledger states of a weight file; where it states none, the version must do."""
    entry = LEDGER.get(name)
    return None if entry is None else entry.sha256 or entry.md5
