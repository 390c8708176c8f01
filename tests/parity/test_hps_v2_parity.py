"""HPSv2 computes what the original package computes: golden numbers of tests/parity/record_hps_v2.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards import registry
from rewards.clip_text import clean_prompt
from rewards.hps_v2 import HpsV2
from rewards.random_weights import random_array
from rewards.tower_inputs import SquareInput

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "hps_v2.json").read_text())
TOLERANCE = 1e-5
PROMPTS: list[str] = GOLDEN["prompts"]


def tower(values: dict[str, int]) -> dict[str, Any]:
    """Return a tower of `CLIPConfig` from one of open_clip's."""
    heads = values["heads"] if "heads" in values else values["width"] // values["head_width"]
    sizes = {"hidden_size": values["width"], "intermediate_size": 4 * values["width"], "num_attention_heads": heads}
    return {**sizes, "num_hidden_layers": values["layers"], "projection_dim": GOLDEN["embed_dim"], "hidden_act": "gelu"}


def config_values() -> dict[str, Any]:
    vision, text = GOLDEN["vision"], GOLDEN["text"]
    end = {"eos_token_id": text["vocab_size"] - 1, "bos_token_id": text["vocab_size"] - 2}
    lengths = {"vocab_size": text["vocab_size"], "max_position_embeddings": text["context_length"]}
    squares = {"image_size": vision["image_size"], "patch_size": vision["patch_size"]}
    return {
        "model_type": "clip",
        "projection_dim": GOLDEN["embed_dim"],
        "text_config": {**tower(text), **lengths, **end},
        "vision_config": {**tower(vision), **squares},
    }


