"""`rlhf-video rewards`: each command as a user types it, with a toy environment and clips made here."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch

from rewards import registry
from rewards.catalogue import CATALOGUE
from rewards.workers import lock
from rewards.workers.environments import environment_path
from rewards.workers.process import WorkerFailure
from rewards.workers.reward import WorkerReward
from rlhf_video import cli
from rlhf_video.data.video import write_video
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.reward_scores import find_clips, parse_options, score_clips

pytestmark = pytest.mark.usefixtures("environments_folder")

FAKE_SCORER = Path(__file__).with_name("fake_scorer.py")
TOY_LOCK = f"""
name = "toy"
summary = "a toy"
licence = "Apache-2.0"
python = ["{sys.version_info.major}.{sys.version_info.minor}"]
needs = ""
first = ["alpha==1.0"]
packages = []
[[builds]]
name = "beta"
source = "./nowhere"
purpose = "scores of boats"
[health]
code = "import alpha"
"""


def fake_worker(**settings: object) -> WorkerReward:
    brightness = registry.build("brightness").spec
    spec = dataclasses.replace(brightness, dimensions=("fake",), range=(0.0, 2.0), is_differentiable=False)
    return WorkerReward(worker="fake", scorer=FAKE_SCORER, python=sys.executable, settings=settings, spec=spec)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for name, grey in (("a dark night-0.mp4", 0.1), ("a_bright_day.mp4", 0.9)):
        write_video(folder / name, torch.full((3, 3, 16, 16), grey), 8.0)
    return folder


def score(videos: Path, *more: str) -> int:
    return cli.main(["rewards", "score", "--videos", str(videos), *more])


def test_list_prints_the_facts_of_every_reward(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rewards", "list"]) == 0
    lines = {line.split("|")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.startswith("|")}
    for name, entry in CATALOGUE.items():
        facts = (entry.tier, "yes" if entry.is_differentiable else "no", entry.frames, entry.licence, entry.parity)
        assert [cell.strip() for cell in lines[name].split("|")[2:-1]] == list(facts)


def test_score_prints_a_table_and_writes_json(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.json"
    assert score(videos, "--reward", "brightness", "--json", str(out)) == 0
    record = json.loads(out.read_text())
    assert [clip["prompt"] for clip in record["clips"]] == ["a dark night", "a bright day"]
    values = [clip["values"]["brightness"] for clip in record["clips"]]
    assert values == pytest.approx([0.1, 0.9], abs=0.02)
    statistics = record["statistics"]["brightness"]
    assert statistics["mean"] == pytest.approx(sum(values) / 2)
    assert statistics["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    printed = capsys.readouterr().out
    assert f"{values[1]:.4f}" in printed and "2 of 2" in printed


def test_score_says_why_a_clip_has_none_and_ends_with_1(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "torn.mp4").write_bytes(b"not a video")
    out = tmp_path / "scores.json"
    assert score(videos, "--reward", "brightness", "--json", str(out)) == 1
    torn = json.loads(out.read_text())["clips"][2]
    assert torn["values"] is None and "torn.mp4" in torn["reason"]
    printed = capsys.readouterr().out
    assert "2 of 3" in printed and "cannot be decoded" in printed


def test_clip_that_the_worker_refuses_is_kept_apart(videos: Path) -> None:
    clips = find_clips(videos)
    scored = score_clips(fake_worker(), [dataclasses.replace(clips[0], prompt="raise now"), clips[1]])
    assert scored[0].values is None and "no subject" in (scored[0].reason or "")
    assert scored[1].values == {"fake": pytest.approx(0.9 + 0.12, abs=0.02)}


def test_broken_worker_ends_the_run(videos: Path) -> None:
    with pytest.raises(WorkerFailure, match="refused to start"):
        score_clips(fake_worker(start="refuse"), find_clips(videos))


def test_worker_that_dies_of_every_clip_ends_the_run_too(videos: Path) -> None:
    clips = [dataclasses.replace(find_clips(videos)[0], prompt=f"exit {number}") for number in range(9)]
    with pytest.raises(WorkerFailure, match="3 clips in a row"):
        score_clips(fake_worker(), clips)


def test_environment_is_made_and_doctor_shows_it(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "LOCKS", tmp_path)
    (tmp_path / "toy.toml").write_text(TOY_LOCK)
    assert cli.main(["rewards", "doctor"]) == 0
    assert "not made: rlhf-video rewards env create toy" in capsys.readouterr().out
    assert cli.main(["rewards", "env", "create", "toy", "--wheels", str(wheels), "--installer", "pip"]) == 0
    made = environment_path(lock.load_lock("toy"))
    assert f"environment      {made}\n" in capsys.readouterr().out
    assert cli.main(["rewards", "doctor"]) == 0
    shown = capsys.readouterr().out
    assert str(made) in shown and "health check passes" in shown and "raft_large" in shown
    assert "beta is not built (scores of boats): rlhf-video rewards env create toy --with beta" in shown
    wheel = wheels / "beta-1.0-py3-none-any.whl"
    assert cli.main(["rewards", "env", "create", "toy", "--with", f"beta={wheel}"]) == 0
    assert "built            beta, for scores of boats" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["rewards", "env", "create", "toy", "--with", "gamma"])
    assert "nothing called 'gamma'" in capsys.readouterr().err
    assert cli.main(["rewards", "doctor"]) == 0
    assert "beta, built from source" in capsys.readouterr().out
    next(made.glob("lib/python*/site-packages/alpha/__init__.py")).write_text("raise ImportError('broken')")
    assert cli.main(["rewards", "doctor"]) == 1
    assert "ImportError: broken" in capsys.readouterr().out


def test_wrong_reward_option_or_folder_ends_with_2(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder, more, named in (
        (videos, ["--reward", "brightnes"], "Did you mean 'brightness'"),
        (videos, ["--reward", "brightness", "--option", "speed=1"], "no option 'speed'"),
        (videos, ["--reward", "brightness", "--option", "speed"], "key=value"),
        (tmp_path / "nowhere", ["--reward", "brightness"], "no folder"),
        (empty, ["--reward", "brightness"], "holds no clip"),
    ):
        with pytest.raises(SystemExit) as ended:
            score(folder, *more)
        assert ended.value.code == 2
        assert named in capsys.readouterr().err


def test_prompts_come_from_manifest_mapping_or_lines(videos: Path, tmp_path: Path) -> None:
    names = ["a dark night-0.mp4", "a_bright_day.mp4"]
    clips = [{"file": name, "prompt": f"manifest {number}"} for number, name in enumerate(names)]
    (videos / "manifest.json").write_text(json.dumps({"fps": 8, "clips": clips}))
    assert [clip.prompt for clip in find_clips(videos)] == ["manifest 0", "manifest 1"]
    mapping = tmp_path / "prompts.json"
    mapping.write_text(json.dumps(dict(zip(names, ["one", "two"], strict=True))))
    assert [clip.prompt for clip in find_clips(videos, mapping)] == ["one", "two"]
    lines = tmp_path / "prompts.txt"
    lines.write_text("first\nsecond\n")
    assert [clip.prompt for clip in find_clips(videos, lines)] == ["first", "second"]


def test_clip_without_prompt_is_refused(videos: Path, tmp_path: Path) -> None:
    lines, mapping, broken = tmp_path / "prompts.txt", tmp_path / "prompts.json", tmp_path / "broken.json"
    lines.write_text("only one\n")
    mapping.write_text(json.dumps({"a_bright_day.mp4": "one"}))
    broken.write_text("[1, 2]")
    for source, named in ((lines, "1 prompts for the 2 clips"), (mapping, "dark night"), (broken, "holds no prompts")):
        with pytest.raises(DataError, match=named):
            find_clips(videos, source)


def test_options_are_read_as_yaml() -> None:
    assert parse_options(["a=8", "b=true", "c={kind: uniform, count: 8}", "d=x=y"]) == {
        "a": 8,
        "b": True,
        "c": {"kind": "uniform", "count": 8},
        "d": "x=y",
    }
    for wrong in (["a=1", "a=2"], ["a={"], ["=1"]):
        with pytest.raises(ConfigError):
            parse_options(wrong)
