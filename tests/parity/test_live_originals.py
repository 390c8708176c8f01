"""The original packages, run here and now in their environments, compute what ours compute.

Slow: makes both environments (two minutes each) unless `RLHF_VIDEO_ENVS` has them.
"""

import gzip
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from rewards.hps_v2 import HpsV2
from rewards.random_weights import random_array
from rewards.workers.environments import Environment
from rewards.workers.parity import OriginalRun, run_original

TOLERANCE = 1e-5
PROMPTS = ("a red fox runs through fresh snow", "Two  CATS &amp; a “dog”")
HPS = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 56, "layers": 2, "width": 64, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def python_of(worker_environment: Callable[[str], Environment]) -> Callable[[str], Path]:
    return lambda worker: worker_environment(worker).python


def pictures() -> np.ndarray:
    """Return two pictures, (2, 40, 60, 3) uint8, of blocks: noise would be lost in the resize."""
    blocks = np.random.default_rng(1).integers(0, 256, (2, 10, 15, 3), dtype=np.uint8)
    return blocks.repeat(4, axis=1).repeat(4, axis=2)


def our_hps(run: OriginalRun, python: Path, folder: Path, clip_tokenizer: Callable[..., Path]) -> HpsV2:
    """Return our HPSv2 with the weights of the run and the vocabulary of the package."""
    state = {name: torch.from_numpy(random_array(name, shape, 0)) for name, shape in run.state.items()}
    torch.save({"state_dict": state}, folder / "hps.pt")
    vision, text = HPS["vision_cfg"], HPS["text_cfg"]

    def tower(values: Any, heads: int) -> dict[str, Any]:
        sizes = {"hidden_size": values["width"], "intermediate_size": 4 * values["width"]}
        layers = {"num_attention_heads": heads, "num_hidden_layers": values["layers"]}
        return sizes | layers | {"projection_dim": 32, "hidden_act": "gelu"}

    config = {
        "model_type": "clip",
        "projection_dim": 32,
        "text_config": tower(text, 2),
        "vision_config": tower(vision, 4) | {"image_size": 56, "patch_size": 14},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (package,) = python.parents[1].glob("lib/python*/site-packages/hpsv2/src/open_clip")
    lines = gzip.decompress((package / "bpe_simple_vocab_16e6.txt.gz").read_bytes()).decode().split("\n")
    tokenizer = clip_tokenizer(lines[1 : 49152 - 256 - 2 + 1])
    return HpsV2(folder / "hps.pt", config=folder, tokenizer=tokenizer)


def test_hps_v2_is_the_package(
    python_of: Callable[[str], Path], clip_tokenizer: Callable[..., Path], tmp_path: Path
) -> None:
    python = python_of("hpsv2")
    run = run_original("hpsv2", pictures(), PROMPTS, config=HPS, seed=0, python=python)
    reward = our_hps(run, python, tmp_path, clip_tokenizer)
    pixels = torch.from_numpy(pictures()).permute(0, 3, 1, 2).float().div(255)
    video = pixels[:, None].clone().requires_grad_()
    score = reward(video, PROMPTS, fps=8.0).values["preference"]
    (gradient,) = torch.autograd.grad(score.sum(), video)
    with torch.no_grad():
        ours = {
            "preprocessed": reward._towers.pixels(pixels),
            "image_features": reward._towers.embed_frames(pixels),
            "text_features": reward._towers.embed_prompts(PROMPTS, pixels),
            "score": score.detach(),
            "package_score": score.detach(),
            "pixel_gradient": gradient[:, 0],
        }
    for name, value in ours.items():
        difference = float(np.abs(value.numpy() - run.arrays[name]).max())
        assert difference <= TOLERANCE, f"{name}: {difference:.2g}"
    assert np.abs(run.arrays["pixel_gradient"]).max() > 10 * TOLERANCE
    squashed = torch.nn.functional.interpolate(pixels, (56, 56), mode="bicubic", antialias=True).clamp(0, 1)
    wrong = reward(squashed[:, None], PROMPTS, fps=8.0).values["preference"].numpy()
    assert np.abs(wrong - run.arrays["score"]).max() > 100 * TOLERANCE


def fast_test_of_image_reward() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity", Path(__file__).with_name("test_image_reward_parity.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("case", ["square", "wide"])
def test_image_reward_is_the_package(case: str, python_of: Callable[[str], Path], tmp_path: Path) -> None:
    # Ours equals the committed numbers (the fast test); here the package makes the same numbers again.
    fast = fast_test_of_image_reward()
    record, golden = fast.RECORD, fast.GOLDEN
    tokenizer = record.write_tokenizer(tmp_path / "tokenizer")
    config = {"vision": record.VISION, "text": record.TEXT, "tokenizer": str(tokenizer)}
    frames, python = record.make_frames(case), python_of("image-reward")
    run = run_original("image-reward", frames, record.PROMPTS, config=config, seed=record.SEED, python=python)
    assert {name: list(shape) for name, shape in run.state.items()} == golden["state"]
    ours = fast.run(fast.build(tmp_path), case)
    for name in ("tensor_preprocessed", "tensor_score", "pixel_gradient"):
        scale = max(1.0, float(np.abs(ours[name]).max()))
        difference = float(np.abs(ours[name] - run.arrays[name]).max()) / scale
        assert difference <= TOLERANCE, f"{name}: {difference:.2g}"
    assert ours["tokens"].tolist() == run.arrays["tokens"].tolist()
    assert np.abs(run.arrays["pixel_gradient"]).max() > 10 * TOLERANCE
