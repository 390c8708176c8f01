"""Fine-tuning of a tiny real model on clips: the loss falls; resuming, accumulating, checkpointing change nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_video.algorithms.config_sections import NoiseLevelConfig
from rlhf_video.algorithms.draws import dropped_prompts, measured_sigmas, training_sigmas
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.sft import train
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.testing.runs import (
    adapter_distance,
    adapter_of,
    is_trained,
    same_checkpoint,
    timeless_metrics,
    write_config,
)

Recipe = dict[str, Any]


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> Outcome:
    config = load_config(SftConfig, write_config(recipe, folder, **changes))
    return train(config, accelerator=create_accelerator(), resume=resume)


def test_a_run_lowers_its_held_out_loss_and_writes_what_it_promises(sft_recipe: Recipe, tmp_path: Path) -> None:
    sft_recipe["prompts"]["test"] = str(tmp_path / "test.txt")
    outcome = run(sft_recipe, tmp_path / "a", num_steps=30, validation__every=15, optim__learning_rate=0.01)
    lines = read_metrics(tmp_path / "a")
    losses = [line["loss/flow_matching"] for line in lines if "loss/flow_matching" in line]
    assert len(losses) == 30
    validations = [line for line in lines if "validation/flow_matching/loss/difference" in line]
    assert [line["step"] for line in validations] == [14, 29]
    assert validations[-1]["validation/flow_matching/loss/difference_high"] < 0, "held-out clips are told better"
    assert "validation/brightness/brightness/adapter" in validations[-1]
    for path in (outcome.adapter, outcome.grid, outcome.report, tmp_path / "a" / "config.yaml"):
        assert path.exists(), path
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["method"] == "sft"
    assert card["measured_on"] == outcome.prompts_name == "unseen test prompts"
    assert "Flow-matching loss on 2 held-out clips" in (outcome.adapter / "README.md").read_text()
    assert "Held-out loss" in outcome.report.read_text()


def test_a_finished_run_is_not_measured_again(
    sft_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_again(*_: object) -> None:
        raise AssertionError("a finished run loads no model")

    first = run(sft_recipe, tmp_path / "a")
    monkeypatch.setattr("rlhf_video.algorithms.sft.open_world", not_again)
    assert run(sft_recipe, tmp_path / "a", resume=True) == first


@pytest.mark.parametrize("tests", [False, True])
def test_nothing_is_measured_twice_at_the_end(
    sft_recipe: Recipe, tmp_path: Path, measurements: dict[str, int], tests: bool
) -> None:
    if tests:
        sft_recipe["prompts"]["test"] = str(tmp_path / "test.txt")
    run(sft_recipe, tmp_path / "a")
    assert measurements == {"clips": 4 if tests else 2, "held-out errors": 2}, "base and adapter"
    last = {key: value for line in read_metrics(tmp_path / "a") for key, value in line.items()}
    for key in ("flow_matching/loss/adapter", *(() if tests else ("brightness/brightness/adapter",))):
        assert last[f"result/{key}"] == last[f"validation/{key}"]


def test_a_run_that_was_killed_before_its_end_was_told_is_measured_at_resuming(
    sft_recipe: Recipe, tmp_path: Path
) -> None:
    first = run(sft_recipe, tmp_path / "a")
    (tmp_path / "a" / "card.json").unlink()
    assert run(sft_recipe, tmp_path / "a", resume=True) == first


@pytest.mark.parametrize("every", [2, 3], ids=["validations line up", "the short run ends between two"])
def test_resuming_is_bit_equal_to_a_straight_run(sft_recipe: Recipe, tmp_path: Path, every: int) -> None:
    run(sft_recipe, tmp_path / "straight", num_steps=4, validation__every=every, checkpoint__every=2)
    run(sft_recipe, tmp_path / "resumed", num_steps=2, validation__every=2, checkpoint__every=2)
    run(sft_recipe, tmp_path / "resumed", num_steps=4, validation__every=2, checkpoint__every=2, resume=True)
    assert adapter_distance(tmp_path / "straight", tmp_path / "resumed") == 0.0
    if every == 2:
        assert same_checkpoint(tmp_path / "straight", tmp_path / "resumed", 4)
        assert timeless_metrics(tmp_path / "straight") == timeless_metrics(tmp_path / "resumed"), (
            "no line twice, none missing"
        )


def test_accumulation_changes_nothing(sft_recipe: Recipe, tmp_path: Path) -> None:
    run(sft_recipe, tmp_path / "whole")
    run(sft_recipe, tmp_path / "pieces", batch__accumulation=4)
    assert adapter_distance(tmp_path / "whole", tmp_path / "pieces") < 1e-5


def test_gradient_checkpointing_changes_nothing(sft_recipe: Recipe, tmp_path: Path) -> None:
    run(sft_recipe, tmp_path / "on", gradient_checkpointing=True)
    run(sft_recipe, tmp_path / "off", gradient_checkpointing=False)
    assert adapter_distance(tmp_path / "on", tmp_path / "off") < 1e-6


def test_a_bfloat16_base_trains_the_float32_adapter_in_the_same_direction(sft_recipe: Recipe, tmp_path: Path) -> None:
    run(sft_recipe, tmp_path / "exact")
    run(sft_recipe, tmp_path / "mixed", precision="bfloat16")
    exact, mixed = adapter_of(tmp_path / "exact"), adapter_of(tmp_path / "mixed")
    assert {value.dtype for value in mixed.values()} == {torch.float32}
    one, other = (torch.cat([value.flatten() for key, value in a.items() if "lora_B" in key]) for a in (exact, mixed))
    assert torch.cosine_similarity(one, other, dim=0) > 0.9


def test_clips_are_encoded_once(sft_recipe: Recipe, tmp_path: Path) -> None:
    run(sft_recipe, tmp_path / "a")
    folder = tmp_path / "a" / "latents"
    written = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(written) == 6, "four to train on, two held out"
    run(sft_recipe, tmp_path / "a", num_steps=3, resume=True)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == written


def test_two_experts_train_one_at_a_time(sft_recipe: Recipe, tmp_path: Path, two_experts: Path) -> None:
    run(sft_recipe, tmp_path / "a", backbone=str(two_experts), num_steps=6)
    for name in ("pytorch_lora_weights.safetensors", "pytorch_lora_weights_2.safetensors"):
        assert is_trained(adapter_of(tmp_path / "a", name)), name


@pytest.mark.parametrize("boundary", [None, 0.5, 0.9])
def test_noise_levels_depend_on_the_step_and_the_place_alone(boundary: float | None) -> None:
    def draw(step: int, count: int) -> torch.Tensor:
        return training_sigmas(NoiseLevelConfig(), count, seed=3, step=step, shift=3.0, boundary=boundary)

    assert torch.equal(draw(5, 8)[:4], draw(5, 4)), "a larger batch, or another process, changes nobody's level"
    sides = []
    for step in range(400):
        levels = draw(step, 4)
        if boundary is not None:
            assert len(set((levels >= boundary).tolist())) == 1, "one expert a step"
            sides.append(bool(levels[0] >= boundary))
    if boundary is not None:
        uniform = boundary / (3.0 - 2.0 * boundary)  # the level before the shift
        assert sum(sides) / len(sides) == pytest.approx(1 - uniform, abs=0.07)


@pytest.mark.parametrize(("distribution", "mean"), [("uniform", 0.0), ("logit_normal", 0.0), ("logit_normal", 1.0)])
def test_held_out_levels_are_the_quantiles_of_the_drawn_ones(distribution: Any, mean: float) -> None:
    config = NoiseLevelConfig(distribution=distribution, mean=mean)
    drawn = training_sigmas(config, 4000, seed=0, step=0, shift=2.0, boundary=None)
    shares = (torch.arange(5) + 0.5) / 5
    torch.testing.assert_close(measured_sigmas(config, 5, shift=2.0), drawn.quantile(shares), rtol=0, atol=0.03)


def test_prompts_are_dropped_as_often_as_asked() -> None:
    dropped = [drop for step in range(100) for drop in dropped_prompts(0.2, 20, seed=0, step=step)]
    assert sum(dropped) / len(dropped) == pytest.approx(0.2, abs=0.03)
    assert not any(dropped_prompts(0.0, 100, seed=0, step=0))
