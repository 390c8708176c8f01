"""Score clips: each is decoded once for all metrics, and every result is stored before the next one is computed."""

import errno
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from evaluation.base import (
    ClipEntry,
    ClipResult,
    ClipScore,
    DecodedClip,
    LeftOutClip,
    MetricSpec,
    SetMetric,
    SkipClipError,
    Status,
)
from evaluation.registry import NamedMetric
from evaluation.running.store import ResultStore
from evaluation.scores import Column, SystemScores
from rlhf_video.data import read_frames
from rlhf_video.errors import DataError

_Cell = tuple[float, Status | None, str | None]
"""Value, status and reason of a clip in one column."""


class MetricFacts(Protocol):
    """What tables need of a metric: a built one, or what a run recorded of it."""

    @property
    def label(self) -> str:
        """As tables call it."""

    @property
    def key(self) -> str:
        """Under which its results are stored."""

    @property
    def spec(self) -> MetricSpec:
        """Its facts."""

    @property
    def is_set_metric(self) -> bool:
        """Whether it compares sets of clips, and so has no value of one clip."""

    def column(self, dimension: str) -> str:
        """Return the name of a dimension's column."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is, reported after each clip."""

    num_done: int
    """Clips of this shard that are complete."""
    num_clips: int
    """Clips of this shard."""
    num_failed: int
    """Results of this call that failed."""


def is_asked(entry: ClipEntry | LeftOutClip, spec: MetricSpec, dimension: str) -> bool:
    """Return whether a suite asks a dimension of a clip: VBench asks each of its own of some prompts alone."""
    if entry.dimensions is None or not spec.family.startswith("vbench"):
        return True
    return dimension in entry.dimensions


def pending(
    entry: ClipEntry, metrics: Sequence[MetricFacts], store: ResultStore, *, retry_failed: bool = False
) -> list[int]:
    """Return the numbers of the metrics that are asked of a clip and have no result (or a failed one, to retry)."""
    numbers = []
    for number, metric in enumerate(metrics):
        if any(is_asked(entry, metric.spec, dimension) for dimension in metric.spec.dimensions):
            result = store.find(entry, metric.key)
            if result is None or (retry_failed and result.status == "failed"):
                numbers.append(number)
    return numbers


def score_clips(
    entries: Sequence[ClipEntry],
    metrics: Sequence[NamedMetric],
    store: ResultStore,
    *,
    shard: tuple[int, int] = (0, 1),
    on_progress: Callable[[Progress], None] | None = None,
    retry_failed: bool = False,
) -> None:
    """Compute every result that is not stored yet.

    Args:
        entries: Clips of all systems; a clip that is there twice is scored once.
        metrics: What to measure.
        store: Where results are, and go.
        shard: (index, count): this process takes clips index, index + count, ...
        on_progress: Called after each clip.
        retry_failed: Compute again what failed before.

    Raises:
        OSError: The disk is full; what was stored stays.
        RuntimeError: The GPU is lost (a CUDA error sticks to the process).
    """
    index, count = shard
    mine = list(entries)[index::count]
    failed = 0
    for number, entry in enumerate(mine, 1):
        todo = pending(entry, metrics, store, retry_failed=retry_failed)
        if todo:
            failed += _score_clip(entry, [metrics[i] for i in todo], store)
        if on_progress is not None:
            on_progress(Progress(num_done=number, num_clips=len(mine), num_failed=failed))


def system_scores(
    system: str,
    entries: Sequence[ClipEntry],
    metrics: Sequence[MetricFacts],
    store: ResultStore,
    *,
    left_out: Sequence[LeftOutClip] = (),
) -> SystemScores:
    """Return the columns of one system from what is stored.

    Args:
        system: As tables call it.
        entries: Its clips.
        metrics: Set metrics have no column: they say nothing about one clip.
        store: Results; a clip that has none yet counts as failed with the reason "not scored yet".
        left_out: Clips of the suite that it lacks, or that are broken.
    """
    columns, values, statuses, reasons, lost, beyond = [], {}, {}, {}, {}, {}
    for metric in metrics:
        spec = metric.spec
        if metric.is_set_metric:
            continue
        results = [store.find(entry, metric.key) for entry in entries]
        for dimension in spec.dimensions:
            name = metric.column(dimension)
            every = _column(entries, spec, dimension, results)
            column = _first_of_prompt(entries, every, spec.first_of_prompt)
            columns.append(
                Column(
                    name=name,
                    family=spec.family,
                    unit=spec.unit,
                    higher_is_better=spec.higher_is_better,
                    metric=metric.key,
                    first_of_prompt=spec.first_of_prompt,
                )
            )
            values[name] = np.array([value for value, _, _ in column], dtype=np.float64)
            statuses[name] = tuple(status for _, status, _ in column)
            reasons[name] = {i: reason for i, (_, _, reason) in enumerate(column) if reason is not None}
            lost[name] = tuple(clip for clip in left_out if is_asked(clip, spec, dimension))
            if spec.first_of_prompt is not None:
                beyond[name] = np.where(np.isnan(values[name]), [value for value, _, _ in every], math.nan)
    return SystemScores(
        system=system,
        entries=tuple(entries),
        columns=tuple(columns),
        values=values,
        statuses=statuses,
        reasons=reasons,
        left_out=lost,
        beyond_first=beyond,
    )


