"""Reward backpropagation takes any differentiable reward, or several as one, by config."""

from pathlib import Path

import pytest
import yaml

from rewards.errors import RewardError
from rlhf_video.algorithms.reward_bp import train
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import load_config

STATISTICS = {"mean": 0.5, "std": 0.1, "provenance": "made up"}
MEMBERS = [
    {"name": "brightness", "normalisation": STATISTICS},
    {"name": "sharpness", "normalisation": {"mean": 0.1, "std": 0.1}},
]


def run(recipe: dict[str, object], folder: Path, rewards: list[dict[str, object]]) -> list[dict[str, float | None]]:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**recipe, "rewards": rewards}))
    config = load_config(RewardBpConfig, file)
    train(config, accelerator=create_accelerator())
    return read_metrics(config.output_dir)


def test_ensemble_trains_by_its_score(recipe: dict[str, object], tmp_path: Path) -> None:
    entry = {"name": "ensemble", "label": "careful", "dimension": "score", "options": {"members": MEMBERS}}
    lines = run(recipe, tmp_path, [entry])
    steps = [line for line in lines if "grad/norm" in line]
    assert len(steps) == 2
    assert all(line["grad/norm"] > 0 for line in steps)


def test_fixed_statistics_are_used_instead_of_measured_ones(recipe: dict[str, object], tmp_path: Path) -> None:
    lines = run(recipe, tmp_path, [{"name": "brightness", "normalisation": STATISTICS}])
    step = next(line for line in lines if "reward/total" in line)
    raw = step["reward/brightness"]
    assert step["reward/total"] == pytest.approx((raw - 0.5) / 0.1, rel=1e-4)


def test_reward_without_gradient_is_refused_before_anything_runs(recipe: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(RewardError, match="not differentiable"):
        run(recipe, tmp_path, [{"name": "rlhf_video.sprites.judge:SpriteJudge"}])
