"""VBench's own result files: `NAME_eval_results.json` and `NAME_full_info.json`, read and written.

VBench (arXiv:2311.17982) writes {dimension: [aggregate, [{"video_path": ..., "video_results": ...}, ...]]}, and beside
it a list that says which clips belong to which prompt and dimension. Its `video_results` of imaging_quality are MUSIQ's
0 to 100 while the aggregate is a hundredth of their mean; here every score is in the aggregate's unit.
"""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.base import ClipEntry, Family, Status
from evaluation.scores import Column, SystemScores
from evaluation.vbench_compat.columns import dimension_of
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS
from rlhf_video.data import write_atomic
from rlhf_video.errors import DataError

RESULTS_END, INFO_END = "_eval_results.json", "_full_info.json"
_PER_CLIP_FACTOR: Mapping[str, float] = {"imaging_quality": 100.0}


@dataclass(frozen=True)
class VbenchResult:
    """One dimension of a result file."""

    aggregate: float
    """As VBench aggregated it; totals are made of these."""
    clips: Mapping[str, float]
    """Path as written -> score in the aggregate's unit."""


def read_vbench_results(path: Path) -> dict[str, VbenchResult]:
    """Read a result file, or all `*_eval_results.json` of a folder (VBench writes one per call, often one a dimension).

    Raises:
        DataError: Nothing to read, not this format, an unknown dimension, a value that is no number, or a dimension
            that two files give differently.
    """
    files = sorted(path.glob(f"*{RESULTS_END}")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"'{path}' holds no *{RESULTS_END}: name VBench's output folder, or one such file.")
    found: dict[str, VbenchResult] = {}
    for file in files:
        for dimension, result in _read_file(file).items():
            if found.setdefault(dimension, result) != result:
                raise DataError(f"'{file}' gives {dimension} again with other values: keep one run in the folder.")
    return found


def vbench_scores(results: Mapping[str, VbenchResult], system: str) -> SystemScores:
    """Return VBench's results as a table, so that they can be summarised and compared like our own.

    Prompt and sample are read from file names `{prompt}-{sample}.mp4`; seeds and hashes are not known. Means over clips
    can differ from VBench's aggregate where it pools frames (`pooled_mean` of totals.py).

    Args:
        results: As read.
        system: What to call it.

    Raises:
        DataError: There is no clip, or two paths of one dimension have the same file name.
    """
    names = list(dict.fromkeys(Path(path).name for result in results.values() for path in result.clips))
    if not names:
        raise DataError(f"The results of '{system}' hold no clip: VBench was run on an empty folder.")
    entries = tuple(_entry(name) for name in names)
    columns, values, statuses = [], {}, {}
    for dimension, result in results.items():
        by_name = {Path(path).name: value for path, value in result.clips.items()}
        if len(by_name) != len(result.clips):
            raise DataError(f"{dimension} of '{system}' names two clips alike in different folders: keep one.")
        columns.append(Column(name=dimension, family="vbench-official", unit="score", higher_is_better=True))
        values[dimension] = np.array([by_name.get(name, math.nan) for name in names])
        statuses[dimension] = tuple[Status | None, ...]("ok" if name in by_name else None for name in names)
    reasons: dict[str, dict[int, str]] = {column.name: {} for column in columns}
    return SystemScores(
        system=system, entries=entries, columns=tuple(columns), values=values, statuses=statuses, reasons=reasons
    )


def write_vbench_files(
    folder: Path, scores: SystemScores, *, name: str, family: Family = "vbench-official"
) -> tuple[Path, Path]:
    """Write a system's VBench scores in VBench's format and return both paths.

    Ports are written under a name that says so. Clips without a value are left out, as VBench leaves them out.

    Args:
        folder: Target; made where it is missing.
        scores: One system.
        name: Of the files, as VBench's `name`.
        family: Whose numbers.

    Raises:
        DataError: The system has no dimension of this family, or two columns of one dimension.
        OSError: The disk is full or the folder is not writable.
    """
    stem = name if family == "vbench-official" else f"{name}-{family}"
    paths = folder / f"{stem}{RESULTS_END}", folder / f"{stem}{INFO_END}"
    contents = results_of(scores, family), full_info_of(scores, family)
    for path, content in zip(paths, contents, strict=True):
        write_atomic(path, to_json(content))
    return paths


