"""Distances between the clips of two systems as sets (FVD, FID and the like), from stored features."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipEntry, SetMetric, Status
from evaluation.metric_catalogue import CATALOGUE
from evaluation.registry import build_metric
from evaluation.running.run_record import RecordedMetric, RunRecord
from evaluation.running.store import ResultStore
from rewards.factories import load_factory
from rlhf_video.errors import DataError
from rlhf_video.stats import Interval

_Features = list[tuple[str, NDArray[np.float32]]]
"""Prompt and features, shape (items, width), of each clip."""


@dataclass(frozen=True)
class LostClip:
    """A clip without features."""

    system: str
    clip: str
    """Prompt and file name."""
    status: Status
    """skipped or failed."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class SetDistance:
    """One distance."""

    label: str
    """Of the metric."""
    system: str
    reference: str
    """The system whose clips are the reference."""
    value: float | None
    """None where there is none."""
    unit: str
    num_clips: tuple[int, int]
    """Clips with features, of the system and of the reference."""
    lost: tuple[LostClip, ...] = ()
    """Clips of either system without features: what is left may be of other prompts."""
    refused: str | None = None
    """Why there is none."""
    interval: Interval | None = None
    """The value with its 95% interval over prompts, None where there is none."""
    no_interval: str | None = None
    """Why there is no interval, None where there is one or no value."""

    @property
    def ends(self) -> str:
        """The interval as text, or why there is none; empty where there is no value."""
        if self.interval is not None:
            return f"{self.interval.low:.4g} to {self.interval.high:.4g}"
        return "" if self.value is None else f"no interval: {self.no_interval}"

    def __str__(self) -> str:
        """Return it as one line."""
        sizes = f"{self.num_clips[0]} against {self.num_clips[1]} clips"
        if self.lost:
            sizes += f"; {len(self.lost)} have no features, first {self.lost[0].clip}: {self.lost[0].reason}"
        value = f"{self.value:.4g} [{self.ends}] {self.unit}" if self.value is not None else f"none, {self.refused}"
        return f"{self.label} of {self.system} from {self.reference}: {value} ({sizes})"


def set_distances(record: RunRecord, store: ResultStore) -> tuple[SetDistance, ...]:
    """Return each set metric's distance of every system from the baseline's clips.

    Raises:
        RewardError: A metric cannot be built.
    """
    found = []
    for recorded in record.metrics:
        if not recorded.is_set_metric:
            continue
        measure = _measure(recorded)
        reference = _features(record.systems[record.baseline], recorded, store)
        lost = {name: _lost(name, entries, recorded, store) for name, entries in record.systems.items()}
        for name, entries in record.systems.items():
            if name != record.baseline:
                features = _features(entries, recorded, store)
                of_both = (*lost[name], *lost[record.baseline])
                found.append(_distance(measure, recorded, name, record.baseline, features, reference, of_both))
    return tuple(found)


@dataclass(frozen=True)
class _Measure:
    """What a metric computes from features alone."""

    distance: Callable[..., float]
    interval: Callable[..., Interval] | None


def _measure(recorded: RecordedMetric) -> _Measure:
    """Return a metric's functions: those of its class where they do without a model, else those of a built one.

    Raises:
        RewardError: A metric whose distance is no static method cannot be built.
    """
    factory = load_factory("metric", recorded.name, CATALOGUE)
    distance = inspect.getattr_static(factory, "distance", None)
    if isinstance(distance, staticmethod):
        return _Measure(distance.__func__, getattr(factory, "interval", None))
    metric = build_metric(recorded.name, recorded.label, recorded.options).metric
    assert isinstance(metric, SetMetric)
    return _Measure(metric.distance, getattr(metric, "interval", None))


def _distance(
    measure: _Measure,
    recorded: RecordedMetric,
    system: str,
    reference_system: str,
    features: _Features,
    reference: _Features,
    lost: tuple[LostClip, ...],
) -> SetDistance:
    value, refused, interval, no_interval = None, None, None, None
    if not features or not reference:
        refused = "one of the two has no features"
    else:
        try:
            value = measure.distance(_rows(features), _rows(reference))
        except DataError as error:
            refused = str(error)
        else:
            interval, no_interval = _interval(measure, features, reference)
    return SetDistance(
        label=recorded.label,
        system=system,
        reference=reference_system,
        value=value,
        unit=recorded.spec.unit,
        num_clips=(len(features), len(reference)),
        lost=lost,
        refused=refused,
        interval=interval,
        no_interval=no_interval,
    )


def _interval(measure: _Measure, features: _Features, reference: _Features) -> tuple[Interval | None, str | None]:
    """Return the interval of a distance, or why it has none."""
    if measure.interval is None:
        return None, "its metric gives none (a Frechet distance is biased by more than it spreads)"
    try:
        interval = measure.interval(
            _rows(features), _rows(reference), clusters=_prompts(features), reference_clusters=_prompts(reference)
        )
    except DataError as error:
        return None, str(error)
    return interval, None


def _rows(features: _Features) -> NDArray[np.float32]:
    return np.concatenate([rows for _, rows in features])


def _prompts(features: _Features) -> list[str]:
    """Return the prompt of each row."""
    return [prompt for prompt, rows in features for _ in rows]


def _features(entries: tuple[ClipEntry, ...], recorded: RecordedMetric, store: ResultStore) -> _Features:
    """Return prompt and features of every clip that has some."""
    results = [(entry, store.find(entry, recorded.key)) for entry in entries]
    return [
        (entry.prompt, store.features(entry, recorded.key))
        for entry, result in results
        if result and result.status == "ok"
    ]


def _lost(
    system: str, entries: tuple[ClipEntry, ...], recorded: RecordedMetric, store: ResultStore
) -> tuple[LostClip, ...]:
    """Return every clip of a system that has no features, with the reason."""
    results = [(entry, store.find(entry, recorded.key)) for entry in entries]
    return tuple(
        LostClip(system, f"{entry.prompt} ({entry.file.name})", result.status, result.reason or "no reason recorded")
        for entry, result in results
        if result and result.status != "ok"
    )
