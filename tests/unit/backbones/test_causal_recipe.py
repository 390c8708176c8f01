"""The causal recipe in an adapter's file: it comes back equal, stock diffusers reads the file, damage is named."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline

from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.backbones import VideoBackbone
from rlhf_video.backbones.causal_recipe import RECIPE_KEY, CausalConfig, CausalRecipe
from rlhf_video.backbones.causal_rollout import RolloutConfig
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora import LoraConfig, adapter_parameters, adapter_state, attach, read_adapter_metadata, save_adapter

RECIPE = CausalRecipe(
    layout=CausalLayout(chunk_frames=2, window_frames=6, sink_frames=1),
    rollout=RolloutConfig(context_noise=0.1, recache=False, renoise="ode"),
    shift=5.0,
    steps=(1, 2, 4),
    first_chunk_steps=4,
    schedule="prefix",
    num_latent_frames=6,
)


@pytest.fixture
def folder(tiny_wan: VideoBackbone, tmp_path: Path) -> Path:
    lora = LoraConfig(rank=2, alpha=3)
    attach(tiny_wan, lora, seed=0)
    for parameter in adapter_parameters(tiny_wan):
        parameter.data.add_(0.1)
    metadata = {"base": "tiny", RECIPE_KEY: RECIPE.to_json()}
    save_adapter(tmp_path, adapter_state(tiny_wan), backbone=tiny_wan, config=lora, metadata=metadata)
    return tmp_path


def test_the_recipe_comes_back_from_the_file(folder: Path) -> None:
    assert CausalRecipe.from_metadata(read_adapter_metadata(folder)) == RECIPE
    short = CausalRecipe(layout=CausalLayout(chunk_frames=1), shift=1.0)
    assert CausalRecipe.from_json(json.loads(json.dumps(short.to_json()))) == short


def test_an_adapter_without_a_recipe_is_bidirectional() -> None:
    assert CausalRecipe.from_metadata({"rank": 2}) is None


def test_stock_diffusers_reads_the_file(folder: Path, tiny_wan_folder: Path, tiny_wan: VideoBackbone) -> None:
    pipeline = WanPipeline.from_pretrained(tiny_wan_folder)
    pipeline.load_lora_weights(folder)
    state = adapter_state(tiny_wan)
    loaded = {
        name.replace(".default_0", ""): parameter
        for name, parameter in pipeline.transformer.named_parameters()
        if "lora_" in name
    }
    assert len(loaded) == len(state)
    for name, parameter in loaded.items():
        assert torch.equal(parameter, state[f"transformer.{name}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.pop("layout"), "layout"),
        (lambda tree: tree.update(chunks=3), "chunks"),
        (lambda tree: tree["layout"].update(window_frames=1), "window_frames"),
        (lambda tree: tree.update(steps=[2, 1]), "ascending"),
        (lambda tree: tree.update(steps=[5]), "5"),
        (lambda tree: tree.update(shift=0.0), "shift"),
    ],
)
def test_a_damaged_recipe_is_named(change: Callable[[dict[str, Any]], object], message: str) -> None:
    tree = RECIPE.to_json()
    change(tree)
    with pytest.raises(AdapterError, match=message):
        CausalRecipe.from_json(tree)


def test_a_recipe_that_is_no_object_is_refused() -> None:
    with pytest.raises(AdapterError, match="layout and a shift"):
        CausalRecipe.from_metadata({RECIPE_KEY: "yes"})


def test_untrained_step_counts_are_refused_with_the_trained_ones() -> None:
    with pytest.raises(ConfigError, match="trained for 1, 2, 4 steps"):
        RECIPE.plan(3)
    assert len(dataclasses.replace(RECIPE, steps=(), schedule="skip").plan(20).later) == 20


def test_calls_are_counted_with_those_for_the_cache() -> None:
    recipe = dataclasses.replace(RECIPE, rollout=RolloutConfig())
    assert recipe.num_evaluations(2, 6) == 4 + 2 * 2 + 2
    assert RECIPE.num_evaluations(2, 6) == 4 + 2 * 2
    assert "10 calls" in recipe.describe(2, 6)


def test_a_clip_longer_than_the_trainings_needs_a_window() -> None:
    RECIPE.check_length(48)
    without = dataclasses.replace(RECIPE, layout=CausalLayout(chunk_frames=2))
    without.check_length(6)
    with pytest.raises(ConfigError, match=r"causal\.window_frames=6"):
        without.check_length(8)
    with pytest.raises(ConfigError, match="shorter than a chunk"):
        RECIPE.check_length(1)


def test_settings_go_over_the_recipe_one_by_one() -> None:
    assert CausalConfig().over(RECIPE, shift=1.0) == RECIPE
    changed = CausalConfig(window_frames="all", sink_frames=0, recache=True, first_chunk_steps=1).over(RECIPE, shift=1)
    assert changed.layout == CausalLayout(chunk_frames=2)
    assert changed.rollout == RolloutConfig(context_noise=0.1, renoise="ode")
    assert changed.first_chunk_steps == 1 and changed.shift == 5.0
    own = CausalConfig(chunk_frames=3, window_frames=6).over(None, shift=3.0)
    assert own == CausalRecipe(layout=CausalLayout(chunk_frames=3, window_frames=6), shift=3.0)
    with pytest.raises(ConfigError, match=r"causal\.chunk_frames"):
        CausalConfig().over(None, shift=3.0)
