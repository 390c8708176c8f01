import functools
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.base import ClipEntry, Family, LeftOutClip, Status
from evaluation.scores import Column, SystemScores
from evaluation.vbench_compat.columns import plan_totals
from evaluation.vbench_compat.result_files import read_vbench_results, vbench_scores, write_vbench_files
from evaluation.vbench_compat.submission import CLIPS_PER_PROMPT, NUM_PROMPTS, submission_gaps, write_submission
from evaluation.vbench_compat.totals import VBENCH_DIMENSIONS, normalise
from rlhf_video.errors import DataError

DEGREES = (True, False, True)


@functools.cache
def full_scores(*, family: Family = "vbench-official") -> SystemScores:
    """Return a complete system: every dimension, its number of prompts, five clips each."""
    entries, asked = [], []
    for dimension, count in NUM_PROMPTS.items():
        for number in range(count):
            for sample in range(CLIPS_PER_PROMPT):
                prompt = f"{dimension} prompt {number}"
                facts = {"color": {"color": "red"}} if dimension == "color" else {}
                file = Path(f"/home/somebody/clips/{prompt}-{sample}.mp4")
                entries.append(
                    ClipEntry(file=file, sha256=str(len(entries)), prompt=prompt, sample=sample, facts=facts)
                )
                asked.append(dimension)
    rng = np.random.default_rng(0)
    values, statuses, columns = {}, {}, []
    for dimension in NUM_PROMPTS:
        mine = np.array(asked) == dimension
        values[dimension] = np.where(mine, rng.uniform(0.2, 0.3, mine.size), np.nan)
        statuses[dimension] = tuple[Status | None, ...]("ok" if is_mine else None for is_mine in mine)
        first = CLIPS_PER_PROMPT if dimension == "temporal_flickering" else None
        columns.append(
            Column(name=dimension, family=family, unit="score", higher_is_better=True, first_of_prompt=first)
        )
    return SystemScores(
        system="model",
        entries=tuple(entries),
        columns=tuple(columns),
        values=values,
        statuses=statuses,
        reasons={dimension: {} for dimension in NUM_PROMPTS},
    )


def without(scores: SystemScores, dimension: str, status: Status) -> SystemScores:
    """Take the value of the first clip of a dimension away."""
    index = next(i for i, held in enumerate(scores.statuses[dimension]) if held == "ok")
    values = {**scores.values, dimension: scores.values[dimension].copy()}
    values[dimension][index] = np.nan
    held = list(scores.statuses[dimension])
    held[index] = status
    return SystemScores(
        system=scores.system,
        entries=scores.entries,
        columns=scores.columns,
        values=values,
        statuses={**scores.statuses, dimension: tuple(held)},
        reasons=scores.reasons,
    )


def leaderboard_totals(archive: Path) -> dict[str, float]:
    """Return raw scores as the leaderboard's reader takes them: every dictionary of every top-level JSON file."""
    found: dict[str, float] = {}
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            assert "/" not in name
            if name.endswith("json"):
                content = json.loads(packed.read(name))
                if isinstance(content, dict):
                    found |= {dimension: held[0] for dimension, held in content.items()}
    return found


def vbench_file(folder: Path, name: str, **dimensions: object) -> Path:
    path = folder / f"{name}_eval_results.json"
    path.write_text(json.dumps(dimensions), encoding="utf-8")
    return path


def clips(*values: object) -> list[dict[str, object]]:
    return [{"video_path": f"./clips/a cat-{i}.mp4", "video_results": value} for i, value in enumerate(values)]


def test_files_written_are_read_back_with_the_same_scores(tmp_path: Path) -> None:
    scores = full_scores()
    results, _ = write_vbench_files(tmp_path, scores, name="model")
    back = vbench_scores(read_vbench_results(results), "model")
    assert [column.name for column in back.columns] == list(VBENCH_DIMENSIONS)
    for dimension in VBENCH_DIMENSIONS:
        known = np.isfinite(scores.values[dimension])
        np.testing.assert_allclose(back.values[dimension][known], scores.values[dimension][known], rtol=1e-12)
    assert [entry.prompt for entry in back.entries] == [entry.prompt for entry in scores.entries]


def test_imaging_quality_is_written_in_percent_per_clip_and_in_shares_as_a_whole(tmp_path: Path) -> None:
    results, _ = write_vbench_files(tmp_path, full_scores(), name="model")
    aggregate, per_clip = json.loads(results.read_text())["imaging_quality"]
    assert 0.2 < aggregate < 0.3
    assert np.mean([clip["video_results"] for clip in per_clip]) == pytest.approx(100.0 * aggregate)


def test_full_info_names_prompts_dimensions_facts_and_clips_without_private_folders(tmp_path: Path) -> None:
    _, info = write_vbench_files(tmp_path, full_scores(), name="model")
    held = json.loads(info.read_text())
    assert len(held) == sum(NUM_PROMPTS.values())
    red = next(item for item in held if item["dimension"] == ["color"])
    assert red["auxiliary_info"] == {"color": {"color": "red"}}
    assert red["video_list"] == [f"color prompt 0-{i}.mp4" for i in range(5)]
    assert "somebody" not in info.read_text()


def test_ports_are_written_under_a_name_that_says_so(tmp_path: Path) -> None:
    results, _ = write_vbench_files(tmp_path, full_scores(family="vbench-port"), name="model", family="vbench-port")
    assert results.name == "model-vbench-port_eval_results.json"
    with pytest.raises(DataError, match="no score of vbench-official"):
        write_submission(tmp_path, full_scores(family="vbench-port"), name="model", partial=True)


