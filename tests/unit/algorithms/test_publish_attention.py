"""Publishing an adapter that was trained under an attention plan: no format loses the plan without a word."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from rlhf_video.algorithms.publish import KOHYA_PLAN_KEY, PublishConfig, publish
from rlhf_video.attention import AttentionPlan, Band, Full
from rlhf_video.backbones import VideoBackbone, describe_plan
from rlhf_video.errors import AdapterError
from rlhf_video.lora import LoraConfig, adapter_state, attach, load_adapter, read_adapter_metadata, save_adapter

PLAN = AttentionPlan(6, (Full(), Band(chunk=1.0, halo=0.0)))
LORA = LoraConfig(rank=2, alpha=2.0)


@pytest.fixture
def adapter(tiny_wan: VideoBackbone, tmp_path: Path) -> Path:
    """Return an adapter folder without a card."""
    tiny_wan.apply_attention(PLAN)
    attach(tiny_wan, LORA, seed=0)
    folder = tmp_path / "windowed"
    save_adapter(folder, adapter_state(tiny_wan), backbone=tiny_wan, config=LORA, metadata={"base": "tiny"})
    return folder


def test_the_published_folder_keeps_the_plan_and_its_card_names_it(adapter: Path, tmp_path: Path) -> None:
    folder = publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "out"))
    assert AttentionPlan.from_json(read_adapter_metadata(folder)["attention_plan"]) == PLAN
    text = (folder / "README.md").read_text()
    assert f"| Attention plan | {describe_plan(PLAN)} |" in text
    assert "apply_attention_plan" in text


def test_the_kohya_file_warns_and_still_brings_the_plan_back(
    adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, make_tiny_wan: Callable[[], VideoBackbone]
) -> None:
    with caplog.at_level(logging.WARNING):
        folder = publish(PublishConfig(adapter=adapter, output_dir=tmp_path / "out"))
    assert "not part of kohya's format" in caplog.text
    kohya = folder / "comfyui" / "windowed.safetensors"
    with safe_open(kohya, framework="pt") as handle:
        assert AttentionPlan.from_json(json.loads(handle.metadata()[KOHYA_PLAN_KEY])) == PLAN
    back = publish(PublishConfig(adapter=kohya, output_dir=tmp_path / "back", base="someone/tiny"))
    with pytest.raises(AdapterError, match=PLAN.fingerprint):
        load_adapter(make_tiny_wan(), back)


def test_a_dense_adapter_gets_no_warning_and_no_plan(
    make_tiny_wan: Callable[[], VideoBackbone], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = make_tiny_wan()
    attach(backbone, LORA, seed=0)
    save_adapter(tmp_path / "dense", adapter_state(backbone), backbone=backbone, config=LORA, metadata={"base": "tiny"})
    with caplog.at_level(logging.WARNING):
        folder = publish(PublishConfig(adapter=tmp_path / "dense", output_dir=tmp_path / "out"))
    assert caplog.text == ""
    with safe_open(folder / "comfyui" / "dense.safetensors", framework="pt") as handle:
        assert KOHYA_PLAN_KEY not in handle.metadata()
    assert "| Attention plan | full |" in (folder / "README.md").read_text()
