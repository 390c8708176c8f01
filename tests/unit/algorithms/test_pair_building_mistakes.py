"""Every mistake of pair building ends the command with one paragraph and exit code 2, before a model runs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_video.build_pairs import main
from rlhf_video.data import write_lossless
from rlhf_video.testing.runs import write_config

Recipe = dict[str, Any]
Command = Callable[..., str]
ALIGNED = {"source": "partial_renoising", "rule": None}


@pytest.fixture
def command(
    pairs_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the script with a recipe; return its paragraph when it ends with exit code 2, or its output."""

    def call(*arguments: str, **changes: object) -> str:
        file = write_config(pairs_recipe, tmp_path / "run", **changes)
        monkeypatch.setattr(sys, "argv", ["build_pairs.py", "--config", str(file), *arguments])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        else:
            return capsys.readouterr().out
        assert code == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        return errors[0]

    return call


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sourse": "votes"}, ["sourse", "Did you mean 'source'"]),
        ({"source": "real"}, ["source", "real_vs_generated"]),
        ({"backbone": None}, ["source=generated needs 'backbone'"]),
        ({"rewards": []}, ["source=generated needs 'rewards'"]),
        ({"rule": None}, ["source=generated needs 'rule'"]),
        ({"clips": "x.jsonl"}, ["source=generated has no use for 'clips'"]),
        ({"rule__pareto": {"tolerances": {"a/b": 0}}}, ["exactly one of", "all_pairs and pareto"]),
        ({"rule": {}}, ["exactly one of", "got none", "best_worst"]),
        ({"rule": {"best_worst": {"score": "brightness/bright"}}}, ["rule.best_worst", "'brightness/brightness'"]),
        ({"rule": {"omniscore": {"weights": {"x": 1.0}}}}, ["rule.omniscore", "'x'", "Known: brightness/brightness"]),
        ({"rater": {"score": "sharp"}}, ["rater.score", "'sharp'"]),
        ({"rater": {"score": "a", "flips": 1.5}}, ["rater.flips=1.5", "between 0 and 1"]),
        ({"rater": {"score": "a", "voters": 0}}, ["rater.voters=0"]),
        ({"votes": {}}, ["votes needs a rater"]),
        ({"sums": {"both": {"brightness": 1.0}}}, ["sums.both", "Did you mean 'brightness/brightness'"]),
        ({"sums": {"brightness/brightness": {"sharpness/sharpness": 1.0}}}, ["has the name of a reward's score"]),
        ({"rewards": [{"name": "brightnes"}]}, ["brightnes", "Did you mean 'brightness'"]),
        ({"rewards": [{"name": "brightness", "weight": 0.5}]}, ["'brightness' has a weight", "rule.omniscore.weights"]),
        ({"rewards": [{"name": "brightness"}, {"name": "brightness"}]}, ["called 'brightness'", "label"]),
        ({"prompts": "nowhere.txt"}, ["nowhere.txt", "does not exist"]),
        ({"num_prompts": 9}, ["num_prompts=9", "holds 4 prompts"]),
        ({"clips_per_prompt": 0}, ["clips_per_prompt=0"]),
        ({"sampling__num_frames": 10}, ["num_frames=10", "9"]),
        ({"sampling__height": 20}, ["height=20", "multiple of 16"]),
        ({"adapter": "nowhere"}, ["There is no adapter at 'nowhere'"]),
        ({**ALIGNED, "prompts": None}, ["either 'clips' to re-noise, or 'prompts'"]),
        (ALIGNED, ["renoising.score is missing"]),
        ({**ALIGNED, "renoising": {"score": "brightness/bright"}}, ["renoising.score", "Did you mean"]),
        ({**ALIGNED, "renoising": {"score": "a", "lowest": 0.9, "highest": 0.6}}, ["0 < lowest <= highest <= 1"]),
        (
            {**ALIGNED, "renoising": {"score": "brightness/brightness", "segment_frames": 6}},
            ["renoising.segment_frames=6", "stride 4", "use 8"],
        ),
        ({"source": "votes"}, ["source=votes needs 'pairs'"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_that_does_not_fit(
    command: Command, tmp_path: Path, changes: dict[str, object], words: list[str]
) -> None:
    message = command(**changes)
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists(), "nothing is left that the corrected call would stumble over"


def test_evaluation_prompts_are_refused_before_clips_are_made_for_them(command: Command, tmp_path: Path) -> None:
    message = command(evaluation=[str(tmp_path / "train.txt")])
    for word in ("4 of 4 prompts are in the evaluation suite 'train'", "split.leaks=drop"):
        assert word in message
    assert not (tmp_path / "run").exists()


def test_broken_clips_are_listed_all_at_once(command: Command, tmp_path: Path) -> None:
    write_lossless(tmp_path / "short.mkv", torch.rand(5, 3, 16, 16), 8)
    write_lossless(tmp_path / "good.mkv", torch.rand(9, 3, 16, 16), 8)
    (tmp_path / "text.mkv").write_text("no video")
    names = ("gone.mkv", "short.mkv", "text.mkv", "good.mkv")
    lines = [json.dumps({"file": name, "prompt": f"a red circle {name}"}) + "\n" for name in names]
    (tmp_path / "list.jsonl").write_text("".join(lines))
    given = {"source": "real_vs_generated", "prompts": None, "rewards": [], "rule": None}
    message = command(**given, clips=str(tmp_path / "list.jsonl"))
    for word in ("3 of 4 clips", "gone.mkv", "does not exist", "short.mkv", "(5, 3, 16, 16)", "cannot be decoded"):
        assert word in message
    assert "good.mkv" not in message
    assert not (tmp_path / "run").exists()


def test_a_folder_with_clips_is_only_gone_on_with_on_request_and_with_the_same_settings(
    command: Command, tmp_path: Path
) -> None:
    small = {"num_prompts": 2, "clips_per_prompt": 2, "split__validation_share": 0.0}
    assert "4: no" not in command(**small)
    assert "--resume" in command(**small)
    message = command("--resume", **small, sampling__num_steps=2, batch_size=3)
    for word in ("other settings", "sampling.num_steps", "batch_size"):
        assert word in message
    assert "'train.jsonl' exists" in command("--resume", **small, rater={"score": "brightness/brightness"}).replace(
        f"{tmp_path}/run/", ""
    ), "pairs that somebody may have trained on are not replaced"
    assert "of 2 comparisons" in command("--resume", **small)


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(command: Command, tmp_path: Path) -> None:
    text = command("--dry-run", rater={"score": "brightness/brightness"}, save__format="latents")
    for word in ("4 prompts x 3", "12 of 9 frames of 16 x 16", "(4, 4, 3, 2, 2) at once", "72 forward passes"):
        assert word in text
    for word in ("brightness, sharpness", "all_pairs", "8 voters who see brightness/brightness", "float32 latents"):
        assert word in text
    assert not (tmp_path / "run").exists()
    renoised = {"source": "partial_renoising", "rule": None, "renoising": {"score": "brightness/brightness"}}
    assert "24 of 9 frames" in command("--dry-run", **renoised)
