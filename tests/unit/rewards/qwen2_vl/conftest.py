"""Tiny files of HPSv3 and VideoReward as their authors would have saved them, with weights both sides can make."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2VLConfig

from rewards import hps_v3, video_align
from rewards.qwen2_vl import RewardTower
from rewards.qwen2_vl_instructions import HPS_V3, VIDEO_ALIGN
from rewards.random_weights import random_array

PARITY = Path(__file__).parents[3] / "parity"
LORA_RANK = 64


def hps_names(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of HPSv3's file for those of our tower."""
    return {
        name.replace("model.visual.", "visual.", 1).replace("model.language_model.", "model.", 1): shape
        for name, shape in shapes.items()
    }


def peft_names(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of VideoReward's file: PEFT's, with LoRA on the linear maps of the language model."""
    names = {}
    for name, shape in hps_names(shapes).items():
        module, _, kind = name.rpartition(".")
        has_lora = name.startswith("model.layers.") and module.endswith("_proj")
        names[f"base_model.model.{module}.{'base_layer.' * has_lora}{kind}"] = shape
        if has_lora and kind == "weight":
            names[f"base_model.model.{module}.lora_A.default.weight"] = (LORA_RANK, shape[1])
            names[f"base_model.model.{module}.lora_B.default.weight"] = (shape[0], LORA_RANK)
    return names


@pytest.fixture(scope="session")
def stand_in() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(PARITY / "qwen2_vl_stand_in.py")))


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    return lambda name: json.loads((PARITY / "golden" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def make_options(
    stand_in: SimpleNamespace, golden: Callable[[str], dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, Path]]:
    """Return a function that writes a reward's tiny files and returns the options that name them."""

    def make(name: str) -> dict[str, Path]:
        module, rename, instruction, tokens = {
            "hps_v3": (hps_v3, hps_names, HPS_V3, ["<|Reward|>"]),
            "video_align": (video_align, peft_names, VIDEO_ALIGN, [f"<|{key}_reward|>" for key in ("VQ", "MQ", "TA")]),
        }[name]
        folder = tmp_path_factory.mktemp(name)
        tokenizer = stand_in.stand_in_tokenizer(instruction)
        config = stand_in.tiny_config(len(tokenizer) + len(tokens))
        tokenizer.save_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(config))
        sizes = Qwen2VLConfig.from_dict(config)
        with torch.device("meta"):
            tower = RewardTower(sizes, module._head(sizes.text_config.hidden_size), "float32")
        shapes = {key: tuple(value.shape) for key, value in tower.state_dict().items()}
        shapes["lm_head.weight"] = shapes["model.language_model.embed_tokens.weight"]
        state: dict[str, Tensor] = {
            key: torch.from_numpy(random_array(key, shape, golden(name)["seed"])).bfloat16()
            for key, shape in rename(shapes).items()
        }
        weights = folder / ("HPSv3.safetensors" if name == "hps_v3" else "model.pth")
        save_file(state, weights) if name == "hps_v3" else torch.save(state, weights)
        return {"weights": weights, "config": folder / "config.json", "tokenizer": folder}

    return make


@pytest.fixture(scope="session")
def hps_options(make_options: Callable[[str], dict[str, Path]]) -> dict[str, Path]:
    return make_options("hps_v3")


@pytest.fixture(scope="session")
def align_options(make_options: Callable[[str], dict[str, Path]]) -> dict[str, Path]:
    return make_options("video_align")