@pytest.fixture(scope="module")
def options(
    tmp_path_factory: pytest.TempPathFactory, random_state: Callable[..., Any], clip_tokenizer: Callable[..., Path]
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("hps")
    torch.save({"state_dict": random_state(GOLDEN["shapes"])}, folder / "hps.pt")
    (folder / "config.json").write_text(json.dumps(config_values()))
    return {"weights": folder / "hps.pt", "config": folder, "tokenizer": clip_tokenizer(GOLDEN["merges"])}


@pytest.fixture
def reward(options: dict[str, Any]) -> HpsV2:
    return HpsV2(**options)


def image(name: str) -> torch.Tensor:
    """Return the recorded image, (3, height, width) in [0, 1]."""
    height, width = GOLDEN["images"][name]["size"]
    rows, columns = -(-height // 4), -(-width // 4)
    coarse = random_array(f"image {name}", (1, rows * columns * 3))[0]
    blocks = (coarse / np.abs(coarse).max() * 0.5 + 0.5).reshape(rows, columns, 3).repeat(4, axis=0).repeat(4, axis=1)
    return torch.from_numpy(np.round(blocks[:height, :width] * 255).astype(np.uint8)).movedim(-1, 0) / 255


def scores_of(reward: HpsV2, pixels: torch.Tensor) -> torch.Tensor:
    video = pixels[None, None].expand(len(PROMPTS), -1, -1, -1, -1)
    return reward(video, PROMPTS, fps=8).values["preference"]


def largest_difference(reward: HpsV2) -> float:
    """Return how far scores are from the original's, over all images and prompts."""
    differences = [
        (scores_of(reward, image(name)) - torch.tensor(record["scores"])).abs().max()
        for name, record in GOLDEN["images"].items()
    ]
    return float(torch.stack(differences).max())


def check_samples(tensor: torch.Tensor, recorded: dict[str, Any]) -> None:
    values = torch.tensor(recorded["values"])
    torch.testing.assert_close(tensor.flatten()[:: recorded["every"]], values, rtol=0, atol=TOLERANCE)
    assert abs(float(tensor.double().sum()) - recorded["sum"]) < TOLERANCE * tensor.numel() ** 0.5


def test_the_packages_copy_of_open_clip_is_open_clip() -> None:
    assert GOLDEN["largest_difference_to_open_clip"] < 1e-6


@pytest.mark.parametrize("prompt", list(GOLDEN["token_ids"]))
def test_tokens_equal_those_of_open_clip(prompt: str, reward: HpsV2) -> None:
    ids = reward._towers.text._token_ids(clean_prompt(prompt))[0].tolist()
    padded = ids + [0] * (GOLDEN["text"]["context_length"] - len(ids))
    assert padded == GOLDEN["token_ids"][prompt]


def test_tokens_need_the_cleaning() -> None:
    changed = [prompt for prompt in GOLDEN["token_ids"] if clean_prompt(prompt) != " ".join(prompt.split()).lower()]
    assert len(changed) >= 4


@pytest.mark.parametrize("name", list(GOLDEN["images"]))
def test_pixels_features_score_and_gradient_equal_the_originals(name: str, reward: HpsV2) -> None:
    record, pixels = GOLDEN["images"][name], image(name).requires_grad_()
    check_samples(reward._towers.pixels(pixels.detach()), record["pixels"])
    features = reward._towers.embed_frames(pixels.detach()[None])[0]
    torch.testing.assert_close(features, torch.tensor(record["features"]), rtol=0, atol=TOLERANCE)
    scores = scores_of(reward, pixels)
    torch.testing.assert_close(scores, torch.tensor(record["scores"]), rtol=0, atol=TOLERANCE)
    (gradient,) = torch.autograd.grad(scores[0], pixels)
    check_samples(gradient, record["gradient"])
    assert abs(float(gradient.norm()) - record["gradient_norm"]) < TOLERANCE


def test_text_features_equal_the_originals(reward: HpsV2) -> None:
    features = reward._towers.embed_prompts(PROMPTS, torch.zeros(1))
    torch.testing.assert_close(features, torch.tensor(GOLDEN["text_features"]), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", list(GOLDEN["images"]))
def test_a_changed_patch_moves_the_score_a_hundred_tolerances(name: str, reward: HpsV2) -> None:
    pixels = image(name)
    changed = pixels.clone()
    changed[:, 8:15, 8:15] = 1 - changed[:, 8:15, 8:15]
    assert (scores_of(reward, changed) - scores_of(reward, pixels)).abs().mean() > 100 * TOLERANCE


def test_both_versions_are_built_by_name_and_score_alike_from_one_file(options: dict[str, Any]) -> None:
    for name in ("hps_v2", "hps_v2_1"):
        built = registry.build(name, **options)
        assert built.spec.name == name
        assert largest_difference(built) < TOLERANCE  # type: ignore[arg-type]


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_another_fit_than_letterbox_is_seen(fit: Any, reward: HpsV2) -> None:
    reward._towers.pixels = SquareInput(reward._towers.pixels.size, fit)
    assert largest_difference(reward) > 100 * TOLERANCE


def test_black_after_normalising_instead_of_before_is_seen(reward: HpsV2) -> None:
    inner = reward._towers.pixels
    reward._towers.pixels = lambda frames: inner(frames) * (inner(torch.ones_like(frames)) > 0)  # type: ignore[assignment]
    assert largest_difference(reward) > 100 * TOLERANCE


@pytest.mark.parametrize(("tower_name", "value"), [("text_config", "quick_gelu"), ("vision_config", "quick_gelu")])
def test_openais_activation_is_seen(tower_name: str, value: str, options: dict[str, Any], tmp_path: Path) -> None:
    values = config_values()
    values[tower_name]["hidden_act"] = value
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert largest_difference(HpsV2(**{**options, "config": tmp_path})) > 100 * TOLERANCE


def test_another_layer_norm_epsilon_is_seen(options: dict[str, Any], tmp_path: Path) -> None:
    values = config_values()
    values["vision_config"]["layer_norm_eps"] = 1e-3
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert largest_difference(HpsV2(**{**options, "config": tmp_path})) > TOLERANCE


def test_reading_the_text_at_another_token_is_seen(reward: HpsV2) -> None:
    reward._towers.model.text_model.eos_token_id = GOLDEN["text"]["vocab_size"] - 2
    assert largest_difference(reward) > 100 * TOLERANCE
