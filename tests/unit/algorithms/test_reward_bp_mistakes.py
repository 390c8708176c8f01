"""Every mistake ends the command with one paragraph that names the field and the way out, exit code 2, nothing lost."""

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_video.algorithms.reward_bp_config import DataAnchorConfig
from rlhf_video.errors import ConfigError
from rlhf_video.runtime import checkpoints
from rlhf_video.train_reward_bp import main

Recipe = dict[str, Any]
Command = Callable[..., str]

FROZEN_REWARD = """
from dataclasses import replace
from rewards.testing import BrightnessReward

class Verdict(BrightnessReward):
    def __init__(self):
        super().__init__()
        self.spec = replace(self.spec, name="verdict", is_differentiable=False)
"""


@pytest.fixture
def command(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run the script with a recipe; return its paragraph when it ends with exit code 2, or "" when it succeeds."""

    def call(*arguments: str, **changes: object) -> str:
        for dotted, value in changes.items():
            section, _, field = dotted.partition("__")
            if field:
                recipe.setdefault(section, {})[field] = value
            else:
                recipe[section] = value
        file = tmp_path / "config.yaml"
        file.write_text(yaml.safe_dump(recipe))
        monkeypatch.setattr(sys, "argv", ["train_reward_bp.py", "--config", str(file), *arguments])
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
        ({"optim__learning_rat": 1.0}, ["optim.learning_rat", "learning_rate"]),
        ({"rewards": [{"name": "brightnes"}]}, ["brightnes", "Did you mean 'brightness'"]),
        ({"rewards": [{"name": "brightness", "options": {"frames": 1}}]}, ["no option 'frames'"]),
        ({"rewards": []}, ["rewards is empty"]),
        ({"held_out": [{"name": "brightness"}]}, ["brightness", "label"]),
        ({"backbone": "nowhere/near/here"}, ["nowhere/near/here", "model_index.json"]),
        ({"sampling__num_frames": 6}, ["num_frames=6", "4k + 1", "for example 5"]),
        ({"sampling__height": 20}, ["height=20", "multiple of 16"]),
        ({"estimator__num_grad_steps": 9}, ["num_grad_steps=9", "at most 3"]),
        ({"estimator__steps": "list"}, ["estimator.step_list"]),
        ({"decode__frames": [0, 7]}, ["decode.frames", "from 0 to 1"]),
        ({"batch__accumulation": 3}, ["batch.accumulation=3", "multiple"]),
        ({"batch__global_prompts": 0}, ["batch.global_prompts=0"]),
        ({"validation__num_prompts": 99}, ["validation.num_prompts=99", "holds 4"]),
        ({"data_anchor__weight": 1.0}, ["data_anchor.manifest"]),
        ({"ema_decay": 1.0}, ["ema_decay"]),
        ({"pull__weight": -1.0}, ["pull.weight=-1.0", "at least 0"]),
        ({"data_anchor__weight": -1.0}, ["data_anchor.weight=-1.0"]),
        ({"data_anchor__clips_per_step": 0}, ["data_anchor.clips_per_step=0"]),
        ({"optim__learning_rate": 0.0}, ["optim.learning_rate=0.0", "above 0"]),
        ({"optim__beta2": 1.0}, ["optim.beta2=1.0", "below 1"]),
        ({"validation__num_prompts": 1, "validation__clips_per_prompt": 1}, ["validation.clips_per_prompt", "spread"]),
        ({"sweep__scales": [0.0, -1.0]}, ["sweep.scales=[0.0, -1.0]", "0 or more"]),
        (
            {"guards": {"dynamic_degree_weights": "nowhere.pth"}},
            ["nowhere.pth", "Give a path, or one of", "raft_large"],
        ),
        ({"sweep__scales": [0.5, 0.5]}, ["sweep.scales=[0.5, 0.5]", "distinct"]),
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


def test_anchor_clips_that_the_processes_cannot_share() -> None:
    anchor = DataAnchorConfig(weight=1.0, manifest=Path("manifest.json"), clips_per_step=3)
    with pytest.raises(ConfigError, match=r"data_anchor\.clips_per_step=3 .* multiple of 2"):
        anchor.check_share(2)
    anchor.check_share(3)


def test_a_reward_that_is_not_differentiable(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_verdict.py").write_text(FROZEN_REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    message = command(rewards=[{"name": "my_verdict:Verdict"}])
    assert "'Verdict' is not differentiable" in message
    assert "held-out" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["holds no prompt"]),
        ("a red circle\n\na blue circle\n", ["Line 2", "blank"]),
        ("a red circle\na blue circle\nA red  circle\n", ["Line 3", "repeats line 1"]),
        ("a red square moving left\n", ["prompts.validation shares 1 prompts with prompts.train"]),
    ],
    ids=["empty", "blank line", "duplicate", "trained on validation prompts"],
)
def test_prompts_that_would_make_a_result_ambiguous(
    command: Command, tmp_path: Path, text: str, words: list[str]
) -> None:
    (tmp_path / "train.txt").write_text(text)
    message = command()
    for word in words:
        assert word in message


def test_a_test_prompt_that_the_strength_is_chosen_on(command: Command, recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("a blue cube moving up\na red square moving left\n")
    recipe["prompts"]["test"] = str(tmp_path / "test.txt")
    assert "prompts.test shares 1 prompts with prompts.validation" in command()


def test_prompts_that_changed_since_the_run_was_started(command: Command, tmp_path: Path) -> None:
    assert command() == ""
    with (tmp_path / "train.txt").open("a") as file:
        file.write("a green cube moving up\n")
    assert "prompts.train is not the one" in command("--resume", num_steps=3)


def test_a_missing_prompt_file(command: Command, recipe: Recipe) -> None:
    recipe["prompts"]["validation"] = "no/such/file.txt"
    assert "Prompt file 'no/such/file.txt' does not exist" in command()


def test_a_model_folder_of_another_class(command: Command, tmp_path: Path, tiny_folder: Path) -> None:
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    message = command(backbone=str(other))
    assert "FluxPipeline" in message
    assert "WanPipeline" in message


def test_starting_a_run_where_another_one_lies(command: Command, tmp_path: Path) -> None:
    assert command() == ""
    message = command(seed=1)
    assert "--resume" in message
    assert "output_dir" in message
    assert "changed: seed" in command("--resume", seed=1)


def test_a_corrupt_checkpoint_names_the_last_good_one_and_going_on_from_it_works(
    command: Command, tmp_path: Path
) -> None:
    assert command(checkpoint__every=1) == ""
    (tmp_path / "run" / "card.json").unlink()  # as if killed after the last checkpoint
    folder = tmp_path / "run" / "checkpoints"
    file = folder / "step-000002" / "adapter.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    message = command("--resume")
    assert "step-000002" in message
    assert "newest good one is" in message
    assert "step-000001" in message
    shutil.rmtree(folder / "step-000002")
    assert command("--resume") == ""
    assert (folder / "step-000002").is_dir()


def test_a_full_disk_keeps_the_last_good_checkpoint(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second checkpoint meets a full disk: the error is the system's, raised where the file is written."""
    write = checkpoints.write_synced

    def full(path: Path, data: bytes) -> None:
        if "step-000002" in str(path) and path.name == "optimizer.pt":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data)

    monkeypatch.setattr(checkpoints, "write_synced", full)
    message = command(checkpoint__every=1)
    assert "disk is full" in message
    assert "--resume" in message
    folder = tmp_path / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step-000001"]
    monkeypatch.setattr(checkpoints, "write_synced", write)
    assert command("--resume") == "", "with space again, the run goes on"


def test_dry_run_prints_shapes_parameters_and_memory_without_weights(
    command: Command, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wan = Path(__file__).parents[3] / "configs" / "reward_bp" / "wan2.1-1.3b.yaml"
    monkeypatch.setattr(sys, "argv", ["train_reward_bp.py", "--config", str(wan), "--dry-run"])
    main()
    text = capsys.readouterr().out
    for word in ("1419.0 M parameters", "174981120 trainable", "(16, 21, 32, 32), 5376 tokens", "peak, about"):
        assert word in text
    assert command("--dry-run") == ""
    assert not (tmp_path / "run").exists()
