"""From what is stored to tables, comparisons and the report; no model is loaded and no clip is decoded."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.aggregation.comparison import SystemComparison, compare_systems
from evaluation.aggregation.set_distances import SetDistance, set_distances
from evaluation.aggregation.summary import Summary, summarise
from evaluation.base import ClipEntry
from evaluation.report.page import write_evaluation_report
from evaluation.running.run_record import RecordedMetric, RunRecord, read_record
from evaluation.running.runner import pending, system_scores
from evaluation.running.scoring_run import RESULTS
from evaluation.running.store import ResultStore
from evaluation.scores import SystemScores
from rlhf_video.errors import ConfigError, DataError

REPORT = "report"
"""Folder of the report inside an evaluation's folder."""


@dataclass(frozen=True)
class Outcome:
    """Everything that a run says."""

    record: RunRecord
    scores: tuple[SystemScores, ...]
    """One per system, the baseline first."""
    summaries: tuple[Summary, ...]
    """In the same order."""
    comparisons: tuple[SystemComparison, ...]
    """Each judged system against the baseline."""
    distances: tuple[SetDistance, ...]
    """Of each other system's clips from the baseline's."""


def read_scores(folder: Path, store: ResultStore, record: RunRecord) -> tuple[SystemScores, ...]:
    """Return the scores of every system, the baseline first.

    Raises:
        DataError: Results are missing: the run is not finished.
    """
    left = num_pending(record, store)
    if left:
        raise DataError(
            f"'{folder}' is not finished: {left} results are missing. Give the run command again (each shard's, if it "
            "was shared); vbench_run.py status shows what is left."
        )
    names = [record.baseline, *(name for name in record.systems if name != record.baseline)]
    return tuple(
        system_scores(name, record.systems[name], record.metrics, store, left_out=record.left_out[name])
        for name in names
    )


def conclude(
    folder: Path,
    record: RunRecord | None = None,
    *,
    partial: bool = False,
    num_resamples: int = 10_000,
    baseline: SystemScores | None = None,
) -> Outcome:
    """Summarise and compare the systems of a run.

    Args:
        folder: Of the run.
        record: What was measured; None reads run.json, which another run may have written since.
        partial: Whether totals may leave out what is missing.
        num_resamples: Bootstrap and permutation draws.
        baseline: What the systems are compared with in place of the run's own baseline, from another run.

    Raises:
        DataError: The run is not finished, or holds no pair of clips with another system's.
    """
    record = record or read_record(folder)
    store = ResultStore(folder / RESULTS, None)
    scores = read_scores(folder, store, record)
    if baseline is not None:
        scores = (_renamed(baseline, [system.system for system in scores]), *scores)
    first, others = scores[0], scores[1:]
    if baseline is not None:  # the run's own baseline is judged where there is nothing else to judge
        others = tuple(system for system in others if system.system != record.baseline) or others
    return Outcome(
        record,
        scores,
        tuple(summarise(system, partial=partial, num_resamples=num_resamples) for system in scores),
        tuple(
            compare_systems(first, system, partial=partial, num_resamples=num_resamples, num_permutations=num_resamples)
            for system in others
        ),
        set_distances(record, store),
    )


def write_outcome(folder: Path, outcome: Outcome) -> Path:
    """Write the HTML page and the Markdown of a run and return the page's path."""
    facts: dict[str, Any] = {"suite": outcome.record.suite, **outcome.record.provenance}
    if outcome.record.absent:
        facts["not measured"] = dict(outcome.record.absent)
    store = ResultStore(folder / RESULTS, None)
    curves = {
        name: system_curves(entries, outcome.record.metrics, store) for name, entries in outcome.record.systems.items()
    }
    return write_evaluation_report(
        folder / REPORT,
        outcome.summaries,
        outcome.comparisons,
        outcome.scores,
        facts,
        curves=curves,
        distances=outcome.distances,
    )


def system_curves(
    entries: Sequence[ClipEntry], metrics: Sequence[RecordedMetric], store: ResultStore
) -> Mapping[str, list[Sequence[float]]]:
    """Return column -> the curve of each clip, for columns that have any."""
    curves: dict[str, list[Sequence[float]]] = {}
    for metric in metrics:
        results = [store.find(entry, metric.key) for entry in entries]
        for dimension in metric.spec.dimensions:
            found = [() if result is None else result.curves.get(dimension, ()) for result in results]
            if any(len(curve) for curve in found):
                curves[metric.column(dimension)] = list(found)
    return curves


def num_pending(record: RunRecord, store: ResultStore) -> int:
    """Return how many results a run lacks."""
    return sum(len(pending(entry, record.metrics, store)) for entries in record.systems.values() for entry in entries)


def named_system(text: str, home: Path) -> SystemScores:
    """Return the scores that a command line names.

    Args:
        text: A system of the run in `home`; or the folder of another run, which means its last system; or
            "FOLDER:SYSTEM".
        home: The run that plain names belong to.

    Raises:
        ConfigError: There is no such system.
        DataError: The run is not there, or not finished.
    """
    folder, _, name = text.rpartition(":")
    if not folder and (home / "run.json").is_file() and name in read_record(home).systems:
        folder = str(home)
    elif not folder:
        folder, name = text, ""
    if not (Path(folder) / "run.json").is_file():
        known = ", ".join(read_record(home).systems) if (home / "run.json").is_file() else "none"
        raise ConfigError(
            f"'{text}' is neither a system of {home} (known: {known}), nor the folder of a run, nor FOLDER:SYSTEM."
        )
    record = read_record(Path(folder))
    name = name or list(record.systems)[-1]
    if name not in record.systems:
        raise ConfigError(f"The run {folder} has no system '{name}'. Known: {', '.join(record.systems)}.")
    scores = read_scores(Path(folder), ResultStore(Path(folder) / RESULTS, None), record)
    return next(system for system in scores if system.system == name)


def _renamed(system: SystemScores, taken: Sequence[str]) -> SystemScores:
    """Return the scores under a name that no other system has."""
    name = system.system if system.system not in taken else f"{system.system} (baseline run)"
    return dataclasses.replace(system, system=name)
