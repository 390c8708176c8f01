"""An adapter says under which attention plan it was trained, and is not used under another one by accident."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open
from safetensors.torch import save_file

from rlhf_video.attention import AttentionPlan, Band, Full
from rlhf_video.backbones import VideoBackbone, VideoShape, load_backbone
from rlhf_video.errors import AdapterError, ConfigError
from rlhf_video.lora import (
    AdapterCard,
    LoraConfig,
    adapter_layers,
    adapter_parameters,
    adapter_state,
    attach,
    load_adapter,
    read_adapter_metadata,
    recorded_attention,
    save_adapter,
)
from rlhf_video.lora.card import render_card
from rlhf_video.lora.files import METADATA_KEY, WEIGHT_NAME, read_adapter, save_state
from rlhf_video.testing import TINY_PROMPTS

PLAN = AttentionPlan(6, (Full(), Band(chunk=1.0, halo=0.0)))
OTHER = AttentionPlan(6, (Band(chunk=1.0, halo=0.0), Full()))
ADAPTERS = sorted(path.parent for path in Path("adapters").glob("*/pytorch_lora_weights.safetensors"))

Make = Callable[[], VideoBackbone]


def _save(backbone: VideoBackbone, folder: Path, plan: AttentionPlan | None) -> Path:
    backbone.apply_attention(plan)
    attach(backbone, LoraConfig(rank=2, alpha=2.0), seed=0)
    for parameter in adapter_parameters(backbone):
        parameter.data.add_(0.1)
    save_adapter(folder, adapter_state(backbone), backbone=backbone, config=LoraConfig(rank=2, alpha=2.0))
    return folder


def _has_adapter(backbone: VideoBackbone) -> bool:
    return any(True for _ in adapter_layers(backbone))


def test_the_header_holds_the_plan_that_the_backbone_ran(make_tiny_wan: Make, tmp_path: Path) -> None:
    windowed = read_adapter_metadata(_save(make_tiny_wan(), tmp_path / "windowed", PLAN))
    assert AttentionPlan.from_json(windowed["attention_plan"]) == PLAN
    assert AttentionPlan.from_json(recorded_attention(windowed)).fingerprint == PLAN.fingerprint
    dense = read_adapter_metadata(_save(make_tiny_wan(), tmp_path / "dense", None))
    assert dense["attention_plan"] == "full"
    assert recorded_attention(dense) is None
    assert recorded_attention({}) is None, "a header from before there were plans"


@pytest.mark.parametrize(
    ("trained", "run"), [(PLAN, None), (None, PLAN), (PLAN, OTHER)], ids=["used dense", "used windowed", "another plan"]
)
def test_another_plan_is_refused_unless_told(
    make_tiny_wan: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    trained: AttentionPlan | None,
    run: AttentionPlan | None,
) -> None:
    folder = _save(make_tiny_wan(), tmp_path, trained)
    backbone = make_tiny_wan()
    backbone.apply_attention(run)
    with pytest.raises(AdapterError, match="attention='apply'") as raised:
        load_adapter(backbone, folder)
    for plan in (trained, run):
        assert (plan.fingerprint if plan is not None else "dense") in str(raised.value)
    assert not _has_adapter(backbone), "nothing was attached"
    with caplog.at_level(logging.WARNING):
        load_adapter(backbone, folder, attention="ignore")
    assert "outside what it was trained for" in caplog.text
    assert backbone.attention_plan == run
    taker = make_tiny_wan()
    taker.apply_attention(run)
    load_adapter(taker, folder, attention="apply")
    assert taker.attention_plan == trained
    assert _has_adapter(taker)


@pytest.mark.parametrize("plan", [PLAN, None], ids=["windowed", "dense"])
@pytest.mark.parametrize("rule", ["check", "apply", "ignore"])
def test_the_same_plan_loads_under_every_rule_without_a_word(
    make_tiny_wan: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, plan: AttentionPlan | None, rule: Any
) -> None:
    folder = _save(make_tiny_wan(), tmp_path, plan)
    backbone = make_tiny_wan()
    backbone.apply_attention(plan)
    with caplog.at_level(logging.WARNING):
        load_adapter(backbone, folder, attention=rule)
    assert caplog.text == ""
    assert backbone.attention_plan == plan


def test_a_plan_for_another_depth_or_a_damaged_one_is_named(tiny_wan: VideoBackbone, tmp_path: Path) -> None:
    state = {"transformer.x.lora_A.weight": torch.zeros(1, 1)}
    base = {"rank": 2, "alpha": 2.0, "targets": ["to_q"]}
    save_state(tmp_path / WEIGHT_NAME, state, {**base, "attention_plan": AttentionPlan(6, (PLAN.layers[1],)).to_json()})
    with pytest.raises(ConfigError, match="for 1 layers"):
        load_adapter(tiny_wan, tmp_path, attention="apply")
    save_state(tmp_path / WEIGHT_NAME, state, {**base, "attention_plan": {"format": 1}})
    with pytest.raises(ConfigError, match="num_heads"):
        load_adapter(tiny_wan, tmp_path)
    save_state(tmp_path / WEIGHT_NAME, state, {**base, "attention_plan": "hybrid"})
    with pytest.raises(AdapterError, match="'hybrid' that is not known"):
        load_adapter(tiny_wan, tmp_path)


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda path: path.name)
def test_published_adapters_load_with_the_attention_they_record(folder: Path) -> None:
    metadata = read_adapter_metadata(folder)
    backbone = load_backbone(metadata["base"])
    assert load_adapter(backbone, folder, attention="apply") == metadata
    assert _has_adapter(backbone)
    assert (backbone.attention_plan is None) == (metadata["attention_plan"] == "full")


def _card(attention_plan: str) -> str:
    facts = {"title": "Tiny", "base": "tiny", "method": "m", "command": "c", "data": "d", "config_hash": "0"}
    return render_card(
        AdapterCard(**facts, licence="mit", rank=2, alpha=2.0, targets=("to_q",), attention_plan=attention_plan)
    )


def test_the_card_of_a_windowed_adapter_says_so_and_how_to_use_it() -> None:
    text = _card("layers 0-1 band")
    for part in (
        "| Attention plan | layers 0-1 band |",
        "trained under an attention plan",
        "apply_attention_plan(transformer, plan)",
    ):
        assert part in text
    assert "apply_attention_plan" not in _card("full")
    assert "| Attention plan | full |" in _card("full")


def test_the_cards_snippet_runs_and_gives_this_projects_velocity(
    make_tiny_wan: Make, tiny_wan_folder: Path, tmp_path: Path
) -> None:
    backbone = make_tiny_wan()
    _save(backbone, tmp_path, PLAN)
    pipe = WanPipeline.from_pretrained(tiny_wan_folder)
    pipe.load_lora_weights(tmp_path, adapter_name="default")
    code = _card("layers 1 band").split("```python\n")[2].split("```")[0]
    exec(code.replace("path/to/this/folder", str(tmp_path)), {"pipe": pipe})  # what a user would paste
    noise = backbone.noise(VideoShape(batch=2, frames=9, height=32, width=32), torch.Generator().manual_seed(1))
    cond = backbone.encode_prompts(TINY_PROMPTS)
    with torch.no_grad():
        theirs = pipe.transformer(
            hidden_states=noise,
            timestep=torch.full((2,), 600.0),
            encoder_hidden_states=cond.prompt_embeds,
            return_dict=False,
        )[0]
        assert torch.equal(backbone.velocity(noise, torch.tensor(0.6), cond), theirs)
        with backbone.dense_attention():
            assert not torch.equal(backbone.velocity(noise, torch.tensor(0.6), cond), theirs)


def test_a_file_without_an_entry_for_attention_is_dense(tiny_wan: VideoBackbone, tmp_path: Path) -> None:
    """Headers of before there was such an entry."""
    _save(tiny_wan, tmp_path, None)
    file = tmp_path / WEIGHT_NAME
    state, metadata = read_adapter(file)
    del metadata["attention_plan"]
    with safe_open(file, framework="pt") as handle:
        header = handle.metadata()
    save_file(state, file, {**header, METADATA_KEY: json.dumps(metadata)})
    assert recorded_attention(read_adapter_metadata(file)) is None
