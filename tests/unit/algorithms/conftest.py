"""A tiny but real run: WanPipeline folder, closed-form reward, three prompt files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlhf_video.algorithms.clip_maker import ClipMaker
from rlhf_video.algorithms.dpo import train_step
from rlhf_video.algorithms.dpo_beta import AutoBeta
from rlhf_video.algorithms.dpo_clips import PairClips, deal_pairs
from rlhf_video.algorithms.dpo_config import DpoConfig
from rlhf_video.algorithms.dpo_data import load_parts
from rlhf_video.algorithms.dpo_loss import DpoLossConfig
from rlhf_video.algorithms.dpo_metrics import Table, step_metrics
from rlhf_video.algorithms.dpo_setup import Trained, open_run
from rlhf_video.algorithms.dry_run import config_folder
from rlhf_video.algorithms.held_out_error import HeldOutError
from rlhf_video.backbones import meta_backbone
from rlhf_video.data import write_lossless
from rlhf_video.lora import adapter_state
from rlhf_video.runtime import Distribution, create_accelerator
from rlhf_video.settings import load_config
from rlhf_video.testing import tiny_wan_pipeline
from rlhf_video.testing.runs import write_config
from rlhf_video.testing.tiny_pairs import tiny_clip_pairs

Recipe = dict[str, Any]
LIGHT = {"rewards": [], "pairs__check_hashes": False}
SPLITS = {"train": "train", "validation": "heldout"}
COLOURS = ("red", "blue", "green", "white", "black", "pink")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_pipeline(tmp_path_factory.mktemp("tiny") / "wan")


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> dict[str, object]:
    """Return plain config values; tests change what they are about."""
    for name, shape in (("train", "circle"), ("validation", "square"), ("test", "triangle")):
        (tmp_path / f"{name}.txt").write_text("".join(f"a {colour} {shape} moving left\n" for colour in COLOURS[:4]))
    return {
        "backbone": str(tiny_folder),
        "prompts": {name: str(tmp_path / f"{name}.txt") for name in ("train", "validation")},
        "rewards": [{"name": "brightness"}],
        "held_out": [{"name": "sharpness"}],
        "sampling": {"num_frames": 5, "height": 16, "width": 16, "num_steps": 3, "guidance": 2.0},
        "lora": {"rank": 4, "alpha": 4.0},
        "estimator": {"num_grad_steps": 2},
        "optim": {"learning_rate": 0.01, "max_grad_norm": 1.0},
        "batch": {"global_prompts": 4},
        "num_steps": 2,
        "validation": {"every": 2, "clips_per_prompt": 2, "batch": 8},
        "held_out_stop": {"enabled": False},
        "sweep": {"scales": [0.0, 1.0]},
        "checkpoint": {"every": 2},
        "output_dir": str(tmp_path / "run"),
    }


@pytest.fixture(scope="session")
def two_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_pipeline(tmp_path_factory.mktemp("tiny") / "wan-2.2", two_experts=True)


@pytest.fixture
def sft_recipe(recipe: dict[str, object], tmp_path: Path) -> dict[str, object]:
    """Return plain config values of a fine-tuning run: four bright clips, two more held out."""
    for split, colours in (("train", COLOURS[:4]), ("heldout", COLOURS[4:])):
        entries = []
        for number, colour in enumerate(colours):
            noise = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(100 * len(split) + number))
            write_lossless(tmp_path / split / f"{colour}.mkv", 0.7 + 0.3 * noise, 8)
            entries.append({"file": f"{colour}.mkv", "prompt": f"a {colour} circle moving left"})
        (tmp_path / split / "manifest.json").write_text(json.dumps({"clips": entries}))
    shared = ("backbone", "sampling", "lora", "num_steps", "validation", "checkpoint")
    return {
        **{name: recipe[name] for name in shared},
        "prompts": {"validation": str(tmp_path / "validation.txt")},
        "data": {split: str(tmp_path / name / "manifest.json") for split, name in SPLITS.items()},
        "rewards": [{"name": "brightness"}],
        "optim": {"learning_rate": 0.01},
        "batch": {"global_clips": 4},
        "ema_decay": 0.5,
    }


@pytest.fixture
def dpo_recipe(recipe: dict[str, object], tmp_path: Path) -> dict[str, object]:
    """Return plain config values of preference optimisation: twelve pairs of six prompts, bright clips preferred."""
    tiny_clip_pairs(tmp_path / "pairs" / "train.jsonl", [f"a {colour} circle moving left" for colour in COLOURS])
    tiny_clip_pairs(tmp_path / "pairs" / "heldout.jsonl", ["a red star moving left", "a blue star moving left"])
    shared = ("backbone", "sampling", "num_steps", "validation", "checkpoint")
    return {
        **{name: recipe[name] for name in shared},
        "prompts": {"validation": str(tmp_path / "validation.txt")},
        "pairs": {split: str(tmp_path / "pairs" / f"{name}.jsonl") for split, name in SPLITS.items()},
        "loss": {"beta": 5.0},
        "draws_per_pair": 2,
        "rewards": [{"name": "brightness"}],
        "lora": {"rank": 4, "alpha": 4.0},
        "optim": {"learning_rate": 0.01, "warmup": 0},
        "batch": {"global_pairs": 4},
        "ema_decay": 0.5,
    }


@pytest.fixture
def pairs_recipe(recipe: dict[str, object], tmp_path: Path) -> dict[str, object]:
    """Return plain config values of pair building: four prompts, three clips each, the brighter one wins."""
    return {
        "backbone": recipe["backbone"],
        "prompts": str(tmp_path / "train.txt"),
        "evaluation": [str(tmp_path / "test.txt")],
        "clips_per_prompt": 3,
        "sampling": {"num_frames": 9, "height": 16, "width": 16, "num_steps": 3, "guidance": 2.0},
        "rewards": [{"name": "brightness"}, {"name": "sharpness"}],
        "rule": {"all_pairs": {"score": "brightness/brightness"}},
        "split": {"validation_share": 0.4, "seed": 1},
        "batch_size": 4,
    }


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count how often a run makes a set of clips, and how often it measures its held-out items."""
    counts = {"clips": 0, "held-out errors": 0}
    make_clips, measure = ClipMaker.clips, HeldOutError._measure

    def counted_clips(maker: ClipMaker, *args: Any, **options: Any) -> Tensor:
        counts["clips"] += 1
        return make_clips(maker, *args, **options)

    def counted_measure(error: HeldOutError) -> NDArray[np.float64]:
        counts["held-out errors"] += 1
        return measure(error)

    monkeypatch.setattr(ClipMaker, "clips", counted_clips)
    monkeypatch.setattr(HeldOutError, "_measure", counted_measure)
    return counts