def _column(
    entries: Sequence[ClipEntry], spec: MetricSpec, dimension: str, results: Sequence[ClipResult | None]
) -> list[_Cell]:
    """Return the cells of one dimension."""
    column: list[_Cell] = []
    for entry, result in zip(entries, results, strict=True):
        if not is_asked(entry, spec, dimension):
            column.append((math.nan, None, None))
        elif result is None:
            column.append((math.nan, "failed", "not scored yet"))
        elif result.status == "ok":
            column.append((result.values[dimension], "ok", None))
        else:
            column.append((math.nan, result.status, result.reason))
    return column


def _first_of_prompt(entries: Sequence[ClipEntry], column: Sequence[_Cell], count: int | None) -> Sequence[_Cell]:
    """Skip what has a value but comes after the first `count` values of its prompt; None keeps all."""
    if count is None:
        return column
    kept, taken = list(column), Counter[str]()
    for i in sorted(range(len(entries)), key=lambda i: entries[i].sample):
        if column[i][1] == "ok":
            taken[entries[i].prompt] += 1
            if taken[entries[i].prompt] > count:
                kept[i] = (math.nan, "skipped", f"the first {count} clips of its prompt that pass are enough")
    return kept


def _score_clip(entry: ClipEntry, metrics: Sequence[NamedMetric], store: ResultStore) -> int:
    """Score one clip by some metrics; return how many failed."""
    clip: DecodedClip | None = None
    problem: str | None = None
    if any(metric.spec.reads == "frames" for metric in metrics):
        try:
            clip = DecodedClip(entry, *read_frames(entry.file))
        except DataError as error:
            problem = str(error)
    if clip is None:  # a metric that opens the file itself gets no pixels
        clip = DecodedClip(entry, torch.empty(0, 3, 0, 0, dtype=torch.uint8), 0.0)
    failed = 0
    for metric in metrics:
        if problem is not None and metric.spec.reads == "frames":
            result = ClipResult(status="failed", reason=problem)
        else:
            result = try_metric(metric, clip, store)
        store.add(entry, metric.key, result)
        failed += result.status == "failed"
    return failed


def try_metric(named: NamedMetric, clip: DecodedClip, store: ResultStore | None = None) -> ClipResult:
    """Run one metric on one clip; its exceptions become a status.

    Args:
        named: The metric.
        clip: What it looks at.
        store: Takes the features of a set metric; None keeps nothing.

    Raises:
        OSError, RuntimeError: What ends a run whatever the clip: a full disk, a GPU that failed.
    """
    start = time.perf_counter()
    try:
        with torch.no_grad():
            score = _score(named, clip, store)
    except SkipClipError as error:
        return ClipResult(status="skipped", reason=str(error), seconds=time.perf_counter() - start)
    except Exception as error:  # whatever a metric raises counts against the coverage, see evaluation/base.py
        if _ends_the_run(error):
            raise
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return ClipResult(status="failed", reason=reason, seconds=time.perf_counter() - start)
    return ClipResult(status="ok", values=score.values, curves=score.curves, seconds=time.perf_counter() - start)


def _score(named: NamedMetric, clip: DecodedClip, store: ResultStore | None) -> ClipScore:
    if isinstance(named.metric, SetMetric):
        features = named.metric.features(clip)
        if store is not None:
            store.add_features(clip.entry, named.key, features)
        return ClipScore(values={})
    score = named.metric.score(clip)
    _check(score, named.spec)
    return score


def _check(score: ClipScore, spec: MetricSpec) -> None:
    """Refuse what is no number: a NaN in a table would pass for a missing clip."""
    values: Mapping[str, float] = score.values
    if sorted(values) != sorted(spec.dimensions):
        raise DataError(f"the metric gave {sorted(values)}, and declares {sorted(spec.dimensions)}")
    if unfit := [name for name, value in values.items() if not math.isfinite(value)]:
        raise DataError(f"the metric gave no finite value for {', '.join(unfit)}")
    if unfit := [name for name, curve in score.curves.items() if not all(map(math.isfinite, curve))]:
        raise DataError(f"the metric gave a curve that is not finite for {', '.join(unfit)}")


def _ends_the_run(error: Exception) -> bool:
    """Return whether no later clip can be scored either: a full disk, or a GPU error, which sticks to the process."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    return full or (isinstance(error, RuntimeError) and "CUDA error" in str(error))
