"""Distances between sets from stored features: their value, their interval over prompts, or why there is none."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.aggregation.set_distances import SetDistance, set_distances
from evaluation.base import ClipEntry, ClipResult, DecodedClip, MetricSpec
from evaluation.metrics.kernel_distance import kernel_distance, kernel_distance_interval
from evaluation.report.details import distance_table, holes_table
from evaluation.running.run_record import RecordedMetric, RunRecord
from evaluation.running.store import ResultStore
from rlhf_video.stats import Interval

SPEC = MetricSpec(
    name="gap",
    version="1",
    family="measure",
    dimensions=("gap",),
    unit="squares",
    higher_is_better=False,
    uses_prompt=False,
)


class PlainDistance:
    spec = SPEC

    def __init__(self) -> None:
        raise AssertionError("a report loads no model")

    def features(self, clip: DecodedClip) -> NDArray[np.float32]:
        raise NotImplementedError

    @staticmethod
    def distance(features: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
        return kernel_distance(features, reference)


class BuiltDistance:
    """One whose distance is the object's own."""

    spec = SPEC

    def features(self, clip: DecodedClip) -> NDArray[np.float32]:
        raise NotImplementedError

    def distance(self, features: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
        return kernel_distance(features, reference)


class SureDistance(PlainDistance):
    @staticmethod
    def interval(
        features: NDArray[np.float32],
        reference: NDArray[np.float32],
        *,
        clusters: ArrayLike | None = None,
        reference_clusters: ArrayLike | None = None,
    ) -> Interval:
        return kernel_distance_interval(features, reference, clusters=clusters, reference_clusters=reference_clusters)


def distance_of(
    folder: Path, metric: type, num_prompts: int, *, broken: int = 0
) -> tuple[SetDistance, dict[str, list[NDArray[np.float32]]]]:
    """Store features of two rows a clip, two clips a prompt, and return the distance and the features."""
    rng, held = np.random.default_rng(0), {}
    systems = {}
    with ResultStore(folder) as store:
        for name in ("base", "mine"):
            systems[name] = tuple(
                ClipEntry(file=Path(f"{i}.mp4"), sha256=f"{name}{i}", prompt=f"prompt {i // 2}", sample=i % 2)
                for i in range(2 * num_prompts)
            )
            held[name] = [rng.normal(size=(2, 3)).astype(np.float32) + (name == "mine") for _ in systems[name]]
            if name == "mine":
                for entry in systems[name][:broken]:
                    store.add(entry, "key", ClipResult(status="failed", reason="no memory"))
            for entry, features in list(zip(systems[name], held[name], strict=True))[broken * (name == "mine") :]:
                store.add_features(entry, "key", features)
                store.add(entry, "key", ClipResult(status="ok"))
        name = f"{__name__}:{metric.__name__}"
        recorded = RecordedMetric(label="gap", key="key", name=name, options={}, is_set_metric=True, spec=SPEC)
        record = RunRecord(
            config={},
            suite={},
            baseline="base",
            systems=systems,
            left_out={},
            metrics=(recorded,),
            absent={},
            provenance={},
        )
        (found,) = set_distances(record, store)
    return found, held


def test_interval_takes_the_clips_of_a_prompt_together(tmp_path: Path) -> None:
    found, held = distance_of(tmp_path, SureDistance, 4)
    prompts = np.repeat([f"prompt {number}" for number in range(4)], 4)
    mine, base = np.concatenate(held["mine"]), np.concatenate(held["base"])
    expected = kernel_distance_interval(mine, base, clusters=prompts, reference_clusters=prompts)
    assert found.interval == expected and found.value == expected.mean and found.no_interval is None
    ends = f"{expected.low:.4g} to {expected.high:.4g}"
    assert ends in str(found) and ends in distance_table([found])


def test_too_few_prompts_and_a_biased_distance_say_that_they_have_none(tmp_path: Path) -> None:
    few, _ = distance_of(tmp_path / "few", SureDistance, 2)
    assert few.value is not None and few.interval is None
    assert few.no_interval is not None and "at least 3 clusters" in few.no_interval
    plain, _ = distance_of(tmp_path / "plain", PlainDistance, 4)
    assert plain.value is not None and plain.interval is None
    assert "no interval: its metric gives none (a Frechet distance is biased" in str(plain)
    assert "no interval" in distance_table([plain])


def test_a_distance_that_needs_its_object_is_built(tmp_path: Path) -> None:
    built, _ = distance_of(tmp_path / "built", BuiltDistance, 4)
    plain, _ = distance_of(tmp_path / "plain", PlainDistance, 4)
    assert built == plain and built.value is not None


def test_clips_without_features_are_told_with_the_reason(tmp_path: Path) -> None:
    whole, _ = distance_of(tmp_path / "whole", PlainDistance, 4)
    assert whole.lost == () and "no features" not in str(whole) and holes_table([], [whole]) is None
    some, _ = distance_of(tmp_path / "some", PlainDistance, 4, broken=2)
    assert [(clip.system, clip.status, clip.clip) for clip in some.lost] == [
        ("mine", "failed", "prompt 0 (0.mp4)"),
        ("mine", "failed", "prompt 0 (1.mp4)"),
    ]
    assert "6 against 8 clips; 2 have no features, first prompt 0 (0.mp4): no memory" in str(some)
    table = holes_table([], [some])
    assert table is not None and "no memory" in table and "gap" in table
