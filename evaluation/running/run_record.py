"""What a run measured, in one file: with it and the results, tables are made again without models or videos."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.base import ClipEntry, LeftOutClip, MetricSpec
from evaluation.registry import column_name
from rlhf_video.data import write_atomic
from rlhf_video.errors import DataError

RECORD = "run.json"
FORMAT = 2
"""Number of the file's format: 1 had no clips left out and no options of metrics, and did not say its number."""


@dataclass(frozen=True, kw_only=True)
class RecordedMetric:
    """A metric of a run, without its model."""

    label: str
    """As tables call it."""
    key: str
    """Under which its results are stored."""
    name: str
    """Of the catalogue, or "package.module:Class"."""
    options: Mapping[str, Any]
    """It was built with."""
    is_set_metric: bool
    """Whether it compares sets of clips."""
    spec: MetricSpec
    """Its facts."""

    def column(self, dimension: str) -> str:
        """Return the name of a dimension's column."""
        return column_name(self.label, self.spec, dimension)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run."""

    config: Mapping[str, Any]
    """Resolved settings."""
    suite: Mapping[str, Any]
    """Name, version, sha256 and number of prompts."""
    baseline: str
    """The system that the others are compared with."""
    systems: Mapping[str, tuple[ClipEntry, ...]]
    """Name -> clips."""
    left_out: Mapping[str, tuple[LeftOutClip, ...]]
    """Name -> clips of the suite that the system lacks, or that are broken (only where partial)."""
    metrics: tuple[RecordedMetric, ...]
    """What is measured."""
    absent: Mapping[str, str]
    """Label -> why a metric of the config is not measured (only where partial)."""
    provenance: Mapping[str, Any]
    """Versions, commit, hashes, command."""


def write_record(folder: Path, record: RunRecord) -> Path:
    """Write the record of a run into its folder, atomically."""
    content = {
        "format": FORMAT,
        "config": record.config,
        "suite": record.suite,
        "baseline": record.baseline,
        "systems": {
            name: [_entry_to_json(entry, folder) for entry in entries] for name, entries in record.systems.items()
        },
        "left_out": {
            name: [{**vars(clip), "dimensions": _sorted(clip.dimensions)} for clip in clips]
            for name, clips in record.left_out.items()
        },
        "metrics": [{**vars(metric), "spec": vars(metric.spec)} for metric in record.metrics],
        "absent": dict(record.absent),
        "provenance": record.provenance,
    }
    path = folder / RECORD
    write_atomic(path, (json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n").encode())
    return path


def read_record(folder: Path) -> RunRecord:
    """Read the record of a run.

    Raises:
        DataError: There is none, it is damaged, or of another format.
    """
    path = folder / RECORD
    if not path.is_file():
        raise DataError(f"'{folder}' holds no evaluation ({RECORD} is missing): make one with vbench_run.py run.")
    number: Any = FORMAT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        number = content.get("format", 1)
        if number not in (1, FORMAT):
            raise DataError(_other_format(path, number))
        return RunRecord(
            config=content["config"],
            suite=content["suite"],
            baseline=content["baseline"],
            systems={
                name: tuple(_entry_from_json(entry, folder) for entry in entries)
                for name, entries in content["systems"].items()
            },
            left_out={
                name: tuple(
                    LeftOutClip(**{**clip, "dimensions": _frozen(clip["dimensions"])})
                    for clip in content["left_out"][name]
                )
                for name in content["systems"]
            },
            metrics=tuple(_metric_from_json(metric) for metric in content["metrics"]),
            absent=content["absent"],
            provenance=content["provenance"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if number != FORMAT:
            raise DataError(_other_format(path, number)) from error
        raise DataError(f"'{path}' is damaged ({error}): start the run again, nothing is scored twice.") from error


def _other_format(path: Path, number: object) -> str:
    age = "an earlier" if isinstance(number, int) and number < FORMAT else "a later"
    return (
        f"'{path}' has format {number}, of {age} version of this suite, which reads format {FORMAT}: "
        + ("give the run command of that evaluation again" if age == "an earlier" else "update rlhf-video")
        + (", which writes it anew; what is scored is not scored twice." if age == "an earlier" else ".")
    )


def _entry_to_json(entry: ClipEntry, folder: Path) -> dict[str, Any]:
    inside = entry.file.resolve().is_relative_to(folder.resolve())
    file = os.path.relpath(entry.file, folder) if inside else str(entry.file.resolve())
    return {
        **vars(entry),
        "file": file,
        "dimensions": _sorted(entry.dimensions),
        "facts": dict(entry.facts),
    }


def _entry_from_json(content: dict[str, Any], folder: Path) -> ClipEntry:
    return ClipEntry(
        **{
            **content,
            "file": folder / content["file"],  # an absolute path stays what it is
            "dimensions": _frozen(content["dimensions"]),
        }
    )


def _sorted(dimensions: frozenset[str] | None) -> list[str] | None:
    return None if dimensions is None else sorted(dimensions)


def _frozen(dimensions: list[str] | None) -> frozenset[str] | None:
    return None if dimensions is None else frozenset(dimensions)


def _metric_from_json(content: dict[str, Any]) -> RecordedMetric:
    spec = content["spec"]
    tuples = {name: tuple(spec[name]) for name in ("dimensions", "weights")}
    return RecordedMetric(**{**content, "spec": MetricSpec(**{**spec, **tuples})})
