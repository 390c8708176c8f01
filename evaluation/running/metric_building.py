"""The metrics of a config, built; all that cannot be built is told at once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.registry import NamedMetric, build_metric
from evaluation.running.suite_config import EvaluationConfig, MetricConfig
from evaluation.running.weights_state import describe_absent
from rewards.errors import RewardError
from rlhf_video.errors import ConfigError, RlhfVideoError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltMetrics:
    """What can be measured, and what cannot."""

    metrics: tuple[NamedMetric, ...]
    sources: tuple[MetricConfig, ...]
    """The config of each metric, in the same order."""
    absent: dict[str, str]
    """Label -> why it cannot be measured."""


def build_metrics(config: EvaluationConfig) -> BuiltMetrics:
    """Build every metric of a config.

    Raises:
        ConfigError: There is none, two have one label, or some cannot be built and the config is not partial.
    """
    built: list[NamedMetric] = []
    sources: list[MetricConfig] = []
    absent: dict[str, str] = {}
    for entry in config.metrics:
        try:
            built.append(build_metric(entry.name, entry.label, entry.options, device=config.device))
            sources.append(entry)
        except (RewardError, RlhfVideoError) as error:
            absent[label_of(entry)] = f"{error}{describe_absent(entry.name, entry.options)}"
    if absent and not config.partial:
        raise ConfigError(
            f"{len(absent)} of {len(config.metrics)} metrics cannot be measured: "
            + " ".join(f"[{label}] {reason}" for label, reason in absent.items())
            + " To go on with the rest, add --partial: the report names what is left out."
        )
    for label, reason in absent.items():
        logger.warning("Left out: %s: %s", label, reason)
    if not built:
        raise ConfigError("No metric is left to measure: name some under 'metrics', for example [{name: psnr}].")
    check_labels([metric.label for metric in built])
    return BuiltMetrics(tuple(built), tuple(sources), absent)


def check_labels(labels: Sequence[str]) -> None:
    """Refuse two metrics of one name.

    Raises:
        ConfigError: Names it.
    """
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"Two metrics are called '{label}': give one of them another 'label'.")


def label_of(entry: MetricConfig) -> str:
    """Return how messages call a metric that is not built, with what it measures where its options say so."""
    named = next((entry.options[key] for key in ("name", "dimension", "metric") if key in entry.options), None)
    return entry.label or (f"{entry.name} {named}" if isinstance(named, str) else entry.name.rsplit(":", 1)[-1])
