"""The command from a folder of clips to the report."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.judge_reward import main
from evaluation.judging.command import parse_request

ROOT = Path(__file__).resolve().parents[4]


def _arguments(root: Path, out: Path, *more: str, reward: str = "brightness") -> list[str]:
    common = ["--benchmark", "videogen-rewardbench", "--root", str(root), "--out", str(out), "--resamples", "200"]
    return ["--reward", reward, *common, *more]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the script's main with arguments."""

    def call(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["judge_reward.py", *arguments])
        main()

    return call


def _refuse_constants(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


def _read(out: Path) -> dict[str, Any]:
    judgement: dict[str, Any] = json.loads((out / "judgement.json").read_text(), parse_constant=_refuse_constants)
    return judgement


def _dimension(out: Path, name: str) -> dict[str, Any]:
    (found,) = (entry for entry in _read(out)["dimensions"] if entry["dimension"] == name)
    return dict(found)


def test_brightness_judges_people_who_prefer_the_brighter_clip_perfectly(
    bench_root: Path, tmp_path: Path, judge: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    judge(*_arguments(bench_root, tmp_path / "out"))
    overall = _dimension(tmp_path / "out", "Overall")
    assert overall["without_ties"]["mean"] == overall["with_ties"]["mean"] == 1.0
    assert overall["counts"] == {
        "concordant": 9, "discordant": 0, "human_ties": 0, "model_ties": 0, "both_ties": 0,
    }  # fmt: skip
    (brightness,) = (bias for bias in overall["biases"] if bias["name"] == "brightness")
    assert brightness["correlation"]["mean"] == pytest.approx(1.0)
    assert brightness["reward_prefers_more"] == 1.0
    vq = _dimension(tmp_path / "out", "VQ")  # ties only
    assert vq["without_ties"] is None and vq["with_ties"]["mean"] == 1.0 and vq["threshold"] == "inf"
    ta = _dimension(tmp_path / "out", "TA")  # always B: right in one of three pairings of generators
    assert ta["without_ties"]["mean"] == pytest.approx(1 / 3)
    assert {entry["models"]: entry["without_ties"]["mean"] for entry in ta["pairings"]} == {
        "bright vs dim": 1.0, "bright vs medium": 0.0, "dim vs medium": 0.0,
    }  # fmt: skip
    printed = capsys.readouterr().out
    assert "| Overall   |    9 | 100.0 [100.0, 100.0] |" in printed
    assert "0 clips failed, 0 missing" in printed
    report = (tmp_path / "out" / "judgement.md").read_text()
    assert report.startswith("# brightness@1 on videogen-rewardbench")
    assert "## TA (judged by brightness)" in report and "bright vs medium" in report


def test_report_after_a_kill_equals_the_report_of_a_straight_run(
    bench_root: Path, tmp_path: Path, judge: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    judge(*_arguments(bench_root, tmp_path / "straight"))
    judge(*_arguments(bench_root, tmp_path / "killed"))
    path = tmp_path / "killed" / "scores.jsonl"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for name in ("judgement.json", "judgement.md"):
        (tmp_path / "killed" / name).unlink()
    with caplog.at_level("INFO"):
        judge(*_arguments(bench_root, tmp_path / "killed"))
    assert "9 clips: 4 scored now, 5 known, 0 failed" in caplog.text
    for name in ("judgement.json", "judgement.md", "scores.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_two_rewards_share_a_score_file_and_keep_apart(
    bench_root: Path, tmp_path: Path, judge: Callable[..., None]
) -> None:
    cache = ("--cache", str(tmp_path / "cache.jsonl"))
    judge(*_arguments(bench_root, tmp_path / "a", *cache))
    judge(*_arguments(bench_root, tmp_path / "b", *cache, reward="sharpness"))
    assert len((tmp_path / "cache.jsonl").read_text().splitlines()) == 18
    assert _read(tmp_path / "b")["reward"].startswith("sharpness@")
    # Clips of one grey level have no edge: every comparison is an exact tie, wrong without ties and half right with.
    overall = _dimension(tmp_path / "b", "Overall")
    assert overall["counts"]["model_ties"] == 9
    assert (overall["without_ties"]["mean"], overall["half_credit"]["mean"]) == (0.0, 0.5)


def test_failed_clip_is_counted_listed_and_never_a_score(
    bench_root: Path, tmp_path: Path, judge: Callable[..., None]
) -> None:
    (bench_root / "videos/dim/1.mp4").write_bytes(b"not a video")
    judge(*_arguments(bench_root, tmp_path / "out"))
    judgement = _read(tmp_path / "out")
    assert [Path(failure["clip"]).name for failure in judgement["failures"]] == ["1.mp4"]
    assert "cannot be decoded" in judgement["failures"][0]["reason"]
    overall = _dimension(tmp_path / "out", "Overall")
    assert (overall["num_comparisons"], overall["num_unscored"], overall["without_ties"]["mean"]) == (7, 2, 1.0)
    assert "## Clips without a score" in (tmp_path / "out" / "judgement.md").read_text()


def test_missing_clips_stop_the_run_before_anything_is_scored(
    bench_root: Path, tmp_path: Path, judge: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    gone = bench_root / "videos/bright/2.mp4"
    gone.unlink()
    with pytest.raises(SystemExit) as stop:
        judge(*_arguments(bench_root, tmp_path / "out"))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "1 of 9 clips are missing" in error and str(gone) in error and "--allow-missing" in error
    assert (tmp_path / "out" / "missing_clips.txt").read_text() == f"{gone}\n"
    assert not (tmp_path / "out" / "scores.jsonl").exists()


def test_missing_clips_are_left_out_and_counted_where_that_is_allowed(
    bench_root: Path, tmp_path: Path, judge: Callable[..., None]
) -> None:
    (bench_root / "videos/bright/2.mp4").unlink()
    judge(*_arguments(bench_root, tmp_path / "out", "--allow-missing"))
    judgement = _read(tmp_path / "out")
    assert len(judgement["missing_clips"]) == 1 and judgement["failures"] == []
    assert (judgement["num_comparisons"], judgement["num_clips"]) == (9, 9)
    assert _dimension(tmp_path / "out", "Overall")["num_unscored"] == 2
    assert "## Missing clips" in (tmp_path / "out" / "judgement.md").read_text()


def test_folder_without_any_clip_is_refused_also_where_missing_ones_are_allowed(
    bench_root: Path, tmp_path: Path, judge: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    (bench_root / "videos").rename(bench_root / "elsewhere")
    with pytest.raises(SystemExit):
        judge(*_arguments(bench_root, tmp_path / "out", "--allow-missing"))
    assert "9 of 9 clips are missing" in capsys.readouterr().err


def test_dimension_may_be_left_out_and_is_named(bench_root: Path, tmp_path: Path, judge: Callable[..., None]) -> None:
    judge(*_arguments(bench_root, tmp_path / "out", "--map", "TA=none"))
    judgement = _read(tmp_path / "out")
    assert [entry["dimension"] for entry in judgement["dimensions"]] == ["VQ", "MQ", "Overall"]
    assert judgement["not_judged"] == ["TA"]
    assert "Not judged: TA." in (tmp_path / "out" / "judgement.md").read_text()


def test_options_are_yaml_with_dots_for_sections() -> None:
    options = ["frames.kind=uniform", "frames.count=4", "beta=1e-4", "model=assets/sprite-clip", "label="]
    flags = [part for option in options for part in ("--option", option)]
    request = parse_request(_arguments(Path("r"), Path("o"), *flags))
    frames = {"kind": "uniform", "count": 4}
    assert request.options == {"frames": frames, "beta": 1e-4, "model": "assets/sprite-clip", "label": None}


def test_options_reach_the_reward_and_the_report(bench_root: Path, tmp_path: Path, judge: Callable[..., None]) -> None:
    model = str(ROOT / "assets" / "sprite-clip")
    judge(*_arguments(bench_root, tmp_path / "out", "--option", f"model={model}", reward="clip_preference"))
    judgement = _read(tmp_path / "out")
    assert judgement["reward"].startswith("clip_preference@") and judgement["options"] == {"model": model}
    assert _dimension(tmp_path / "out", "Overall")["counts"]["model_ties"] == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--reward", "brightnes"), "Did you mean 'brightness'?"),
        (("--benchmark", "vbench"), "invalid choice: 'vbench'"),
        (("--option", "scale"), "'scale' is not an override. Write key=value"),
        (("--map", "XX=brightness"), "with LABEL one of VQ, MQ, TA, Overall"),
        (("--device", "warp"), "is no torch device"),
        (("--resamples", "0"), "use 1,000 draws or more"),
        (("--file", "nowhere.csv"), "Annotation file 'nowhere.csv' does not exist"),
        (("--surprise",), "Unrecognized arguments"),
        (("--option", "name=x"), "Reward 'brightness' has no option 'name'"),
        (("--out", __file__), "cannot be a folder"),
    ],
)
def test_mistake_ends_with_one_paragraph_and_exit_code_2(
    bench_root: Path,
    tmp_path: Path,
    judge: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as stop:
        judge(*_arguments(bench_root, tmp_path / "out", *more))
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out" / "scores.jsonl").exists()


@pytest.mark.slow
def test_script_runs_by_path_from_anywhere(bench_root: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "evaluation/judge_reward.py"), *_arguments(bench_root, Path("out"))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "| Overall" in done.stdout
    assert (tmp_path / "out" / "judgement.md").is_file()
