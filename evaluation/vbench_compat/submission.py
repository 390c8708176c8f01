"""The archive that VBench's leaderboard takes: a zip whose top level holds the result files, and nothing else.

Its reader (scripts/cal_final_score.py of VBench; the leaderboard asks to check with it) takes every dictionary of every
JSON file as {dimension: [aggregate, ...]} and counts a dimension that is missing as 0, so nothing else may be a JSON
dictionary, and an incomplete archive scores lower than the model is.
"""

import io
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from evaluation.base import Family
from evaluation.scores import SystemScores
from evaluation.vbench_compat.columns import lacks_static_filter
from evaluation.vbench_compat.result_files import (
    INFO_END,
    RESULTS_END,
    full_info_of,
    results_of,
    to_json,
    vbench_columns,
)
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS
from rlhf_video.data import write_atomic
from rlhf_video.errors import DataError

CLIPS_PER_PROMPT = 5
NUM_PROMPTS = {
    "subject_consistency": 72,
    "background_consistency": 86,
    "temporal_flickering": 75,
    "motion_smoothness": 72,
    "dynamic_degree": 72,
    "aesthetic_quality": 93,
    "imaging_quality": 93,
    "object_class": 79,
    "multiple_objects": 82,
    "human_action": 100,
    "color": 85,
    "spatial_relationship": 84,
    "scene": 86,
    "appearance_style": 90,
    "temporal_style": 100,
    "overall_consistency": 93,
}
"""Prompts of each dimension in VBench_full_info.json."""
_NAMED = 8  # gaps that a message lists
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold: the same scores give the same bytes


@dataclass(frozen=True)
class Submission:
    """What was packed."""

    path: Path
    gaps: tuple[str, ...]
    """What it lacks; empty for a complete one."""


def write_submission(folder: Path, scores: SystemScores, *, name: str, partial: bool = False) -> Submission:
    """Pack the official results of a system.

    Args:
        folder: Target of NAME.zip (NAME-PARTIAL.zip where something is missing).
        scores: One system; only columns of the family vbench-official count.
        name: Model's name, for the files.
        partial: Whether to pack what there is, labelled; for looking at, not for uploading.

    Raises:
        DataError: Something is missing and `partial` is not asked for (the message lists it), or the name is no file's.
        OSError: The disk is full or the folder is not writable.
    """
    if not name or name.startswith(".") or Path(name).name != name:
        raise DataError(
            f"'{name}' cannot name an archive: use letters, digits, dots and dashes, for example 'wan2.1-dpo'."
        )
    gaps = submission_gaps(scores)
    if gaps and not partial:
        more = f"\n- and {len(gaps) - _NAMED} more" if len(gaps) > _NAMED else ""
        listed = "\n".join(f"- {gap}" for gap in gaps[:_NAMED])
        raise DataError(
            f"'{scores.system}' is not complete, and the leaderboard counts what is missing as 0:\n{listed}{more}\n"
            "Score what is missing, or pack it for yourself with --partial."
        )
    stem = f"{name}-PARTIAL" if gaps else name
    family: Family = "vbench-official"
    files = {
        f"{stem}{RESULTS_END}": to_json(results_of(scores, family)),
        f"{stem}{INFO_END}": to_json(full_info_of(scores, family)),
    }
    if gaps:
        files["PARTIAL.txt"] = ("Not for the leaderboard. Missing:\n" + "\n".join(gaps) + "\n").encode()
    path = folder / f"{stem}.zip"
    write_atomic(path, _packed(files))
    return Submission(path, gaps)


def submission_gaps(scores: SystemScores) -> tuple[str, ...]:
    """Return what keeps a system's official results from being complete; nothing where they are.

    Raises:
        DataError: There is no official column, or two of one dimension.
    """
    columns = vbench_columns(scores, "vbench-official")
    gaps = [f"{dimension}: not measured" for dimension in VBENCH_DIMENSIONS if dimension not in columns]
    for dimension, column in columns.items():
        gaps += _gaps_of(dimension, scores, column.name)
        if lacks_static_filter(column):
            gaps.append(f"{dimension}: no static filter is on record, and VBench scores clips that stand still alone")
    return tuple(gaps)


def _gaps_of(dimension: str, scores: SystemScores, column: str) -> list[str]:
    statuses, num_asked = scores.statuses[column], scores.num_asked(column)
    asked = [(entry, status) for entry, status in zip(scores.entries, statuses, strict=True) if status is not None]
    clips = Counter(entry.prompt for entry, _ in asked)
    # VBench's static filter leaves as few clips of temporal flickering as stand still.
    least = 1 if dimension == "temporal_flickering" else CLIPS_PER_PROMPT
    few = [prompt for prompt, count in clips.items() if count < least]
    may_skip = VBENCH_DIMENSIONS[dimension].may_skip
    held = sum(status == "ok" or (may_skip and status == "skipped") for _, status in asked)
    gaps = []
    if held < num_asked or "ok" not in statuses:
        gaps.append(f"{dimension}: {held} of {num_asked} clips have a value")
    if few:
        gaps.append(f"{dimension}: {len(few)} prompts have fewer than {least} clips, first '{few[0]}'")
    if len(clips) < NUM_PROMPTS[dimension]:
        gaps.append(f"{dimension}: {len(clips)} of VBench's {NUM_PROMPTS[dimension]} prompts were measured")
    return gaps


def _packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            facts = zipfile.ZipInfo(name, _DATE)
            facts.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(facts, content)
    return buffer.getvalue()
