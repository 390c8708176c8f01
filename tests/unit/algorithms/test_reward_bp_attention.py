"""Reward backpropagation under hybrid windows on the built-in model, and its adapter's way into generation."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from rlhf_video.algorithms.generate import GenerateConfig, generate
from rlhf_video.algorithms.reward_bp import train
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_bp_dry_run import describe
from rlhf_video.algorithms.reward_bp_outcome import Outcome
from rlhf_video.attention import AttentionPlan, Band, Full
from rlhf_video.backbones import VideoBackbone, load_backbone
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora import load_adapter, read_adapter_metadata
from rlhf_video.lora.files import WEIGHT_NAME
from rlhf_video.runtime import create_accelerator, read_metrics
from rlhf_video.settings import to_plain
from rlhf_video.settings.building import build_config

Recipe = dict[str, Any]
SPRITE = "assets/sprite-wan"
HYBRID = {"preset": "hybrid_middle"}


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> tuple[RewardBpConfig, Outcome]:
    """Return a run of two steps under hybrid_middle on assets/sprite-wan."""
    folder = tmp_path_factory.mktemp("windowed")
    for name, shape in (("train", "circle"), ("validation", "square")):
        (folder / f"{name}.txt").write_text(f"a red {shape} moving left on a navy background\n")
    values = {
        "backbone": SPRITE,
        "attention": HYBRID,
        "prompts": {name: str(folder / f"{name}.txt") for name in ("train", "validation")},
        "rewards": [{"name": "brightness"}],
        "sampling": {"num_frames": 21, "height": 64, "width": 64, "num_steps": 2, "guidance": 1.0, "text_length": 32},
        "lora": {"rank": 2, "alpha": 2.0},
        "estimator": {"num_grad_steps": 1},
        "decode": {"frames": "first"},
        "optim": {"learning_rate": 0.01},
        "batch": {"global_prompts": 1},
        "num_steps": 2,
        "validation": {"every": 2, "clips_per_prompt": 2, "batch": 2},
        "sweep": {"scales": []},
        "checkpoint": {"every": 1},
        "output_dir": str(folder / "run"),
    }
    config = build_config(RewardBpConfig, values)
    return config, train(config, accelerator=create_accelerator())


def test_it_trains_with_a_gradient_and_its_adapter_names_the_plan(windowed: tuple[RewardBpConfig, Outcome]) -> None:
    config, outcome = windowed
    norms = [line["grad/norm"] for line in read_metrics(config.output_dir) if "grad/norm" in line]
    assert len(norms) == 2
    assert all(norm is not None and norm > 0 for norm in norms)
    state = load_file(outcome.adapter / WEIGHT_NAME)
    for layer in range(6):
        assert any(bool(v.any()) for k, v in state.items() if f"blocks.{layer}.attn1" in k and "lora_B" in k), layer
    plan = AttentionPlan.from_json(read_adapter_metadata(outcome.adapter)["attention_plan"])
    assert [type(window) for window in plan.layers].count(Band) == 3
    assert isinstance(plan.layers[0], Full)
    card = json.loads((config.output_dir / "card.json").read_text())
    assert AttentionPlan.from_json(card["attention_plan"]) == plan
    text = (outcome.adapter / "README.md").read_text()
    assert plan.fingerprint in text
    assert "apply_attention_plan(transformer, plan)" in text
    assert plan.fingerprint in outcome.report.read_text()


def test_generate_applies_the_plan_by_itself(
    windowed: tuple[RewardBpConfig, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, outcome = windowed
    loaded: list[VideoBackbone] = []

    def remember(*arguments: Any, **named: Any) -> VideoBackbone:
        loaded.append(load_backbone(*arguments, **named))
        return loaded[-1]

    monkeypatch.setattr("rlhf_video.algorithms.generate.load_backbone", remember)
    generation = GenerateConfig(
        backbone=SPRITE, prompts=config.prompts.validation, output_dir=tmp_path, adapter=outcome.adapter,
        num_frames=21, height=64, width=64, num_steps=1, guidance=1.0, device="cpu",
    )  # fmt: skip
    manifest = json.loads(generate(generation).read_text())
    plan = AttentionPlan.from_json(read_adapter_metadata(outcome.adapter)["attention_plan"])
    assert loaded[0].attention_plan == plan
    assert AttentionPlan.from_json(manifest["attention_plan"]) == plan


def test_loading_it_on_a_dense_backbone_fails_loudly(
    windowed: tuple[RewardBpConfig, Outcome], caplog: pytest.LogCaptureFixture
) -> None:
    backbone = load_backbone(SPRITE)
    with pytest.raises(AdapterError, match="this model runs dense attention"):
        load_adapter(backbone, windowed[1].adapter)
    with caplog.at_level(logging.WARNING):
        load_adapter(backbone, windowed[1].adapter, attention="ignore")
    assert "outside what it was trained for" in caplog.text


def test_a_finished_run_is_known_again_and_another_plan_is_another_run(
    windowed: tuple[RewardBpConfig, Outcome],
) -> None:
    config, outcome = windowed
    assert train(config, accelerator=create_accelerator(), resume=True) == outcome
    dense = build_config(RewardBpConfig, {**to_plain(config), "attention": {"preset": "full"}})
    with pytest.raises(ConfigError, match=r"attention\.preset"):
        train(dense, accelerator=create_accelerator(), resume=True)


def test_dry_run_shows_the_plan_with_its_density(windowed: tuple[RewardBpConfig, Outcome]) -> None:
    text = describe(windowed[0])
    for part in ("band", "density", "x", "6 x 4 x 4 tokens"):
        assert part in text
    dense = build_config(RewardBpConfig, {**to_plain(windowed[0]), "attention": {}})
    assert "attention        full" in describe(dense)


def test_a_plan_file_that_changed_is_another_run(recipe: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    AttentionPlan(6, (Full(), Band(chunk=1.0, halo=0.0))).save(file)
    recipe |= {"attention": {"file": str(file)}, "checkpoint": {"every": 1}, "num_steps": 1, "sweep": {"scales": []}}
    config = build_config(RewardBpConfig, recipe)
    outcome = train(config, accelerator=create_accelerator())
    assert train(config, accelerator=create_accelerator(), resume=True) == outcome
    AttentionPlan(6, (Band(chunk=1.0, halo=0.0), Full())).save(file)
    with pytest.raises(ConfigError, match=r"attention\.file is not the one"):
        train(config, accelerator=create_accelerator(), resume=True)


def test_a_plan_that_does_not_fit_ends_the_run_before_it_starts(recipe: Recipe, tmp_path: Path) -> None:
    AttentionPlan(6, (Full(),) * 3).save(tmp_path / "plan.json")
    recipe["attention"] = {"file": str(tmp_path / "plan.json")}
    with pytest.raises(ConfigError, match="3 layers"):
        train(build_config(RewardBpConfig, recipe), accelerator=create_accelerator())
    assert not Path(recipe["output_dir"]).exists()
