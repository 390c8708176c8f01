"""Distances between the clips of two systems as sets (FVD, FID and the like), from stored features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.base import ClipEntry, SetMetric
from evaluation.registry import build_metric
from evaluation.running.run_record import RecordedMetric, RunRecord
from evaluation.running.store import ResultStore
from rlhf_video.errors import DataError


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
    refused: str | None = None
    """Why there is none."""

    def __str__(self) -> str:
        """Return it as one line."""
        sizes = f"{self.num_clips[0]} against {self.num_clips[1]} clips"
        value = f"{self.value:.4g} {self.unit}" if self.value is not None else f"none, {self.refused}"
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
        metric = build_metric(recorded.name, recorded.label, recorded.options).metric
        assert isinstance(metric, SetMetric)
        reference = _features(record.systems[record.baseline], recorded, store)
        for name, entries in record.systems.items():
            if name != record.baseline:
                features = _features(entries, recorded, store)
                found.append(_distance(metric, recorded, name, record.baseline, features, reference))
    return tuple(found)


def _distance(
    metric: SetMetric,
    recorded: RecordedMetric,
    system: str,
    reference_system: str,
    features: list[NDArray[np.float32]],
    reference: list[NDArray[np.float32]],
) -> SetDistance:
    value, refused = None, None
    if not features or not reference:
        refused = "one of the two has no features"
    else:
        try:
            value = metric.distance(np.concatenate(features), np.concatenate(reference))
        except DataError as error:
            refused = str(error)
    return SetDistance(
        label=recorded.label,
        system=system,
        reference=reference_system,
        value=value,
        unit=recorded.spec.unit,
        num_clips=(len(features), len(reference)),
        refused=refused,
    )


def _features(
    entries: tuple[ClipEntry, ...], recorded: RecordedMetric, store: ResultStore
) -> list[NDArray[np.float32]]:
    """Return the features of every clip that has some."""
    results = [(entry, store.find(entry, recorded.key)) for entry in entries]
    return [store.features(entry, recorded.key) for entry, result in results if result and result.status == "ok"]
