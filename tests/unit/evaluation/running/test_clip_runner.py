"""One decode per clip, resume, shards, and failures that are never numbers."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation.base import ClipEntry, ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.registry import NamedMetric
from evaluation.running import runner
from evaluation.running.runner import Progress, score_clips, system_scores
from evaluation.running.store import ResultStore
from evaluation.scores import SystemScores
from rlhf_video.data import read_frames

Build = Callable[..., NamedMetric]


def _run(folder: Path, entries: Sequence[ClipEntry], metrics: Sequence[NamedMetric], **options: object) -> SystemScores:
    with ResultStore(folder, options.get("shard", (0, 1))) as store:  # type: ignore[arg-type]
        score_clips(entries, metrics, store, **options)  # type: ignore[arg-type]
    return system_scores("both", entries, metrics, ResultStore(folder, None))


def assert_same(found: SystemScores, expected: SystemScores) -> None:
    assert found.statuses == expected.statuses and found.reasons == expected.reasons
    assert found.columns == expected.columns
    for name, values in expected.values.items():
        np.testing.assert_array_equal(found.values[name], values)


def test_each_clip_is_decoded_once_for_all_metrics(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []

    def counted(path: Path) -> tuple[torch.Tensor, float]:
        decoded.append(path)
        return read_frames(path)

    monkeypatch.setattr(runner, "read_frames", counted)
    _run(tmp_path, entries, [brightness(name="one"), brightness(name="two"), brightness(name="three")])
    assert decoded == [entry.file for entry in entries]


def test_values_and_curves_reach_store_and_table(tmp_path: Path, entries: list[ClipEntry], brightness: Build) -> None:
    scores = _run(tmp_path, entries, [brightness()])
    expected = [float(read_frames(entry.file)[0].float().mean()) / 255 for entry in entries]
    np.testing.assert_allclose(scores.values["mean_level"], expected, rtol=1e-6)
    result = ResultStore(tmp_path, None).find(entries[0], "key of mean_level")
    assert result is not None and len(result.curves["mean_level"]) == 3 and result.seconds > 0


def test_second_run_scores_nothing_again(tmp_path: Path, entries: list[ClipEntry], brightness: Build) -> None:
    first, again = brightness(), brightness()
    assert_same(_run(tmp_path, entries, [again]), _run(tmp_path, entries, [first]))
    assert again.metric.num_calls == 6 and first.metric.num_calls == 0  # type: ignore[union-attr]


def test_same_clip_in_two_systems_is_scored_once(tmp_path: Path, entries: list[ClipEntry], brightness: Build) -> None:
    metric = brightness()
    scores = _run(tmp_path, [*entries, *entries], [metric])
    assert metric.metric.num_calls == 6  # type: ignore[union-attr]
    assert np.isfinite(scores.values["mean_level"]).all()


def test_failed_or_skipped_item_changes_coverage_and_never_a_score(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build, answers: dict[str, object]
) -> None:
    straight = _run(tmp_path / "a", entries, [brightness()])
    holed = _run(tmp_path / "b", entries, [brightness(answers)])
    assert holed.statuses["mean_level"] == ("skipped", "failed", "ok") * 2
    assert holed.reasons["mean_level"] == dict(enumerate(["nothing moves", "RuntimeError: no memory"])) | {
        3: "nothing moves",
        4: "RuntimeError: no memory",
    }
    ok = np.array([False, False, True] * 2)
    np.testing.assert_array_equal(holed.values["mean_level"][ok], straight.values["mean_level"][ok])
    assert np.isnan(holed.values["mean_level"][~ok]).all()
    assert holed.coverage("mean_level") == pytest.approx(1 / 3) and straight.coverage("mean_level") == 1.0


def test_value_that_is_no_number_is_a_failure(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build, not_a_number: dict[str, object]
) -> None:
    scores = _run(tmp_path, entries, [brightness(not_a_number)])
    assert scores.statuses["mean_level"] == ("ok", "ok", "failed") * 2
    assert "no finite value for mean_level" in scores.reasons["mean_level"][2]


def test_broken_clip_fails_every_metric_of_it_and_no_other_clip(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build
) -> None:
    entries[1].file.write_bytes(b"not a video")
    scores = _run(tmp_path, entries, [brightness(name="one"), brightness(name="two")])
    for name in ("one", "two"):
        assert scores.statuses[name] == ("ok", "failed", "ok", "ok", "ok", "ok")
        assert "cannot be decoded" in scores.reasons[name][1]


def test_failures_are_kept_until_they_are_asked_to_be_tried_again(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build, answers: dict[str, object]
) -> None:
    _run(tmp_path, entries, [brightness(answers)])
    kept = _run(tmp_path, entries, [brightness()])
    assert kept.statuses["mean_level"] == ("skipped", "failed", "ok") * 2
    mended = _run(tmp_path, entries, [brightness()], retry_failed=True)
    assert mended.statuses["mean_level"] == ("skipped", "ok", "ok") * 2


def test_three_shards_are_one_run(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build, answers: dict[str, object]
) -> None:
    straight = _run(tmp_path / "one", entries, [brightness(answers), brightness(name="other")])
    shards = [brightness(answers) for _ in range(3)]
    for index, metric in enumerate(shards):
        merged = _run(tmp_path / "three", entries, [metric, brightness(name="other")], shard=(index, 3))
    assert_same(merged, straight)
    assert [metric.metric.num_calls for metric in shards] == [2, 2, 2]  # type: ignore[union-attr]


def test_unscored_clip_is_no_score(tmp_path: Path, entries: list[ClipEntry], brightness: Build) -> None:
    scores = _run(tmp_path, entries, [brightness()], shard=(0, 2))
    assert scores.statuses["mean_level"] == ("ok", "failed") * 3
    assert scores.reasons["mean_level"][1] == "not scored yet"


def test_vbench_dimension_is_asked_of_its_own_prompts_alone(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build
) -> None:
    asked = [replace(entry, dimensions=frozenset({"port"} if i < 2 else {"scene"})) for i, entry in enumerate(entries)]
    port, own = brightness(name="port"), brightness(name="own")
    port.metric.spec = replace(port.spec, family="vbench-port")  # type: ignore[misc]
    scores = _run(tmp_path, asked, [port, own])
    assert scores.statuses["port"] == ("ok", "ok", None, None, None, None)
    assert scores.statuses["own"] == ("ok",) * 6
    assert port.metric.num_calls == 2 and scores.coverage("port") == 1.0  # type: ignore[union-attr]


def test_only_the_first_clips_of_a_prompt_that_have_a_value_count_where_a_metric_says_so(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build
) -> None:
    prompts = {1: "moves", 3: "other"}
    samples = (4, 1, 2, 0, 3, 0)  # in the order of the files
    asked = [
        replace(entry, prompt=prompts.get(i, "still"), sample=samples[i]) for i, entry in enumerate(entries)
    ]  # "still" has the numbers 4, 2, 3, 0
    metric = brightness({"moves": SkipClipError("it moves")})
    metric.metric.spec = replace(metric.spec, first_of_prompt=2)  # type: ignore[misc]
    scores = _run(tmp_path, asked, [metric])
    assert scores.statuses["mean_level"] == ("skipped", "skipped", "ok", "ok", "skipped", "ok")
    assert scores.reasons["mean_level"][0] == "the first 2 clips of its prompt that pass are enough"
    assert np.isnan(scores.values["mean_level"]).tolist() == [True, True, False, False, True, False]
    assert scores.columns[0].first_of_prompt == 2
    assert np.isnan(scores.passed("mean_level")).tolist() == [False, True, False, False, False, False]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(errno.ENOSPC, "No space left"), OSError), (RuntimeError("CUDA error: illegal access"), RuntimeError)],
)
def test_error_that_sticks_ends_the_run_and_what_is_stored_stays(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build, error: Exception, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        _run(tmp_path, entries, [brightness({entries[1].prompt: error})])
    store = ResultStore(tmp_path, None)
    assert len(store) == 1 and store.find(entries[0], "key of mean_level") is not None


def test_progress_counts_clips_and_failures(
    tmp_path: Path, entries: list[ClipEntry], brightness: Build, answers: dict[str, object]
) -> None:
    seen: list[Progress] = []
    _run(tmp_path, entries, [brightness(answers)], on_progress=seen.append)
    assert [(step.num_done, step.num_clips, step.num_failed) for step in seen] == [
        (1, 6, 0),
        (2, 6, 1),
        (3, 6, 1),
        (4, 6, 1),
        (5, 6, 2),
        (6, 6, 2),
    ]


def test_metric_that_opens_files_itself_costs_no_decoding(
    tmp_path: Path, entries: list[ClipEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr(runner, "read_frames", refuse)
    scores = _run(tmp_path, entries, [NamedMetric("size", _FileSize(), "key of size")])
    assert scores.values["size"].tolist() == [float(entry.file.stat().st_size) for entry in entries]


def test_features_of_a_set_metric_are_stored_and_make_no_column(tmp_path: Path, entries: list[ClipEntry]) -> None:
    metric = NamedMetric("gap", _Gap(), "key of gap")
    scores = _run(tmp_path, entries, [metric])
    assert scores.columns == ()
    store = ResultStore(tmp_path, None)
    features = [store.features(entry, "key of gap") for entry in entries]
    gap = _Gap().distance(np.concatenate(features[:3]), np.concatenate(features[3:]))
    assert gap == pytest.approx(0.4, abs=0.02)


class _FileSize:
    spec = MetricSpec(
        name="size",
        version="1",
        family="measure",
        dimensions=("size",),
        unit="bytes",
        higher_is_better=None,
        uses_prompt=False,
        reads="file",
    )

    def score(self, clip: DecodedClip) -> ClipScore:
        return ClipScore(values={"size": float(clip.entry.file.stat().st_size)})


class _Gap:
    spec = replace(_FileSize.spec, name="gap", dimensions=("gap",), unit="grey levels", reads="frames")

    def features(self, clip: DecodedClip) -> NDArray[np.float32]:
        return np.array([[clip.pixels.mean()]], dtype=np.float32)

    def distance(self, features: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
        return float(abs(features.mean() - reference.mean()))
