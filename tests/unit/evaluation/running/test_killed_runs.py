"""kill -9 in every phase, then the same command again: the result of a straight run, and at most one clip lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from evaluation.base import ClipEntry, ClipResult
from evaluation.running import commands, scoring_run
from evaluation.running.command_line import Request, parse_request
from evaluation.running.outcome import read_scores
from evaluation.running.run_record import read_record
from evaluation.running.runner import Progress
from evaluation.running.store import ResultStore
from evaluation.scores import SystemScores
from rlhf_video.algorithms import generate
from rlhf_video.data import sha256_file, write_video
from rlhf_video.errors import ConfigError
from rlhf_video.testing import TINY_PROMPTS, tiny_wan_pipeline

ROOT = Path(__file__).resolve().parents[4]
NUM_CLIPS, NUM_METRICS = 4, 3  # of both systems, two prompts each


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal arrives before this ends


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a config of two tiny models and weightless metrics."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "prompts.txt").write_text("".join(f"{prompt}\n" for prompt in TINY_PROMPTS))
    (folder / "evaluation.yaml").write_text(
        f"output_dir: {folder / 'unused'}\n"
        f"systems: {{a: {{backbone: {tiny_wan_pipeline(folder / 'a', seed=0)}}},"
        f" b: {{backbone: {tiny_wan_pipeline(folder / 'b', seed=1)}}}}}\n"
        f"suite: {{prompts: {folder / 'prompts.txt'}}}\n"
        "sampling: {num_frames: 5, height: 16, width: 16, num_steps: 1, guidance: 1.0, batch_size: 1}\n"
        "metrics:\n"
        "  - {name: reward, options: {name: brightness}}\n"
        "  - {name: luminance_flicker}\n"
        "  - {name: blockiness}\n"
        "num_resamples: 1000\n"
    )
    return folder / "evaluation.yaml"


def request(config: Path, folder: Path) -> Request:
    return parse_request(["--config", str(config), f"output_dir={folder}"])


def scores(folder: Path) -> list[SystemScores]:
    return list(read_scores(folder, ResultStore(folder / scoring_run.RESULTS, None), read_record(folder)))


@pytest.fixture(scope="module")
def straight(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert commands.execute(request(config, folder)) == 0
    return folder


def during_generation(patch: pytest.MonkeyPatch) -> None:
    def write(path: Path, video: Tensor, fps: float) -> None:
        if "clips/b" in path.as_posix():
            kill()
        write_video(path, video, fps)

    patch.setattr(generate, "write_video", write)


def between_clips(patch: pytest.MonkeyPatch) -> None:
    def score_clips(*words: object, on_progress: Callable[[Progress], None], **options: object) -> None:
        def show(progress: Progress) -> None:
            if progress.num_done == 2:
                kill()

        original(*words, on_progress=show, **options)  # type: ignore[arg-type]

    original = scoring_run.score_clips
    patch.setattr(scoring_run, "score_clips", score_clips)


def in_the_middle_of_a_line(patch: pytest.MonkeyPatch) -> None:
    def add(store: ResultStore, entry: ClipEntry, metric: str, result: ClipResult) -> None:
        if len(store) == 7:
            assert store._stream is not None
            store._stream.write(b'{"clip": "0123456789')
            kill()
        original(store, entry, metric, result)

    original = ResultStore.add
    patch.setattr(ResultStore, "add", add)


def before_the_report(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commands, "report", lambda *_: kill())


@pytest.mark.parametrize(
    ("phase", "num_clips", "num_results"),
    [
        (during_generation, 2, 0),
        (between_clips, NUM_CLIPS, 2 * NUM_METRICS),
        (in_the_middle_of_a_line, NUM_CLIPS, 7),
        (before_the_report, NUM_CLIPS, NUM_CLIPS * NUM_METRICS),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_killed_run_goes_on_to_the_result_of_a_straight_one(
    config: Path,
    straight: Path,
    tmp_path: Path,
    phase: Callable[[pytest.MonkeyPatch], None],
    num_clips: int,
    num_results: int,
) -> None:
    child = os.fork()
    if child == 0:
        phase(pytest.MonkeyPatch())
        commands.execute(request(config, tmp_path))
        os._exit(0)  # not killed: the test fails
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    # What was done before the kill is there: no clip that was whole is lost, and no result that was stored.
    assert len(list((tmp_path / "clips").rglob("*.mp4"))) == num_clips
    assert len(ResultStore(tmp_path / scoring_run.RESULTS, None)) == num_results
    assert not (tmp_path / "report").exists()

    assert commands.execute(request(config, tmp_path)) == 0
    assert_same_run(tmp_path, straight)


def assert_same_run(folder: Path, expected: Path) -> None:
    clips = [sorted((run / "clips").rglob("*.mp4")) for run in (folder, expected)]
    assert [sha256_file(clip) for clip in clips[0]] == [sha256_file(clip) for clip in clips[1]]
    for found, wanted in zip(scores(folder), scores(expected), strict=True):
        assert found.statuses == wanted.statuses and found.reasons == wanted.reasons
        assert {name: v.tolist() for name, v in found.values.items()} == {
            name: v.tolist() for name, v in wanted.values.items()
        }
    tables = [(run / "report" / "report.md").read_text().split("\n- ")[0] for run in (folder, expected)]
    assert tables[0] == tables[1]


def test_clips_of_other_settings_are_not_scored_and_fewer_prompts_are(
    config: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(straight / "clips", tmp_path / "clips")
    words = ["run", "--config", str(config), f"output_dir={tmp_path}"]
    for changes, named in (
        (("sampling.num_steps=2", "suite.seed=99"), "seed, sampler.num_steps changed"),
        ((f"systems.a.backbone={tiny_wan_pipeline(tmp_path / 'new', seed=3)}",), "model changed"),
    ):
        with pytest.raises(ConfigError, match=f"holds clips made with other settings \\({named}\\)"):
            commands.execute(parse_request([*words, *changes]))
    assert commands.execute(parse_request(["plan", *words[1:], "suite.seed=99", "--no-measure"])) == 0
    assert "holds clips made with other settings (seed changed)" in capsys.readouterr().out
    assert not (tmp_path / "run.json").exists() and not (tmp_path / "prompts").exists()
    manifest = tmp_path / "clips" / "a" / "manifest.json"
    older = json.loads(manifest.read_text())
    for name in ("attention_plan", "causal", "stream", "merge_adapter"):
        del older[name]
    manifest.write_text(json.dumps(older))
    assert commands.execute(parse_request([*words, "suite.num_prompts=1"])) == 0
    assert commands.execute(parse_request(words)) == 0


SLOW_METRIC = """
import time
from evaluation.base import ClipScore, MetricSpec

