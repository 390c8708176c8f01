"""Recovery on a tiny real model: the windowed student moves to the dense teacher; equivalences hold as elsewhere."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rlhf_video.algorithms.draws import trajectory_rows
from rlhf_video.algorithms.outcome import Outcome
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.window_recovery import train
from rlhf_video.algorithms.window_recovery_passes import AnnealedWindows, attention_error, student_pass, teacher_pass
from rlhf_video.attention import AttentionPlan, Band, Full
from rlhf_video.backbones import VideoBackbone, VideoShape, load_backbone, meta_backbone
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig, attach, load_adapter, read_adapter_metadata
from rlhf_video.lora.adapter import adapter_parameters
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
SHAPE = VideoShape(batch=2, frames=9, height=32, width=32)
PLAN = AttentionPlan(num_heads=6, layers=(Band(halo=0.0), Band(halo=0.0)))


@pytest.fixture
def recipe_of_recovery(sft_recipe: Recipe, tmp_path: Path) -> Recipe:
    PLAN.save(tmp_path / "plan.json")
    del sft_recipe["data"]
    sft_recipe["prompts"]["train"] = str(tmp_path / "train.txt")
    return sft_recipe | {
        "attention": {"file": str(tmp_path / "plan.json")},
        "recovery": {"anneal_steps": 1},
        "sampling": {"num_frames": 9, "height": 32, "width": 32, "num_steps": 3, "guidance": 2.0},
    }


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> Outcome:
    config = load_config(SftConfig, write_config(recipe, folder, **changes))
    return train(config, accelerator=create_accelerator(), resume=resume)


@pytest.fixture
def backbone(tiny_folder: Path) -> VideoBackbone:
    """Return a tiny model under windows, with an adapter that is not nothing."""
    backbone = load_backbone(tiny_folder)
    backbone.apply_attention(PLAN)
    attach(backbone, LoraConfig(rank=4, alpha=4.0, targets=("to_q", "to_v")), seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in adapter_parameters(backbone):
        parameter.data.normal_(generator=generator, std=0.3)
    return backbone


def inputs(backbone: VideoBackbone) -> tuple[Any, ...]:
    noise = backbone.noise(SHAPE, torch.Generator().manual_seed(0))
    return noise, torch.tensor([0.3, 0.8]), backbone.encode_prompts(["a red circle", "a blue square"])


def test_the_student_moves_to_its_teacher_and_the_run_says_so(recipe_of_recovery: Recipe, tmp_path: Path) -> None:
    changes: Recipe = {"prompts__test": str(tmp_path / "test.txt"), "optim__learning_rate": 0.02, "prompt_dropout": 0.0}
    changes["recovery__attention_weight"] = 0.02  # a random model's attention outputs hardly move its velocity
    outcome = run(recipe_of_recovery, tmp_path / "a", num_steps=40, validation__every=40, **changes)
    lines = read_metrics(tmp_path / "a")
    steps = [line for line in lines if "loss/teacher_velocity" in line]
    assert [line["recovery/windowed_layers"] for line in steps] == [1.0, *[2.0] * 39]
    first, last = (sum(line["loss/teacher_attention"] for line in part) for part in (steps[1:6], steps[-5:]))
    assert last < 0.7 * first
    numbers = {key: value for line in lines for key, value in line.items()}
    assert numbers["validation/teacher/velocity_error/difference_high"] < 0
    assert numbers["result/recovery/psnr/to_dense/difference"] > 0, "nearer to the dense clips than without the adapter"
    assert "validation/brightness/brightness/difference" in numbers, "dense base against windowed student"
    assert "psnr/to_dense" in outcome.table
    assert "windows, no adapter" in outcome.table
    page = outcome.report.read_text()
    assert "<h2>What the adapter regains</h2>" in page
    assert "PSNR to the dense clip, dB" in page
    assert '<th class="num">dense base</th><th class="num">windows</th>' in page
    assert '<th class="num">windows, no adapter</th><th class="num">windows, adapter</th>' in page
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["method"] == "window_recovery"
    assert set(card["recovery"]["base"]) == set(card["comparison"]["base"]) | {"psnr/to_dense"}


def test_the_adapter_carries_the_whole_plan_and_adapts_attention_alone(
    recipe_of_recovery: Recipe, tmp_path: Path, tiny_folder: Path
) -> None:
    outcome = run(recipe_of_recovery, tmp_path / "a")
    assert AttentionPlan.from_json(read_adapter_metadata(outcome.adapter)["attention_plan"]) == PLAN
    state = adapter_of(tmp_path / "a")
    assert is_trained(state)
    assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in state} == {"to_q", "to_k", "to_v", "0"}
    backbone = load_backbone(tiny_folder)
    load_adapter(backbone, outcome.adapter, attention="apply")
    assert backbone.attention_plan == PLAN


@pytest.mark.parametrize("tests", [False, True])
def test_nothing_is_measured_twice_at_the_end(
    recipe_of_recovery: Recipe, tmp_path: Path, measurements: dict[str, int], tests: bool
) -> None:
    if tests:
        recipe_of_recovery["prompts"]["test"] = str(tmp_path / "test.txt")
    run(recipe_of_recovery, tmp_path / "a")
    sets = 2 if tests else 1
    assert measurements == {"clips": 3 * sets, "held-out errors": 2}, "dense base, windows without and with adapter"


@pytest.mark.parametrize("states", ["renoised", "trajectory"])
def test_resuming_is_bit_equal_to_a_straight_run(recipe_of_recovery: Recipe, tmp_path: Path, states: str) -> None:
    changes: Recipe = {"recovery__states": states, "recovery__anneal_steps": 3}
    run(recipe_of_recovery, tmp_path / "straight", num_steps=4, **changes)
    run(recipe_of_recovery, tmp_path / "resumed", num_steps=4, **changes, checkpoint__every=2)
    for file in (tmp_path / "resumed" / "card.json", tmp_path / "resumed" / "checkpoints" / "step-000004"):
        file.rename(tmp_path / file.name)  # as if killed on the way
    removed = next((tmp_path / "resumed" / "generated").iterdir())
    removed.unlink()  # a clip that was not yet generated
    run(recipe_of_recovery, tmp_path / "resumed", num_steps=4, **changes, resume=True)
    assert adapter_distance(tmp_path / "straight", tmp_path / "resumed") == 0.0
    assert same_checkpoint(tmp_path / "straight", tmp_path / "resumed", 4)
    assert timeless_metrics(tmp_path / "straight") == timeless_metrics(tmp_path / "resumed")


def test_accumulation_changes_nothing(recipe_of_recovery: Recipe, tmp_path: Path) -> None:
    # a low rate: Adam divides by the gradient's size, so roundings of tiny gradients would grow
    changes: Recipe = {"recovery__flow_weight": 1.0, "optim__learning_rate": 1e-3}
    run(recipe_of_recovery, tmp_path / "whole", **changes)
    run(recipe_of_recovery, tmp_path / "pieces", batch__accumulation=4, **changes)
    assert adapter_distance(tmp_path / "whole", tmp_path / "pieces") < 1e-5


def test_gradient_checkpointing_changes_nothing(recipe_of_recovery: Recipe, tmp_path: Path) -> None:
    run(recipe_of_recovery, tmp_path / "on", gradient_checkpointing=True)
    run(recipe_of_recovery, tmp_path / "off", gradient_checkpointing=False)
    assert adapter_distance(tmp_path / "on", tmp_path / "off") < 1e-6


def test_the_teacher_is_the_stock_model_whatever_the_adapter_is(backbone: VideoBackbone, tiny_folder: Path) -> None:
    latents, sigma, cond = inputs(backbone)
    stock = load_backbone(tiny_folder)
    with torch.no_grad():
        expected = stock.velocity(latents, sigma, cond)
    teacher, student = teacher_pass(backbone, latents, sigma, cond), student_pass(backbone, latents, sigma, cond)
    assert torch.equal(teacher.velocity, expected)
    assert not teacher.velocity.requires_grad
    assert len(teacher.attention) == len(student.attention) == 2
    assert (student.velocity - teacher.velocity).abs().max() > 1e-3
    with torch.no_grad():
        windows_alone = load_windowed(tiny_folder).velocity(latents, sigma, cond)
    assert (windows_alone - teacher.velocity).abs().max() > 1e-5, "the windows alone change the model"


def load_windowed(folder: Path) -> VideoBackbone:
    backbone = load_backbone(folder)
    backbone.apply_attention(PLAN)
    return backbone


def test_attention_outputs_are_those_of_the_modules_and_train_them(backbone: VideoBackbone) -> None:
    latents, sigma, cond = inputs(backbone)
    teacher, student = teacher_pass(backbone, latents, sigma, cond), student_pass(backbone, latents, sigma, cond)
    for output in student.attention:
        assert output.shape == (2, 12, 36), "(batch, tokens, width)"
    errors = attention_error(student, teacher)
    pairs = zip(student.attention, teacher.attention, strict=True)
    relative = [(ours - theirs).square().sum((1, 2)) / theirs.square().sum((1, 2)) for ours, theirs in pairs]
    torch.testing.assert_close(errors, torch.stack(relative).mean(0))
    errors.sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in adapter_parameters(backbone)[:4])
    assert torch.equal(attention_error(teacher, teacher), torch.zeros(2))


def test_no_hook_stays_behind(backbone: VideoBackbone) -> None:
    def hooks() -> int:
        modules: list[nn.Module] = [m for handle in backbone.attention_handles for m in handle.attention_modules]
        return sum(len(module._forward_hooks) for module in modules)

    student_pass(backbone, *inputs(backbone))
    assert hooks() == 0
    with pytest.raises(ConfigError):
        student_pass(backbone, inputs(backbone)[0][:1], *inputs(backbone)[1:])
    assert hooks() == 0


def test_windows_spread_from_the_middle_outwards() -> None:
    backbone = meta_backbone("assets/sprite-wan")
    shape = VideoShape(batch=1, frames=21, height=64, width=64)
    window = Band()
    plan = AttentionPlan(num_heads=6, layers=(Full(), window, window, window, window, Full()))
    backbone.apply_attention(plan)
    windows = AnnealedWindows(backbone, shape, 8)
    on = [[layer for layer, w in enumerate(windows.plan(step).layers) if w == window] for step in range(10)]
    assert on[0] == [2]
    assert [2, 3] in on
    assert [1, 2, 3] in on
    assert on[7] == on[8] == on[9] == [1, 2, 3, 4]
    assert [windows.count(step) for step in range(10)] == [len(layers) for layers in on]
    assert all(set(before) <= set(after) for before, after in itertools.pairwise(on))
    with windows.at(0):
        assert backbone.attention_plan == windows.plan(0)
    assert backbone.attention_plan == plan
    assert AnnealedWindows(backbone, shape, 0).count(0) == 4


def test_windows_that_cover_the_clip_leave_nothing_to_recover() -> None:
    backbone = meta_backbone("assets/sprite-wan")
    backbone.apply_attention(AttentionPlan(num_heads=6, layers=(Band(halo=9.0),) * 6))
    with pytest.raises(ConfigError, match="cover the whole clip"):
        AnnealedWindows(backbone, VideoShape(batch=1, frames=21, height=64, width=64), 0)


@pytest.mark.parametrize("boundary", [None, 0.6])
def test_trajectory_states_are_noisy_ones_and_of_one_expert(boundary: float | None) -> None:
    sigmas = flow_sigmas(6, 3.0)
    seen = set()
    for step in range(100):
        rows = trajectory_rows(sigmas, 4, seed=0, step=step, boundary=boundary)
        assert rows == trajectory_rows(sigmas, 8, seed=0, step=step, boundary=boundary)[:4]
        if boundary is not None:
            assert len({bool(sigmas[row] >= boundary) for row in rows}) == 1
        seen |= set(rows)
    assert seen == set(range(6))