def test_vbench_files_of_single_dimensions_are_joined_and_booleans_are_numbers(tmp_path: Path) -> None:
    vbench_file(tmp_path, "one", dynamic_degree=[2 / 3, clips(*DEGREES)])
    vbench_file(tmp_path, "two", imaging_quality=[0.6, clips(55.0, 65.0)])
    results = read_vbench_results(tmp_path)
    assert results["dynamic_degree"].aggregate == pytest.approx(2 / 3)
    assert list(results["imaging_quality"].clips.values()) == [0.55, 0.65]
    scores = vbench_scores(results, "theirs")
    assert scores.values["dynamic_degree"].tolist() == [1.0, 0.0, 1.0]
    assert scores.statuses["imaging_quality"] == ("ok", "ok", None)
    assert [(entry.prompt, entry.sample) for entry in scores.entries] == [("a cat", 0), ("a cat", 1), ("a cat", 2)]


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ({"colour": [0.5, clips(0.5)]}, "Did you mean 'color'"),
        ({"color": 0.5}, r"must be \[aggregate, clips\]"),
        ({"color": [0.5, [{"video_path": "a"}]]}, "clip 0 of color needs"),
        ({"color": [0.5, clips(float("nan"))]}, "nan, not a number"),
        ({"color": ["0.5", clips(0.5)]}, "'0.5', not a number"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, dimensions: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_vbench_results(vbench_file(tmp_path, "bad", **dimensions))


def test_broken_missing_and_contradicting_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no"):
        read_vbench_results(tmp_path)
    (tmp_path / "cut_eval_results.json").write_text('{"color": [0.5, [')
    with pytest.raises(DataError, match="cannot be read as JSON"):
        read_vbench_results(tmp_path)
    vbench_file(tmp_path, "cut", color=[0.5, clips(0.5)])
    vbench_file(tmp_path, "other", color=[0.6, clips(0.6)])
    with pytest.raises(DataError, match="color again with other values"):
        read_vbench_results(tmp_path)


def test_a_complete_submission_is_what_the_leaderboard_reads(tmp_path: Path) -> None:
    scores = full_scores()
    packed = write_submission(tmp_path, scores, name="model")
    assert packed.gaps == ()
    assert packed.path.name == "model.zip"
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.namelist() == ["model_eval_results.json", "model_full_info.json"]
    raw = leaderboard_totals(packed.path)
    plan = next(plan for plan in plan_totals(scores) if plan.name == "total")
    assert plan.formula is not None
    assert set(raw) == set(VBENCH_DIMENSIONS)
    quality = {
        name: normalise(name, raw[name]) for name, facts in VBENCH_DIMENSIONS.items() if facts.group == "quality"
    }
    semantic = {name: normalise(name, raw[name]) for name in raw if name not in quality}
    weighted = sum(value * VBENCH_DIMENSIONS[name].weight for name, value in quality.items()) / 6.5
    assert plan.formula(raw) == pytest.approx((4.0 * weighted + sum(semantic.values()) / 9.0) / 5.0, rel=1e-12)
    assert write_submission(tmp_path / "again", scores, name="model").path.read_bytes() == packed.path.read_bytes()


def test_what_is_missing_is_listed_and_only_packed_under_a_label(tmp_path: Path) -> None:
    scores = without(full_scores(), "scene", "failed")
    with pytest.raises(DataError, match="scene: 429 of 430 clips have a value"):
        write_submission(tmp_path, scores, name="model")
    assert list(tmp_path.iterdir()) == []
    packed = write_submission(tmp_path, scores, name="model", partial=True)
    assert packed.path.name == "model-PARTIAL.zip"
    with zipfile.ZipFile(packed.path) as archive:
        assert "scene: 429 of 430" in archive.read("PARTIAL.txt").decode()


def test_clips_that_vbench_leaves_out_too_are_no_gap() -> None:
    assert submission_gaps(without(full_scores(), "color", "skipped")) == ()
    assert submission_gaps(without(full_scores(), "color", "failed")) == ("color: 424 of 425 clips have a value",)


def test_flickering_of_clips_that_no_static_filter_saw_is_a_gap() -> None:
    scores = full_scores()
    unfiltered = replace(scores, columns=tuple(replace(column, first_of_prompt=None) for column in scores.columns))
    (gap,) = submission_gaps(unfiltered)
    assert gap.startswith("temporal_flickering: no static filter is on record")


def test_a_clip_that_is_not_there_is_a_gap() -> None:
    clip = LeftOutClip(clip="x-4", prompt="x", sample=4, dimensions=None, reason="missing")
    scores = replace(full_scores(), left_out={"scene": (clip,)})
    assert submission_gaps(scores) == ("scene: 430 of 431 clips have a value",)


def test_too_few_clips_prompts_and_dimensions_are_gaps(tmp_path: Path) -> None:
    vbench_file(tmp_path, "one", color=[0.5, clips(0.5, 0.4)])
    gaps = submission_gaps(vbench_scores(read_vbench_results(tmp_path), "theirs"))
    assert "scene: not measured" in gaps
    assert "color: 1 prompts have fewer than 5 clips, first 'a cat'" in gaps
    assert "color: 1 of VBench's 85 prompts were measured" in gaps


@pytest.mark.parametrize("name", ["", "../model", "a/b", ".hidden"])
def test_an_archive_is_named_like_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot name an archive"):
        write_submission(tmp_path, full_scores(), name=name)