class Steps(NamedTuple):
    """What a few optimiser steps left."""

    trained: Trained
    metrics: list[dict[str, float]]
    adapter: dict[str, Tensor]


def _opened(recipe: Recipe, folder: Path, **changes: object) -> tuple[DpoConfig, Trained, Callable[[int], Any]]:
    """Return everything that a step needs, without the validations of a whole run."""
    config = load_config(DpoConfig, write_config(recipe, folder, **(LIGHT | changes)))
    parts, spec = load_parts(config), meta_backbone(config_folder(config.backbone)).spec
    clips = PairClips.find(parts.train, config, spec)
    deal = deal_pairs(config, clips, spec)
    run = open_run(config, parts, clips, None, Distribution(create_accelerator()))
    return config, run.begin(config, deal), deal.visits


def _steps(recipe: Recipe, folder: Path, count: int = 2, **changes: object) -> Steps:
    """Take a few optimiser steps."""
    config, trained, visits = _opened(recipe, folder, **changes)
    beta = AutoBeta(config.loss)
    metrics = [train_step(config, trained, beta, visits(step), step=step) for step in range(count)]
    return Steps(trained, metrics, adapter_state(trained.world.backbone))


@pytest.fixture
def opened() -> Callable[..., tuple[DpoConfig, Trained, Callable[[int], Any]]]:
    """Return a function that opens a run of preference optimisation."""
    return _opened


@pytest.fixture
def steps() -> Callable[..., Steps]:
    """Return a function that takes optimiser steps of preference optimisation."""
    return _steps


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> list[Table]:
    """Return what every optimiser step of preference optimisation knows of its global batch, one table a step."""
    seen: list[Table] = []

    def recorded(table: Table, config: DpoLossConfig, beta: float) -> dict[str, float]:
        seen.append(table)
        return step_metrics(table, config, beta)

    monkeypatch.setattr("rlhf_video.algorithms.dpo.step_metrics", recorded)
    return seen
