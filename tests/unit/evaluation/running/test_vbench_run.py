"""The commands on two systems of three clips each: run, status, report, compare, plan, gate, and every user error."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluation import vbench_run
from evaluation.running.run_record import read_record
from rlhf_video.testing import tiny_wan_pipeline

Call = Callable[..., int]


@pytest.fixture
def call(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Return a function that runs the command line and gives its exit code."""

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["vbench_run.py", *words, "--config", str(config_file)])
        with pytest.raises(SystemExit) as stop:
            vbench_run.main()
        return int(stop.value.code or 0)

    return run


def test_run_prints_the_table_and_writes_both_reports(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run") == 0
    printed = capsys.readouterr().out
    assert (
        "| level ^" in printed and "luminance_flicker v" in printed and "Against dim" in printed
    ) or "tells" in printed
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "bright" in page and "a red circle" in page
    assert "level" in (tmp_path / "run" / "report" / "report.md").read_text()


def test_report_needs_neither_metrics_nor_clips(
    call: Call, tmp_path: Path, systems: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    call("run")
    before = (tmp_path / "run" / "report" / "report.md").read_text()
    monkeypatch.setattr(
        "evaluation.running.metric_building.build_metric", lambda *_, **__: pytest.fail("a metric was built")
    )
    for folder in systems.values():
        for clip in folder.glob("*.mp4"):
            clip.unlink()
    assert call("report") == 0
    assert (tmp_path / "run" / "report" / "report.md").read_text() == before


def test_a_run_of_before_clips_were_measured_is_still_read(call: Call, tmp_path: Path) -> None:
    call("run")
    file = tmp_path / "run" / "run.json"
    record = json.loads(file.read_text())
    for entry in (entry for entries in record["systems"].values() for entry in entries):
        assert [entry.pop(key) for key in ("num_frames", "height", "width", "fps")] == [3, 16, 16, 8.0]
    file.write_text(json.dumps(record))
    assert call("report") == 0


def test_a_declared_frame_rate_is_asked_of_every_clip(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    video = "video={num_frames: 3, height: 16, width: 16, fps: %s}"
    assert call("run", video % 16) == 2
    assert "8 frames per second, declared 16" in capsys.readouterr().err
    assert call("run", video % 0) == 2
    assert "video.fps=0" in capsys.readouterr().err
    assert call("run", video % 8) == 0


def test_shards_merge_and_status_says_what_is_left(call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--shard", "1/2") == 0
    assert "left             6 results, of other shards" in capsys.readouterr().out
    assert call("status") == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "| level" in line]
    assert [[cell.strip() for cell in row[1:6]] for row in rows] == [
        ["dim", "1", "0", "0", "2"],
        ["bright", "2", "0", "0", "1"],
    ]
    assert call("report") == 2
    assert "is not finished: 6 results are missing" in capsys.readouterr().err
    assert call("run", "--shard", "0/2") == 0
    assert "| level ^" in capsys.readouterr().out


def test_compare_names_systems_of_this_run_and_of_others(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("run")
    capsys.readouterr()
    assert call("compare", "bright", "dim") == 0
    printed = capsys.readouterr().out
    assert "| level ^" in printed and "\n! With 2 scores, 3 prompts" in printed
    assert call("compare", f"{tmp_path / 'run'}:dim", str(tmp_path / "run")) == 0
    table = capsys.readouterr().out
    assert "-" not in table.split("| level ^")[1].split("|")[4]  # from dim to bright: the difference is positive
    assert call("compare", "dim", "brighter") == 2
    assert "'brighter' is neither a system of" in capsys.readouterr().err


def test_gate_ends_with_3_and_says_why(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "--fail-if", "level < 0") == 0
    assert "gate passed" in capsys.readouterr().out
    assert call("compare", "bright", "dim", "--fail-if", "level < -0.1") == 3
    assert "gate FAILED" in capsys.readouterr().out
    assert call("report", "--baseline", f"{tmp_path / 'run'}:dim", "--fail-if", "level > 0.1") == 3
    assert "dim (baseline run)" in capsys.readouterr().out


def test_gate_against_another_run_judges_the_model_and_not_its_baseline(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("run")
    capsys.readouterr()
    assert call("report", "--baseline", str(tmp_path / "run"), "--fail-if", "level < -0.1") == 0  # nothing changed
    printed = capsys.readouterr().out
    assert "gate passed      bright: level" in printed and "dim: level" not in printed.split("gate", 1)[1]
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "<title>Evaluation: bright against bright (baseline run)</title>" in page


def test_plan_says_clips_weights_and_time_and_writes_nothing(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("plan") == 0
    printed = capsys.readouterr().out
    assert "3 prompts, 6 clips" in printed and "measured on one clip" in printed and "time        " in printed
    assert not (tmp_path / "run").exists()
    call("run")
    capsys.readouterr()
    assert call("plan", "metrics.0.options.name=hps_v2_1") == 0
    printed = capsys.readouterr().out
    assert "hps_v2_1 (1.97 GB, xswu/HPSv2 on the Hub, not here)" in printed
    assert "of the 1 of 2 metrics that are here; workers and generation not included" in printed
    assert "absent weights are 1.97 GB in 1 files" in printed
    assert "luminance_flicker | measure |              0 |" in printed.replace("  |", " |") or "recorded" in printed


def test_plan_and_report_say_where_clips_are_of_another_suites_length(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "metrics=[{name: vbench_long, options: {dimension: temporal_flickering}}, {name: temporal_flickering}]"
    told = "6 of 6 clips are shorter than 5 s"
    assert call("plan", long) == 0
    assert f"note        {told}" in capsys.readouterr().out
    assert call("run", long) == 0
    assert "3 of 3 clips are shorter than 5 s" in capsys.readouterr().out
    entries = read_record(tmp_path / "run").systems["dim"]
    assert [entry.seconds for entry in entries] == [3 / 8.0] * 3


def test_plan_of_the_wan_config_lists_what_is_missing_on_a_machine_without_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for variable in ("RLHF_VIDEO_ENVS", "VBENCH_CACHE_DIR", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))
    config = Path(__file__).resolve().parents[4] / "configs/evaluation/wan2.1-1.3b.yaml"
    changes = [f"systems.{name}.backbone=somebody/no-such-model" for name in ("base", "adapter")]
    words = ["plan", "--no-measure", "--config", str(config), f"output_dir={tmp_path / 'run'}", *changes]
    monkeypatch.setattr(sys, "argv", ["vbench_run.py", *words])
    with pytest.raises(SystemExit, match="0"):
        vbench_run.main()
    printed = capsys.readouterr().out
    missing = printed.split("\nmissing")[1]
    for item, needed_by in {
        "The environment of worker 'vbench' is not made": "suite",
        "the model 'somebody/no-such-model'": "base, adapter",
        "the adapter 'runs/wan2.1-1.3b-reward-bp/adapter'": "adapter",
        "raft_things (size not stated, https": "dynamic_degree",
        "ViT-L-14.pt (933 MB, licence MIT)": "vbench_official aesthetic_quality",
        "grit_b_densecap_objectdet.pth (about 834 MB": "vbench_official object_class, vbench_official multiple_objects",
    }.items():
        (line,) = [line for line in missing.splitlines() if item in line]
        assert f"(for {needed_by}" in line
    assert "suite       not here" in printed and "clips       not ready: the suite is not here" in printed
    assert not (tmp_path / "run").exists()


def test_plan_tells_the_time_of_generating_and_how_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red circle\na blue square\n")
    path = tmp_path / "evaluation.yaml"
    path.write_text(
        f"output_dir: {tmp_path / 'run'}\n"
        f"systems: {{a: {{backbone: {tiny_wan_pipeline(tmp_path / 'tiny', seed=0)}}}}}\n"
        f"suite: {{prompts: {prompts}}}\n"
        "sampling: {num_frames: 5, height: 16, width: 16, num_steps: 3, guidance: 1.0}\n"
        "metrics: [{name: luminance_flicker}]\n"
    )
    for words, expected in (
        ([], "(2 clips, "),
        ([], "one step of a batch measured, times 3, and one decoding)"),
        (["--no-measure"], "generating: a 2 clips, time not known"),
    ):
        monkeypatch.setattr(sys, "argv", ["vbench_run.py", "plan", "--config", str(path), *words])
        with pytest.raises(SystemExit, match="0"):
            vbench_run.main()
        assert expected in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_absent_weights_stop_the_run_unless_it_is_partial(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "metrics.0.options.name=hps_v2_1") == 2
    error = capsys.readouterr().err
    assert "1 of 2 metrics cannot be measured: [level]" in error and error.count("\n") == 1
    assert "hps_v2_1 (1.97 GB, xswu/HPSv2 on the Hub, not here)" in error and "--partial" in error
    assert not (tmp_path / "run" / "results").exists()
    assert call("run", "--partial", "metrics.0.options.name=hps_v2_1") == 0
    printed = capsys.readouterr().out
    assert "luminance_flicker" in printed and "! not measured: level:" in printed
    assert list(read_record(tmp_path / "run").absent) == ["level"]


def test_missing_clips_stop_the_run_before_anything_is_scored(
    call: Call, tmp_path: Path, systems: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (systems["dim"] / "1.mp4").unlink()
    assert call("run") == 2
    error = capsys.readouterr().err
    assert "System 'dim'" in error and "a blue square" in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "results").exists()


def test_clips_left_out_of_a_partial_run_are_recorded_counted_and_reported(
    call: Call, tmp_path: Path, systems: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    call("run")
    whole = (tmp_path / "run" / "results" / "results-0-of-1.jsonl").read_text()
    (systems["dim"] / "1.mp4").unlink()
    (systems["bright"] / "2.mp4").write_bytes(b"no video")
    capsys.readouterr()
    assert call("run", "--partial") == 0
    printed = capsys.readouterr().out
    assert "dim: 1 of 3 clips of the suite are left out, first 'a blue square-0' (missing (1.mp4))" in printed
    record = read_record(tmp_path / "run")
    lost = {name: [(clip.clip, clip.prompt) for clip in clips] for name, clips in record.left_out.items()}
    assert lost == {"dim": [("a blue square-0", "a blue square")], "bright": [("2.mp4", "a star")]}
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    missing = page.split("<h2>What is missing</h2>")[1].split("</section>")[0]
    for part in ("left out", "a blue square-0", "missing (1.mp4)", "2.mp4", "manifest.json recorded"):
        assert part in missing
    assert "2 of 3" in page and '2/3<span class="sub warn">1 left out</span>' in page
    assert (tmp_path / "run" / "results" / "results-0-of-1.jsonl").read_text() == whole  # no score has changed
    assert call("status") == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if "| level" in line]
    assert [[cell.strip() for cell in row[1:7]] for row in rows] == [
        ["dim", "2", "0", "0", "0", "1"],
        ["bright", "2", "0", "0", "0", "1"],
    ]


def test_full_disk_is_one_paragraph_that_says_what_stays(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "results-0-of-1.jsonl")

    with monkeypatch.context() as patch:
        patch.setattr("evaluation.running.store.ResultStore.add", full)
        assert call("run") == 2
    error = capsys.readouterr().err
    assert "The disk is full while writing results-0-of-1.jsonl" in error and "give the same command again" in error
    assert call("run") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ran",), "There is no command 'ran'. Did you mean 'run'?"),
        (("run", "extra"), "'run' got 1 names (extra): write run, without names"),
        (("compare", "dim"), "'compare' got 1 names (dim): write compare A B"),
        (("submit",), "'submit' got 0 names (none): write submit SYSTEM"),
        (("run", "--shard", "3/3"), "--shard 3/3: give i/n with i from 0 to n - 1"),
        (("run", "--surprise"), "Unrecognized arguments: --surprise"),
        (("run", "metrcs=[]"), "Unknown key 'metrcs'. Did you mean 'metrics'?"),
        (("run", "metrics=[]"), "No metric is left to measure"),
        (("run", "metrics.0.label=luminance_flicker"), "Two metrics are called 'luminance_flicker'"),
        (("run", "baseline=dimm"), "baseline='dimm' is none of the systems: dim, bright"),
        (("run", "systems.dim.backbone=x"), "A system needs either 'backbone'"),
        (("run", "suite.num_prompts=9"), "suite.num_prompts=9 does not fit"),
        (("status",), "holds no evaluation (run.json is missing)"),
        (("report",), "holds no evaluation (run.json is missing)"),
        (("run", "--fail-if", "nonsense"), "is no condition"),
    ],
)
def test_mistake_ends_with_one_paragraph_and_exit_code_2(
    call: Call, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_damaged_record_is_told(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("run")
    record = tmp_path / "run" / "run.json"
    content = json.loads(record.read_text())
    whole = dict(content)
    del content["metrics"]
    earlier = {key: value for key, value in whole.items() if key not in ("format", "left_out")}
    for changed, message in (
        (content, "is damaged"),
        (earlier, "has format 1, of an earlier version of this suite, which reads format 2: give the run command"),
        (whole | {"format": 3}, "has format 3, of a later version of this suite, which reads format 2: update"),
    ):
        record.write_text(json.dumps(changed))
        capsys.readouterr()
        assert call("status") == 2
        assert message in capsys.readouterr().err
    record.write_text(json.dumps({key: value for key, value in whole.items() if key != "format"}))
    assert call("status") == 0  # the same content, of before the number was written
