"""Every mistake of fine-tuning and of recovery ends the command with one paragraph and exit code 2."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_video.attention import AttentionPlan, Band
from rlhf_video.data import write_lossless
from rlhf_video.testing.runs import write_config
from rlhf_video.train_sft import main

Recipe = dict[str, Any]
Command = Callable[..., str]


@pytest.fixture
def command(
    sft_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the script with a recipe; return its paragraph when it ends with exit code 2, or "" when it succeeds."""

    def call(*arguments: str, **changes: object) -> str:
        file = write_config(sft_recipe, tmp_path / "run", **changes)
        monkeypatch.setattr(sys, "argv", ["train_sft.py", "--config", str(file), *arguments])
        capsys.readouterr()
        try:
            main()
        except SystemExit as end:
            code = end.code
        else:
            return ""
        assert code == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        return errors[0]

    return call


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data__trains": "x"}, ["data.trains", "Did you mean 'data.train'"]),
        ({"data__train": None}, ["data.train is missing", "recovery"]),
        ({"data__train": "nowhere/manifest.json"}, ["nowhere/manifest.json", "does not exist", "data.train"]),
        ({"data__validation_levels": 0}, ["data.validation_levels=0"]),
        ({"prompts__train": "train.txt"}, ["prompts.train is for recovery"]),
        ({"rewards": [], "guards__enabled": False}, ["Nothing would be reported"]),
        ({"rewards": [{"name": "brightnes"}]}, ["brightnes", "Did you mean 'brightness'"]),
        ({"judge": {"name": "brightness"}}, ["brightness", "label"]),
        ({"sampling__num_frames": 9}, ["has shape (5, 3, 16, 16)", "(9, 3, 16, 16)", "data.train"]),
        ({"sampling__height": 20}, ["height=20", "multiple of 16"]),
        ({"batch__accumulation": 3}, ["batch.accumulation=3", "batch.global_clips=4"]),
        ({"batch__global_clips": 0}, ["batch.global_clips=0"]),
        ({"batch__token_budget": 0}, ["batch.token_budget=0"]),
        ({"data": {}, "recovery": {}, "batch__token_budget": 9}, ["leave batch.token_budget out"]),
        ({"noise_levels__distribution": "normal"}, ["noise_levels.distribution", "logit_normal"]),
        ({"noise_levels__deviation": 0.0}, ["noise_levels.deviation=0.0", "above 0"]),
        ({"prompt_dropout": 1.0}, ["prompt_dropout=1.0", "below 1"]),
        ({"optim__learning_rate": 0.0}, ["optim.learning_rate=0.0"]),
        ({"attention__preset": "hybrid_midle"}, ["hybrid_midle", "hybrid_middle"]),
        ({"recovery__anneal_steps": 1}, ["leave data.train and data.validation out"]),
        ({"data": {}, "recovery": {}}, ["needs prompts.train"]),
        ({"data": {}, "recovery": {}, "prompts__train": "t.txt"}, ["needs windows", "hybrid_middle"]),
        ({"recovery__attention_weight": -1.0}, ["recovery.attention_weight=-1.0"]),
        ({"recovery": {"states": "trajectory", "flow_weight": 1.0}}, ["recovery.states=renoised"]),
        (
            {
                "data": {},
                "recovery": {"anneal_steps": 2},
                "prompts__train": "t.txt",
                "attention__preset": "hybrid_middle",
            },
            ["recovery.anneal_steps=2", "num_steps=2"],
        ),
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", ["is not a manifest", "clips"]),
        ('{"clips": []}', ["lists no clips"]),
        ('{"clips": [{"file": "red.mkv"}]}', ["prompt"]),
        ('{"clips": [{"file": "gone.mkv", "prompt": "a red circle"}]}', ["1 of 1 clips are missing", "gone.mkv"]),
        ('{"clips": [{"file": "manifest.json", "prompt": "a red circle"}]}', ["cannot be decoded", "manifest.json"]),
        ('{"clips": [{"file": "red.mkv", "prompt": "a red square moving left"}]}', ["validation shares 1 prompts"]),
    ],
    ids=["no list", "empty", "no prompt", "missing file", "no video", "validation prompt"],
)
def test_clips_that_do_not_fit(command: Command, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "train" / "manifest.json").write_text(text)
    message = command()
    for word in words:
        assert word in message
    assert not (tmp_path / "run").exists()


def test_held_out_clips_that_are_trained_on(command: Command, tmp_path: Path) -> None:
    assert "share 4 clips" in command(data__validation=str(tmp_path / "train" / "manifest.json"))


