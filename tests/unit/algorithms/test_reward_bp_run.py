"""A whole run on a tiny real model: what it writes; resuming, accumulating and checkpointing change nothing."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from rewards.raft import Raft
from rlhf_video.algorithms.reward_bp import train
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_outcome import Outcome, command_line
from rlhf_video.data import write_video
from rlhf_video.lora.files import read_adapter
from rlhf_video.runtime import Distribution, create_accelerator, deck_batch, read_metrics
from rlhf_video.settings import load_config
from rlhf_video.validation import Validator

Recipe = dict[str, Any]


def run(recipe: Recipe, folder: Path, *, resume: bool = False, **changes: object) -> Outcome:
    values: Recipe = copy.deepcopy(recipe)
    for dotted, value in changes.items():
        target, parts = values, dotted.split("__")
        for part in parts[:-1]:
            target = target.setdefault(part, {})
        target[parts[-1]] = value
    values["output_dir"] = str(folder)
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(values))
    return train(load_config(RewardBpConfig, file), accelerator=create_accelerator(), resume=resume)


def adapter(outcome: Outcome) -> dict[str, Tensor]:
    return read_adapter(outcome.adapter / "pytorch_lora_weights.safetensors")[0]


def timeless(folder: Path) -> list[dict[str, float | None]]:
    """Return the logged lines without wall-clock and memory."""
    return [
        {key: value for key, value in line.items() if key.split("/")[0] not in ("time", "memory")}
        for line in read_metrics(folder)
    ]


def is_same(first: object, second: object) -> bool:
    """Return whether two nested states are bit-equal."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(is_same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    return first == second


def distance(first: Outcome, second: Outcome) -> float:
    a, b = adapter(first), adapter(second)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_a_run_raises_its_reward_and_writes_what_it_promises(recipe: Recipe, tmp_path: Path) -> None:
    outcome = run(recipe, tmp_path / "a", num_steps=6, prompts__test=str(tmp_path / "test.txt"), ema_decay=0.5)
    lines = read_metrics(tmp_path / "a")
    assert len([line for line in lines if "reward/total" in line]) == 6
    validation = [line for line in lines if "validation/brightness/brightness/difference" in line]
    assert [line["step"] for line in validation] == [1, 3, 5]
    assert validation[-1]["validation/brightness/brightness/difference_low"] > 0
    assert validation[-1]["guard/motion"] > 0
    assert "validation/sharpness/sharpness/adapter" in validation[-1]
    for path in (outcome.adapter, outcome.grid, outcome.report, tmp_path / "a" / "config.yaml"):
        assert path.exists(), path
    assert list((tmp_path / "a" / "tensorboard").iterdir())
    assert "<video" in outcome.report.read_text()
    assert "brightness/brightness" in outcome.table
    assert outcome.prompts_name == "unseen test prompts"
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["num_pairs"] == 16
    assert card["recommended_scale"] in (0.0, 1.0)


@pytest.mark.parametrize("every", [2, 3], ids=["validations line up", "the short run ends between two"])
def test_resuming_is_bit_equal_to_a_straight_run(recipe: Recipe, tmp_path: Path, every: int) -> None:
    straight = run(recipe, tmp_path / "straight", num_steps=4, validation__every=every)
    run(recipe, tmp_path / "resumed", num_steps=2, validation__every=every)
    resumed = run(recipe, tmp_path / "resumed", num_steps=4, validation__every=every, resume=True)
    assert distance(straight, resumed) == 0.0
    states = []
    for name in ("straight", "resumed"):
        folder = tmp_path / name / "checkpoints" / "step-000004"
        states.append({f.name: torch.load(f, weights_only=True) for f in sorted(folder.glob("*.pt"))})
    assert is_same(states[0], states[1]), "adapter, optimiser, average, random generators, early stop"
    assert timeless(tmp_path / "straight") == timeless(tmp_path / "resumed"), "no line twice, none missing"