def results_of(scores: SystemScores, family: Family) -> dict[str, list[Any]]:
    """Return what `_eval_results.json` holds; errors as of `write_vbench_files`."""
    results: dict[str, list[Any]] = {}
    for dimension, column in vbench_columns(scores, family).items():
        factor = _PER_CLIP_FACTOR.get(dimension, 1.0)
        known = [(entry, float(value)) for entry, value in zip(scores.entries, scores.values[column.name], strict=True)]
        known = [(entry, value) for entry, value in known if math.isfinite(value)]
        if known:
            clips = [{"video_path": clip_name(entry), "video_results": factor * value} for entry, value in known]
            results[dimension] = [sum(value for _, value in known) / len(known), clips]
    return results


def full_info_of(scores: SystemScores, family: Family) -> list[dict[str, Any]]:
    """Return what `_full_info.json` holds, each prompt with its dimensions and clips; errors as of the writer."""
    columns = vbench_columns(scores, family)
    prompts: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(scores.entries):
        asked = [name for name, column in columns.items() if scores.statuses[column.name][index] is not None]
        if asked:
            info = prompts.setdefault(entry.prompt, {"prompt_en": entry.prompt, "dimension": asked, "video_list": []})
            info["video_list"].append(clip_name(entry))
            extra = {dimension: entry.facts[dimension] for dimension in asked if dimension in entry.facts}
            if extra:
                info["auxiliary_info"] = extra
    return list(prompts.values())


def vbench_columns(scores: SystemScores, family: Family) -> dict[str, Column]:
    """Return a system's columns of a family by VBench's dimension, in VBench's order.

    Raises:
        DataError: There is none, or a dimension is there twice.
    """
    found: dict[str, Column] = {}
    for column in scores.columns:
        dimension = dimension_of(column)
        if column.family == family and dimension is not None:
            if dimension in found:
                raise DataError(
                    f"'{scores.system}' has {dimension} of {family} twice, in {found[dimension].name} and "
                    f"{column.name}: leave one of the metrics out."
                )
            found[dimension] = column
    if not found:
        raise DataError(
            f"'{scores.system}' has no score of {family}: add its metrics to the configuration and run them."
        )
    return {dimension: found[dimension] for dimension in VBENCH_DIMENSIONS if dimension in found}


def clip_name(entry: ClipEntry) -> str:
    """Return VBench's file name of a clip; folders of this machine do not belong into files that others get."""
    return f"{entry.prompt}-{entry.sample}.mp4"


def to_json(content: object) -> bytes:
    """Return JSON as VBench writes it, without NaN."""
    return (json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read_file(file: Path) -> dict[str, VbenchResult]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{file}' cannot be read as JSON ({error}): name one of VBench's *{RESULTS_END}.") from error
    if not isinstance(content, dict):
        raise DataError(f"'{file}' is no result file of VBench, which holds {{dimension: [aggregate, clips]}}.")
    return {dimension: _read_dimension(file, dimension, held) for dimension, held in content.items()}


def _read_dimension(file: Path, dimension: str, held: object) -> VbenchResult:
    if dimension not in VBENCH_DIMENSIONS:
        close = difflib.get_close_matches(dimension, VBENCH_DIMENSIONS, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise DataError(
            f"'{file}' holds '{dimension}', no dimension of VBench.{hint} It has: {', '.join(VBENCH_DIMENSIONS)}."
        )
    if not isinstance(held, list) or len(held) != 2 or not isinstance(held[1], list):
        raise DataError(f"'{file}': {dimension} must be [aggregate, clips], as VBench writes it.")
    factor = _PER_CLIP_FACTOR.get(dimension, 1.0)
    clips = {}
    for place, clip in enumerate(held[1]):
        if not isinstance(clip, dict) or not {"video_path", "video_results"} <= clip.keys():
            raise DataError(f"'{file}': clip {place} of {dimension} needs video_path and video_results.")
        where = f"'{file}': {dimension} of {clip['video_path']}"
        clips[str(clip["video_path"])] = _number(clip["video_results"], where) / factor
    return VbenchResult(_number(held[0], f"'{file}': {dimension}"), clips)


def _number(value: object, where: str) -> float:
    """Return a score as a number; VBench writes true and false for dynamic degree and human action."""
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        raise DataError(f"{where} is {value!r}, not a number: the evaluation of this clip failed, run it again.")
    return float(value)


def _entry(name: str) -> ClipEntry:
    prompt, _, number = Path(name).stem.rpartition("-")
    is_numbered = bool(prompt) and number.isdecimal()
    return ClipEntry(
        file=Path(name),
        sha256="",
        prompt=prompt if is_numbered else Path(name).stem,
        sample=int(number) if is_numbered else 0,
    )
