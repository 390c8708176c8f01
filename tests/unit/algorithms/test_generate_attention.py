"""Clips under an attention plan: the adapter's own by default, another one loudly, never two in one folder."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf_video.algorithms.generate import GenerateConfig, describe, generate
from rlhf_video.attention import AttentionConfig, AttentionPlan, Band, Full
from rlhf_video.backbones import VideoBackbone
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig, adapter_parameters, adapter_state, attach, save_adapter
from rlhf_video.testing import TINY_PROMPTS

PLAN = AttentionPlan(6, (Full(), Band(chunk=1.0, halo=0.0)))
FULL = AttentionConfig(preset="full")


@pytest.fixture
def config(tiny_wan_folder: Path, tmp_path: Path) -> GenerateConfig:
    prompts = tmp_path / "suite.txt"
    prompts.write_text("\n".join(TINY_PROMPTS) + "\n")
    return GenerateConfig(
        backbone=str(tiny_wan_folder),
        prompts=prompts,
        output_dir=tmp_path / "clips",
        num_frames=9,
        height=32,
        width=32,
        num_steps=2,
        guidance=3.0,
        batch_size=2,
        device="cpu",
    )


@pytest.fixture
def adapter(make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path) -> Path:
    """Return an adapter that was trained under PLAN."""
    backbone, lora = make_tiny_wan(), LoraConfig(rank=2, alpha=2.0)
    backbone.apply_attention(PLAN)
    attach(backbone, lora, seed=0)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(0.3)
    save_adapter(tmp_path / "adapter", adapter_state(backbone), backbone=backbone, config=lora)
    return tmp_path / "adapter"


def _hashes(manifest: Path) -> list[str]:
    return [clip["sha256"] for clip in json.loads(manifest.read_text())["clips"]]


def test_null_takes_the_adapters_own_plan(
    config: GenerateConfig, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    PLAN.save(tmp_path / "plan.json")
    runs = {
        "own": None,
        "named": AttentionConfig(file=tmp_path / "plan.json"),
        "dense": FULL,
    }
    hashes, warned = {}, {}
    for name, attention in runs.items():
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            manifest = generate(replace(config, adapter=adapter, attention=attention, output_dir=tmp_path / name))
        hashes[name], warned[name] = _hashes(manifest), "outside what it was trained for" in caplog.text
        recorded = json.loads(manifest.read_text())["attention_plan"]
        assert recorded == (None if name == "dense" else PLAN.to_json())
    assert hashes["own"] == hashes["named"]
    assert not set(hashes["own"]) & set(hashes["dense"])
    assert warned == {"own": False, "named": False, "dense": True}


def test_clips_of_two_plans_are_never_mixed(config: GenerateConfig) -> None:
    generate(config)
    with pytest.raises(ConfigError, match="attention_plan changed"):
        generate(replace(config, attention=AttentionConfig(preset="hybrid_middle")))
    generate(replace(config, attention=FULL))  # the same pixels


def test_a_manifest_of_before_there_were_plans_goes_on_dense(config: GenerateConfig) -> None:
    manifest = generate(config)
    before = _hashes(manifest)
    recorded = json.loads(manifest.read_text())
    del recorded["attention_plan"]
    (config.output_dir / recorded["clips"][0]["file"]).unlink()
    manifest.write_text(json.dumps(recorded))
    assert _hashes(generate(config)) == before


def test_a_finished_run_under_a_plan_loads_no_weights(
    config: GenerateConfig, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, adapter=adapter)
    before = _hashes(generate(config))

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("rlhf_video.algorithms.generate.load_backbone", refuse)
    assert _hashes(generate(config)) == before


def test_dry_run_shows_the_plan_and_what_it_saves(config: GenerateConfig, adapter: Path) -> None:
    assert "attention     dense" in describe(config)
    for changed in (
        replace(config, adapter=adapter),
        replace(config, attention=AttentionConfig(preset="hybrid_middle")),
    ):
        text = describe(changed)
        assert "band" in text
        assert "density" in text
        assert "1.5x" in text


def test_a_plan_that_does_not_fit_the_clip_is_refused_before_weights_are_read(
    config: GenerateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("rlhf_video.algorithms.generate.load_backbone")
    AttentionPlan(6, (Full(),) * 3).save(tmp_path / "deep.json")
    with pytest.raises(ConfigError, match="3 layers"):
        generate(replace(config, attention=AttentionConfig(file=tmp_path / "deep.json")))
    with pytest.raises(ConfigError, match="temporal stride"):
        generate(replace(config, num_frames=10, attention=AttentionConfig(preset="tile3")))