def test_an_end_that_fails_leaves_the_adapter_and_can_be_done_again(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr(Validator, "sweep", broken)
        with pytest.raises(OSError, match="went away"):
            run(recipe, tmp_path / "a")
    saved = read_adapter(tmp_path / "a" / "adapter" / "pytorch_lora_weights.safetensors")[0]
    changes: Recipe = {
        "sweep__scales": [0.5],
        "test__clips_per_prompt": 1,
        "prompts__test": str(tmp_path / "test.txt"),
        "judge": {"name": "saturation", "label": "judge"},
    }
    outcome = run(recipe, tmp_path / "a", resume=True, **changes)
    assert is_same(saved, adapter(outcome))
    assert outcome.prompts_name == "unseen test prompts"
    assert "judge/" in outcome.table


def test_accumulation_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    whole = run(recipe, tmp_path / "whole", pull__weight=0.5)
    pieces = run(recipe, tmp_path / "pieces", pull__weight=0.5, batch__accumulation=4)
    assert distance(whole, pieces) < 1e-5


def test_gradient_checkpointing_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    on = run(recipe, tmp_path / "on", gradient_checkpointing=True)
    off = run(recipe, tmp_path / "off", gradient_checkpointing=False)
    assert distance(on, off) < 1e-6


def test_keeping_fewer_caches_changes_nothing(recipe: Recipe, tmp_path: Path) -> None:
    every = run(recipe, tmp_path / "every")
    fewer = run(recipe, tmp_path / "fewer", decode__cache_every=2, decode__cache_on_cpu=True)
    assert distance(every, fewer) < 1e-6


@pytest.mark.parametrize("name", ["draft_lv", "align_prop", "refl", "drtune"])
def test_every_estimator_trains(recipe: Recipe, tmp_path: Path, name: str) -> None:
    outcome = run(recipe, tmp_path / name, estimator={"name": name, "num_grad_steps": 2})
    assert any(bool((value != 0).any()) for key, value in adapter(outcome).items() if "lora_B" in key)


def test_a_bfloat16_base_trains_the_float32_adapter_in_the_same_direction(recipe: Recipe, tmp_path: Path) -> None:
    exact = adapter(run(recipe, tmp_path / "exact"))
    mixed = adapter(run(recipe, tmp_path / "mixed", precision="bfloat16"))
    assert {value.dtype for value in mixed.values()} == {torch.float32}
    one, other = (torch.cat([value.flatten() for key, value in a.items() if "lora_B" in key]) for a in (exact, mixed))
    assert torch.cosine_similarity(one, other, dim=0) > 0.9


def test_pull_keeps_the_adapter_nearer_to_the_base(recipe: Recipe, tmp_path: Path) -> None:
    free = run(recipe, tmp_path / "free", num_steps=4)
    pulled = run(recipe, tmp_path / "pulled", num_steps=4, pull__weight=1000.0)

    def size(outcome: Outcome) -> float:
        lines = [line for line in read_metrics(outcome.adapter.parent) if "validation/trained_gain" in line]
        return abs(float(lines[-1]["validation/trained_gain"]))

    assert size(pulled) < size(free)


def test_over_optimising_trips_the_alarm_and_stops_the_run(recipe: Recipe, tmp_path: Path) -> None:
    """Brightness alone at a wild learning rate washes the clips out: sharpness, held out, falls while it rises."""
    outcome = run(
        recipe,
        tmp_path / "hacked",
        num_steps=12,
        optim__learning_rate=0.1,
        validation__every=1,
        ema_decay=0.0,
        held_out_stop={"enabled": True, "tolerance": 0.05, "patience": 2},
        licence="mit",
    )
    assert "held-out stop" in outcome.alarms
    steps = [line["step"] for line in read_metrics(tmp_path / "hacked") if "reward/total" in line]
    assert len(steps) < 12, "the run ended early"
    card = json.loads((tmp_path / "hacked" / "card.json").read_text())
    assert card["stopped_at"] == card["num_steps"] == len(steps)
    assert 1 <= card["best_step"] < card["stopped_at"]
    folder = tmp_path / "hacked" / "checkpoints" / f"step-{len(steps):06d}"
    best = torch.load(folder / "watch.pt", weights_only=True)["best"]
    assert is_same(adapter(outcome), best), "the best validated adapter is published"
    text = (outcome.adapter / "README.md").read_text()
    assert f"stopped after {len(steps)} of 12 optimiser steps, adapter of step {card['best_step']}" in text
    assert "license: mit" in text


def test_optical_flow_guards_motion_where_its_weights_are_given(recipe: Recipe, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(Raft().state_dict(), tmp_path / "raft.pth")
    recipe["validation"] |= {"num_prompts": 2, "clips_per_prompt": 1}
    run(recipe, tmp_path / "run", guards__dynamic_degree_weights=str(tmp_path / "raft.pth"), sweep__scales=[])
    logged = {key: value for line in read_metrics(tmp_path / "run") for key, value in line.items()}
    assert logged["guard/dynamic-degree"] == pytest.approx(1.0, abs=0.2)  # random weights see next to no motion
    assert 0 < (logged["validation/dynamic_degree/degree/adapter"] or 0) < 1


def test_the_stop_works_where_lower_is_better_in_all_that_is_trained(recipe: Recipe, tmp_path: Path) -> None:
    outcome = run(
        recipe,
        tmp_path / "signed",
        rewards=[{"name": "saturation", "weight": -1.0}],
        num_steps=4,
        optim__learning_rate=0.1,
        ema_decay=0.0,
    )
    lines = [line for line in read_metrics(outcome.adapter.parent) if "validation/trained_gain" in line]
    difference = lines[-1]["validation/saturation/saturation/difference"]
    assert difference is not None
    assert difference * lines[-1]["validation/trained_gain"] < 0


def test_the_main_process_decides(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes the main one's gains and strength, whatever it computed itself."""

    def from_main(self: Distribution, value: object) -> object:
        if isinstance(value, tuple):
            return -5.0, 5.0
        return 0.25 if isinstance(value, float) else value

    monkeypatch.setattr(Distribution, "broadcast_object", from_main)
    stop = {"enabled": True, "patience": 1}
    outcome = run(recipe, tmp_path / "a", num_steps=4, validation__every=1, held_out_stop=stop)
    assert outcome.scale == 0.25
    assert len([line for line in read_metrics(tmp_path / "a") if "reward/total" in line]) == 1


@pytest.mark.parametrize(("num_processes", "start"), [(1, "python"), (2, "accelerate launch --num_processes 2")])
def test_the_card_names_the_command_as_launched(
    monkeypatch: pytest.MonkeyPatch, num_processes: int, start: str
) -> None:
    words = ["rlhf_video/train_reward_bp.py", "seed=1", "sweep.scales=[0.5, 1]"]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "orig_argv", ["/usr/bin/python3", "-u", *words])
    text = command_line(num_processes)
    assert text == f"{start} rlhf_video/train_reward_bp.py seed=1 'sweep.scales=[0.5, 1]'"


def test_data_anchor_trains_on_given_clips(recipe: Recipe, tmp_path: Path) -> None:
    clips = []
    for number, colour in enumerate(("red", "blue")):
        video = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(number))
        write_video(tmp_path / f"{colour}.mp4", video, 8)
        clips.append({"file": f"{colour}.mp4", "prompt": f"a {colour} circle moving left"})
    (tmp_path / "manifest.json").write_text(json.dumps({"clips": clips}))
    anchor = {"weight": 1.0, "manifest": str(tmp_path / "manifest.json"), "clips_per_step": 2}
    anchored = run(recipe, tmp_path / "anchored", data_anchor=anchor)
    assert all(line["loss/anchor"] > 0 for line in read_metrics(tmp_path / "anchored") if "reward/total" in line)
    assert distance(anchored, run(recipe, tmp_path / "free")) > 0


def test_several_rewards_are_normalised_and_their_gradient_shares_logged(recipe: Recipe, tmp_path: Path) -> None:
    rewards = [{"name": "brightness"}, {"name": "saturation", "weight": -0.5}]
    run(recipe, tmp_path / "two", rewards=rewards, decode={"frames": "first", "clamp": "straight_through"})
    line = read_metrics(tmp_path / "two")[0]
    shares = [line["gradient_share/brightness"], line["gradient_share/saturation"]]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares) > 0.02
    assert abs(line["reward/total"]) < 5, "normalised: a batch lies within a few base deviations"


