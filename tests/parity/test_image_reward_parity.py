"""ImageReward computes what the package image-reward 1.5 computes, and the comparison sees what must not slip through.

The numbers of the package are in golden/image_reward.json (record_image_reward.py); weights and pictures are made anew
from names, shapes and a seed. Norms and gradients are compared relative to their size.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rewards.image_reward import ImageReward
from rewards.random_weights import random_array
from rewards.video_ops import CLIP_MEAN, CLIP_STD, fit_square, normalise

FOLDER = Path(__file__).parent
TOLERANCE = 1e-5


def load_record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record_image_reward", FOLDER / "record_image_reward.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RECORD = load_record()
GOLDEN: dict[str, Any] = json.loads(RECORD.GOLDEN.read_text())


def build(folder: Path, *, text: dict[str, Any] | None = None, **vision: Any) -> ImageReward:
    """Return our reward with the weights of the recording, fields of its config changed."""
    sizes = {"hidden_size": "embed_dim", "num_hidden_layers": "depth", "num_attention_heads": "num_heads"}
    vision_config = {ours: RECORD.VISION[theirs] for ours, theirs in sizes.items()}
    vision_config |= {"intermediate_size": 4 * RECORD.VISION["embed_dim"], "image_size": 224, "patch_size": 16}
    vision_config |= {"layer_norm_eps": 1e-6, **vision}
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    text_config = {name: RECORD.TEXT[name] for name in (*names, "vocab_size")}
    text_config |= {"bos_token_id": None, "sep_token_id": None, **(text or {})}
    config = {"model_type": "blip", "vision_config": vision_config, "text_config": text_config}
    (folder / "config.json").write_text(json.dumps(config))
    state = {
        name: torch.from_numpy(random_array(name, shape, RECORD.SEED))
        for name, shape in GOLDEN["state"].items()
        if not name.endswith("position_ids")
    }
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    torch.save(state, folder / "weights.pt")
    tokenizer = RECORD.write_tokenizer(folder / "tokenizer")
    return ImageReward(folder / "weights.pt", config=folder, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> ImageReward:
    return build(tmp_path_factory.mktemp("image-reward"))


def clips(case: str) -> Tensor:
    """Return the pictures as clips of one frame."""
    return torch.from_numpy(RECORD.make_frames(case)).permute(0, 3, 1, 2).float().div(255)[:, None]


def run(reward: ImageReward, case: str) -> dict[str, np.ndarray]:
    """Return the arrays that the recording has, from our reward."""
    video = clips(case).requires_grad_()
    score = reward(video, list(RECORD.PROMPTS), fps=8).values["image_reward"]
    (gradient,) = torch.autograd.grad(score.sum(), video)
    with torch.no_grad():
        pixels = reward._pixels(video[:, 0])
        (tokens,) = reward._condition(list(RECORD.PROMPTS), video)
        patches = reward._model.vision(pixel_values=pixels).last_hidden_state
        features = reward._model.features(pixels, tokens, (tokens != 0).long())
    arrays = {"tensor_score": score, "features": features, "image_features": patches, "tokens": tokens}
    arrays |= {"tensor_preprocessed": pixels, "pixel_gradient": gradient[:, 0]}
    return {name: value.detach().numpy() for name, value in arrays.items()}


def differences(arrays: dict[str, np.ndarray], case: str) -> dict[str, float]:
    """Return the largest difference to the package, per array; of a gradient relative to its largest entry."""
    golden, found = GOLDEN["cases"][case], {}
    for name in ("tensor_score", "features"):
        found[name] = float(np.abs(arrays[name] - np.array(golden[name])).max())
    for name in ("tensor_preprocessed", "image_features", "pixel_gradient"):
        scale = np.abs(arrays[name]).max(axis=tuple(range(1, arrays[name].ndim))) if "gradient" in name else 1.0
        wrong = np.abs(RECORD.samples(arrays[name]) - np.array(golden[name]["samples"])).max(axis=1) / scale
        found[name] = float(wrong.max())
        norms = np.array(golden[name]["norms"])
        found[f"{name}_norm"] = float(np.abs(RECORD.norms(arrays[name]) / norms - 1).max())
    return found


@pytest.mark.parametrize("case", list(RECORD.SIZES))
def test_pixels_features_scores_and_gradients_are_those_of_the_package(reward: ImageReward, case: str) -> None:
    arrays = run(reward, case)
    assert arrays["tokens"].tolist() == GOLDEN["cases"][case]["tokens"]
    found = differences(arrays, case)
    assert max(found.values()) <= TOLERANCE, found


def test_score_of_8_bit_pictures_is_the_packages_own_where_nothing_is_resized(reward: ImageReward) -> None:
    golden = GOLDEN["cases"]["square"]["package_score"]
    scores = reward(clips("square"), list(RECORD.PROMPTS), fps=8).values["image_reward"]
    torch.testing.assert_close(scores, torch.tensor(golden), rtol=0, atol=TOLERANCE)


def test_score_of_resized_8_bit_pictures_differs_by_what_rounding_moves(reward: ImageReward) -> None:
    # The package rounds to 8 bit and clips after a resize; floats do not. On these blocks, whose edges overshoot:
    golden = torch.tensor(GOLDEN["cases"]["wide"]["package_score"])
    difference = (reward(clips("wide"), list(RECORD.PROMPTS), fps=8).values["image_reward"] - golden).abs().max()
    assert TOLERANCE < difference.item() < 5e-3


def test_a_changed_patch_moves_the_score_far_beyond_the_tolerance(reward: ImageReward) -> None:
    video = clips("square")
    changed = video.clone()
    changed[..., 64:80, 64:80] = 1 - changed[..., 64:80, 64:80]
    before, after = (reward(v, list(RECORD.PROMPTS), fps=8).values["image_reward"] for v in (video, changed))
    assert (before - after).abs().min().item() > 100 * TOLERANCE


def test_the_prompt_moves_the_score_far_beyond_the_tolerance(reward: ImageReward) -> None:
    video = clips("square")
    before, after = (reward(video, list(p), fps=8).values["image_reward"] for p in (RECORD.PROMPTS, ["the star"] * 3))
    assert (before - after).abs().min().item() > 100 * TOLERANCE


def test_another_epsilon_fails(tmp_path: Path) -> None:
    found = differences(run(build(tmp_path, layer_norm_eps=1e-5), "square"), "square")
    assert max(found.values()) > 3 * TOLERANCE, found


def test_another_number_of_heads_fails(tmp_path: Path) -> None:
    found = differences(run(build(tmp_path, text={"num_attention_heads": 8}), "square"), "square")
    assert max(found.values()) > 100 * TOLERANCE, found


def test_squashing_instead_of_cropping_fails(reward: ImageReward, monkeypatch: pytest.MonkeyPatch) -> None:
    def squash(frames: Tensor) -> Tensor:
        return normalise(fit_square(frames, 224, "squash"), CLIP_MEAN, CLIP_STD)

    monkeypatch.setattr(reward, "_pixels", squash)
    found = differences(run(reward, "wide"), "wide")
    assert found["tensor_score"] > 100 * TOLERANCE, found


@pytest.mark.parametrize("changed", [{"is_decoder": True}, {"encoder_hidden_states": None}, {"attention_mask": None}])
def test_causal_attention_no_image_or_no_padding_mask_fails(
    reward: ImageReward, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    forward = reward._model.text.forward
    monkeypatch.setattr(reward._model.text, "forward", lambda **given: forward(**{**given, **changed}))
    scores = reward(clips("square"), list(RECORD.PROMPTS), fps=8).values["image_reward"]
    golden = torch.tensor(GOLDEN["cases"]["square"]["tensor_score"])
    assert (scores - golden).abs().max().item() > 100 * TOLERANCE
