"""Metrics by name, loaded when they are asked for, with the key under which their results are stored."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from evaluation.base import Metric, MetricSpec, SetMetric
from evaluation.metric_catalogue import CATALOGUE
from evaluation.option_hash import content_hash, options_sha256
from evaluation.ports.weights import cached_weights
from rewards.errors import RewardError
from rewards.factories import construct, load_factory
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

    @property
    def is_set_metric(self) -> bool:
        """Whether it compares sets of clips, and so has no value of one clip."""
        return isinstance(self.metric, SetMetric)

    def column(self, dimension: str) -> str:
        """Return the name of a dimension's column."""
        return column_name(self.label, self.spec, dimension)


def column_name(label: str, spec: MetricSpec, dimension: str) -> str:
    """Return "label/dimension", or the label alone for a metric of one dimension of its own name."""
    return label if spec.dimensions == (spec.name,) else f"{label}/{dimension}"


def available() -> tuple[str, ...]:
    """Return the short names, sorted."""
    return tuple(sorted(CATALOGUE))


def build_metric(name: str, label: str | None, options: Mapping[str, object], *, device: str = "auto") -> NamedMetric:
    """Build a metric.

    Args:
        name: A short name of `available()`, or "package.module:Class".
        label: As tables call it; None takes the metric's own name.
        options: Arguments of that class.
        device: auto, cpu or cuda, for metrics that take a device and whose options name none.

    Raises:
        RewardError: Unknown name, module or class, unknown, missing or mistyped option, absent weights, or the result
            is no metric.
    """
    takes_device = "device" in inspect.signature(load_factory("metric", name, CATALOGUE)).parameters
    placed = {"device": _pick_device(device), **options} if takes_device else options
    metric = construct("metric", name, CATALOGUE, placed)
    if not isinstance(metric, Metric | SetMetric):
        raise RewardError(
            f"{name!r} built a {type(metric).__name__}, which is not a metric: it needs `spec` and `score(clip)`, or "
            "`features(clip)` and `distance(features, reference)`, see evaluation/base.py. A reward is measured by "
            "{name: reward, options: {name: ...}}."
        )
    spec = metric.spec
    weights = {weight: _weight_hash(weight) for weight in spec.weights}
    parts = [spec.family, spec.name, spec.version, options_sha256(options), weights]
    return NamedMetric(label or spec.name, metric, hashlib.sha256(json.dumps(parts).encode()).hexdigest())


def _pick_device(device: str) -> str:
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def _weight_hash(name: str) -> str | None:
    """Return the hash that the ledger states of a weight file, or else that of the file that is here.

    None for a name that the ledger does not know, and for a file that is found nowhere.
    """
    entry = LEDGER.get(name)
    if entry is None or entry.sha256 or entry.md5:
        return None if entry is None else entry.sha256 or entry.md5
    path = cached_weights(name)
    return None if path is None else content_hash(path)