def test_a_later_clip_of_another_size_costs_only_the_start(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "train" / "blue.mkv"
    clip = file.read_bytes()
    write_lossless(file, torch.zeros(9, 3, 16, 16), 8)
    assert "has shape (9, 3, 16, 16)" in command()
    file.write_bytes(clip)
    assert command("--resume") == "", "nothing was trained: the corrected call goes on in the same directory"


def test_clips_that_changed_since_the_run_was_started(command: Command, tmp_path: Path) -> None:
    assert command() == ""
    (tmp_path / "run" / "card.json").unlink()  # as if killed after the last checkpoint
    write_lossless(tmp_path / "train" / "red.mkv", torch.zeros(5, 3, 16, 16), 8)
    assert "data.train" in command("--resume", num_steps=3)


def test_damaged_latents_are_encoded_again(command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert command() == ""
    files = sorted((tmp_path / "run" / "latents").iterdir())
    before = [file.read_bytes() for file in files]
    files[0].write_bytes(b"no latents")
    files[1].write_bytes(before[1][:-1] + bytes([before[1][-1] ^ 1]))  # one bit
    assert command("--resume", num_steps=3) == ""
    assert [file.read_bytes() for file in files] == before
    assert caplog.text.count("are damaged: encoding the clip again") == 2


def test_every_missing_unreadable_or_unfit_clip_is_named_at_once(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / "train"
    (folder / "red.mkv").unlink()
    (folder / "blue.mkv").unlink()
    message = command()
    assert "2 of 4 clips are missing" in message
    assert "red.mkv" in message
    assert "blue.mkv" in message
    for name in ("red", "blue"):
        (folder / f"{name}.mkv").write_bytes(b"no video")
    message = command()
    assert "2 of 4 clips cannot be read" in message
    assert "red.mkv" in message
    assert "blue.mkv" in message
    for name, size in (("red", 16), ("blue", 32)):
        write_lossless(folder / f"{name}.mkv", torch.zeros(9, 3, size, 16), 8)
    message = command()
    for word in ("2 of 4 clips do not fit", "(9, 3, 16, 16)", "(9, 3, 32, 16)", "batch.token_budget"):
        assert word in message
    assert not (tmp_path / "run").exists()


def test_mistakes_in_the_clips_are_found_before_a_model_is_loaded(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(*_: object) -> None:
        raise AssertionError("weights are read")

    monkeypatch.setattr("rlhf_video.algorithms.sft.open_world", not_yet)
    write_lossless(tmp_path / "heldout" / "pink.mkv", torch.zeros(9, 3, 16, 16), 8)
    assert "data.validation: 1 of 2 clips do not fit" in command()
    assert "batch.token_budget=1 is less than 4 of 4 clips need" in command(batch__token_budget=1)


@pytest.mark.parametrize("is_finished", [True, False])
def test_an_attention_plan_that_is_gone_when_resuming(command: Command, tmp_path: Path, is_finished: bool) -> None:
    file = tmp_path / "plan.json"
    AttentionPlan(num_heads=6, layers=(Band(halo=0.0), Band(halo=0.0))).save(file)
    assert command(attention__file=str(file)) == ""
    file.unlink()
    if not is_finished:
        (tmp_path / "run" / "card.json").unlink()
    message = command("--resume", attention__file=str(file))
    assert str(file) in message
    assert "cannot be read (No such file or directory)" in message


def test_clips_listed_as_json_lines_train_alike(command: Command, sft_recipe: Recipe, tmp_path: Path) -> None:
    entries = json.loads((tmp_path / "train" / "manifest.json").read_text())["clips"]
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (tmp_path / "train" / "clips.jsonl").write_text(lines)
    assert command(data__train=str(tmp_path / "train" / "clips.jsonl")) == ""


@pytest.mark.parametrize(
    ("recipe_file", "words"),
    [
        ("wan2.1-1.3b.yaml", ["1419.0 M parameters", "87490560 trainable", "(16, 21, 60, 104), 32760 tokens"]),
        ("wan2.1-1.3b-recovery.yaml", ["47185920 trainable", "band", "attention outputs of teacher", "peak, about"]),
    ],
)
def test_dry_run_prints_shapes_parameters_and_memory_without_weights(
    recipe_file: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(__file__).parents[3] / "configs" / "sft" / recipe_file
    monkeypatch.setattr(sys, "argv", ["train_sft.py", "--config", str(file), "--dry-run"])
    main()
    text = capsys.readouterr().out
    for word in words:
        assert word in text