class Slow:
    spec = MetricSpec(name="slow", version="1", family="measure", dimensions=("slow",), unit="one",
                      higher_is_better=None, uses_prompt=False)

    def score(self, clip):
        time.sleep(0.5)
        return ClipScore(values={"slow": float(clip.pixels.mean())})
"""


@pytest.mark.slow
def test_program_killed_from_outside_goes_on(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_metric_module.py").write_text(SLOW_METRIC)
    words = ["run", "--config", str(config_file), "metrics.0={name: slow_metric_module:Slow}"]
    command = [sys.executable, str(ROOT / "evaluation" / "vbench_run.py"), *words]
    results = tmp_path / "run" / "results" / "results-0-of-1.jsonl"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not (results.is_file() and results.read_bytes().count(b"\n") >= 3):
        assert started.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    started.kill()
    assert started.wait() == -signal.SIGKILL
    kept = results.read_bytes()
    assert 3 <= kept.count(b"\n") < 12

    monkeypatch.syspath_prepend(tmp_path)
    assert commands.execute(parse_request(words)) == 0
    assert results.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])  # nothing was scored again
    assert commands.execute(parse_request([*words, f"output_dir={tmp_path / 'straight'}"])) == 0
    for found, wanted in zip(scores(tmp_path / "run"), scores(tmp_path / "straight"), strict=True):
        assert found.statuses == wanted.statuses
        assert {name: v.tolist() for name, v in found.values.items()} == {
            name: v.tolist() for name, v in wanted.values.items()
        }