def test_published_adapter_is_the_average_and_not_the_last(recipe: Recipe, tmp_path: Path) -> None:
    outcome = run(recipe, tmp_path / "a", ema_decay=0.5)
    state = torch.load(tmp_path / "a" / "checkpoints" / "step-000002" / "ema.pt", weights_only=True)
    for name, value in adapter(outcome).items():
        assert torch.equal(value, state[name])
    last = torch.load(tmp_path / "a" / "checkpoints" / "step-000002" / "adapter.pt", weights_only=True)
    assert any(not torch.equal(last[name], state[name]) for name in state)


@pytest.mark.parametrize(("num_prompts", "batch"), [(7, 3), (4, 4), (3, 8)])
def test_every_prompt_comes_once_per_round_in_an_order_that_the_step_decides(num_prompts: int, batch: int) -> None:
    steps = [deck_batch(num_prompts, batch, step=step, seed=0) for step in range(2 * num_prompts)]
    stream = [index for step in steps for index in step]
    for start in range(0, len(stream) - num_prompts + 1, num_prompts):
        assert sorted(stream[start : start + num_prompts]) == list(range(num_prompts))
    assert steps[3] == deck_batch(num_prompts, batch, step=3, seed=0)
    assert stream != [i for step in range(2 * num_prompts) for i in deck_batch(num_prompts, batch, step=step, seed=1)]
