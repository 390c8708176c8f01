"""Adapter files in float16: half as large, the same adapter to the last bits."""

from pathlib import Path

import pytest
import torch

from rlhf_video.backbones import load_backbone
from rlhf_video.errors import AdapterError
from rlhf_video.lora import LoraConfig, adapter_state, attach, load_adapter, read_adapter_metadata, save_adapter
from rlhf_video.lora.half import halve
from rlhf_video.testing import tiny_wan_pipeline


def test_half_as_large_and_still_the_adapter(tmp_path: Path) -> None:
    folder = tiny_wan_pipeline(tmp_path / "wan")
    backbone, config = load_backbone(folder), LoraConfig(rank=16, alpha=8.0)
    attach(backbone, config, seed=0)
    state = adapter_state(backbone)
    file = save_adapter(tmp_path / "adapter", state, backbone=backbone, config=config, metadata={"base": "x"})
    size, metadata = file.stat().st_size, read_adapter_metadata(tmp_path / "adapter")
    halve(tmp_path / "adapter")
    assert file.stat().st_size < 0.7 * size
    assert read_adapter_metadata(tmp_path / "adapter") == metadata
    again = load_backbone(folder)
    load_adapter(again, tmp_path / "adapter")
    for name, value in adapter_state(again).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, state[name], rtol=1e-3, atol=1e-7)


def test_a_folder_without_adapter_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AdapterError):
        halve(tmp_path)
