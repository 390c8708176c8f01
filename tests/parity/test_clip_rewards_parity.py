"""CLIPScore, PickScore and LAION's heads against the authors' arithmetic, on the same tiny `transformers.CLIPModel`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

from rewards.aesthetic import Aesthetic
from rewards.clip_score import ClipScore
from rewards.pick_score import PickScore
from rewards.random_weights import random_array
from rewards.tower_inputs import SquareInput

TOLERANCE = 1e-5
MERGES = ["r e", "c i", "r c", "l e</w>", "re d</w>", "ci rc", "circ le</w>", "d e", "de p", "dep i"]
PROMPTS = ["a red circle", "Three BLUE squares", "circle of red light moving left"]
SIZE = 28


def config_values(vocabulary: int, activation: str) -> dict[str, Any]:
    tower = {"intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": activation}
    text = {"hidden_size": 16, "vocab_size": vocabulary, "max_position_embeddings": 24}
    end = {"eos_token_id": vocabulary - 1, "bos_token_id": vocabulary - 2}
    return {
        "model_type": "clip",
        "projection_dim": 20,
        "text_config": {**tower, **text, **end},
        "vision_config": {**tower, "hidden_size": 32, "image_size": SIZE, "patch_size": 7},
    }


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, random_state: Callable[..., Any], clip_tokenizer: Callable[..., Path]
) -> Path:
    """Return a folder that transformers reads as a whole, and our rewards file by file."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = AutoTokenizer.from_pretrained(clip_tokenizer(MERGES))
    tokenizer.save_pretrained(folder)
    values = config_values(len(tokenizer), "quick_gelu")
    (folder / "config.json").write_text(json.dumps(values))
    shapes = {name: value.shape for name, value in CLIPModel(CLIPConfig(**values)).state_dict().items()}
    state = random_state(shapes)
    state["logit_scale"] = torch.tensor(2.0)
    state["visual_projection.weight"][:3] *= -1  # so that cosines of both signs occur
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> CLIPModel:
    return CLIPModel.from_pretrained(folder).eval()


def options(folder: Path, **changed: Any) -> dict[str, Any]:
    return {"weights": folder / "model.safetensors", "config": folder, "tokenizer": folder} | changed


def smooth_image(height: int, width: int) -> np.ndarray:
    """Return an 8-bit image (height, width, 3) of slow waves, away from black and white."""
    rows, columns = np.mgrid[:height, :width] / 12.0
    waves = [np.sin(rows + 2 * channel) * np.cos(columns - channel) for channel in range(3)]
    return np.round(127.5 + 90 * np.stack(waves, axis=-1)).astype(np.uint8)


def pixels_of(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).movedim(-1, 0).float() / 255


def noise() -> torch.Tensor:
    """Return three images (3, 3, 40, 52) in [0, 1]."""
    values = random_array("clip images", (1, 3 * 3 * 40 * 52))[0]
    return torch.from_numpy(values / np.abs(values).max() / 2 + 0.5).float().reshape(3, 3, 40, 52)


def score_with_gradient(reward: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = images.clone().requires_grad_()
    (scores,) = reward(leaf[:, None], PROMPTS, fps=8).values.values()
    (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    return scores.detach(), gradient


def features(
    model: CLIPModel, folder: Path, images: torch.Tensor, texts: list[str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image and text features of transformers' own model, not normalised."""
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, max_length=24)
    pixels = SquareInput(SIZE, "crop")(images)
    text = model.get_text_features(torch.tensor(tokens["input_ids"]), torch.tensor(tokens["attention_mask"]))
    return model.get_image_features(pixels).pooler_output, text.pooler_output


@pytest.mark.parametrize("formula", ["paper", "percent"])
def test_clip_score_equals_the_papers_formula(formula: Any, folder: Path, model: CLIPModel) -> None:
    leaf = noise().requires_grad_()
    image, text = features(model, folder, leaf, [f"A photo depicts {prompt}" for prompt in PROMPTS])
    image = image / torch.sqrt(torch.sum(image**2, dim=1, keepdim=True))
    text = text / torch.sqrt(torch.sum(text**2, dim=1, keepdim=True))
    cosine = torch.sum(image * text, dim=1)
    assert cosine.min() < 0 < cosine.max()  # both sides of the clamp
    expected = 2.5 * torch.clip(cosine, 0, None) if formula == "paper" else 100 * cosine
    (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
    scores, gradient = score_with_gradient(ClipScore(**options(folder), formula=formula), noise())
    torch.testing.assert_close(scores, expected.detach(), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(gradient, expected_gradient, rtol=TOLERANCE, atol=TOLERANCE)


def test_pick_score_equals_the_official_script_on_the_same_pixels(folder: Path, model: CLIPModel) -> None:
    leaf = noise().requires_grad_()
    image, text = features(model, folder, leaf, PROMPTS)
    image = image / torch.norm(image, dim=-1, keepdim=True)
    text = text / torch.norm(text, dim=-1, keepdim=True)
    expected = model.logit_scale.exp() * torch.diagonal(text @ image.T)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
    scores, gradient = score_with_gradient(PickScore(**options(folder)), noise())
    torch.testing.assert_close(scores, expected.detach(), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(gradient, expected_gradient, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (100, 56), (28, 28), (28, 59), (59, 28)])
def test_pixels_differ_from_the_official_processors_by_about_a_grey_level(height: int, width: int) -> None:
    image = smooth_image(height, width)
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE)
    official = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"][0]
    ours = SquareInput(SIZE, "processor_crop")
    grey_level = torch.tensor(ours.std)[:, None, None] * 255
    difference = ((official - ours(pixels_of(image))) * grey_level).abs()
    assert difference.max() < 1.1
    squashed = SquareInput(SIZE, "squash")
    if height != width:
        assert ((official - squashed(pixels_of(image))) * grey_level).abs().max() > 10


def test_official_processor_moves_pick_score_by_a_thousandth(folder: Path, model: CLIPModel) -> None:
    image = smooth_image(64, 96)
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=SIZE)
    official = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        embedding = model.get_image_features(official).pooler_output
        _, text = features(model, folder, noise()[:1], PROMPTS[:1])
        expected = model.logit_scale.exp() * torch.cosine_similarity(embedding, text)
        score = PickScore(**options(folder))(pixels_of(image)[None, None], PROMPTS[:1], fps=8).values["preference"]
    assert float((score - expected).abs()) < 1e-3 * float(model.logit_scale.detach().exp())


@pytest.mark.parametrize("reward_class", [ClipScore, PickScore])
def test_a_changed_patch_moves_the_score_and_exact_gelu_is_seen(
    reward_class: Any, folder: Path, tmp_path: Path
) -> None:
    extra: dict[str, Any] = {"formula": "percent"} if reward_class is ClipScore else {}
    reward = reward_class(**options(folder), **extra)
    changed = noise()
    changed[:, :, 8:18, 12:22] = 1 - changed[:, :, 8:18, 12:22]
    scores, _ = score_with_gradient(reward, noise())
    assert (score_with_gradient(reward, changed)[0] - scores).abs().mean() > 100 * TOLERANCE
    values = config_values(len(AutoTokenizer.from_pretrained(folder)), "gelu")
    (tmp_path / "config.json").write_text(json.dumps(values))
    exact = reward_class(**options(folder, config=tmp_path), **extra)
    assert (score_with_gradient(exact, noise())[0] - scores).abs().max() > 100 * TOLERANCE


def test_prefix_and_prompt_position_are_seen(folder: Path) -> None:
    reward = ClipScore(**options(folder), formula="percent")
    scores, _ = score_with_gradient(reward, noise())
    plain, _ = score_with_gradient(ClipScore(**options(folder), formula="percent", prefix=""), noise())
    assert (plain - scores).abs().max() > 100 * TOLERANCE
    misread = ClipScore(**options(folder), formula="percent")
    misread._towers.model.text_model.eos_token_id -= 1
    assert (score_with_gradient(misread, noise())[0] - scores).abs().max() > 100 * TOLERANCE


def published_mlp(width: int, activation: type[nn.Module] | None = None) -> nn.Sequential:
    """Return the improved predictor's head as its authors define it, with random weights."""
    sizes, dropouts = (width, 1024, 128, 64, 16, 1), (0.2, 0.2, 0.1, None, None)
    parts: list[nn.Module] = []
    for number, dropout in enumerate(dropouts):
        parts.append(nn.Linear(sizes[number], sizes[number + 1]))
        parts.extend([activation()] if activation is not None and number < 4 else [])
        parts.extend([nn.Dropout(dropout)] if dropout is not None else [])
    return with_random_weights(nn.Sequential(*parts)).eval()  # type: ignore[return-value]


def with_random_weights(head: nn.Module) -> nn.Module:
    head.load_state_dict({n: torch.from_numpy(random_array(n, v.shape)) for n, v in head.state_dict().items()})
    return head


def head_file(kind: str, path: Path) -> nn.Module:
    head = with_random_weights(nn.Linear(20, 1)) if kind == "linear" else published_mlp(20)
    prefix = "" if kind == "linear" else "layers."
    torch.save({f"{prefix}{name}": value for name, value in head.state_dict().items()}, path)
    return head


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_aesthetic_heads_equal_the_published_modules(kind: str, folder: Path, model: CLIPModel, tmp_path: Path) -> None:
    head = head_file(kind, tmp_path / "head.pth")
    leaf = noise().requires_grad_()
    image, _ = features(model, folder, leaf, PROMPTS)
    expected = head(image / image.norm(dim=-1, keepdim=True))[:, 0]
    (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
    reward = Aesthetic(tmp_path / "head.pth", clip_weights=folder / "model.safetensors", config=folder)
    scores, gradient = score_with_gradient(reward, noise())
    torch.testing.assert_close(scores, expected.detach(), rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(gradient, expected_gradient, rtol=TOLERANCE, atol=TOLERANCE)
    unnormalised = head(image)[:, 0]
    assert (unnormalised - scores).abs().max() > 100 * TOLERANCE
    changed = noise()
    changed[:, :, 8:18, 12:22] = 1 - changed[:, :, 8:18, 12:22]
    assert (score_with_gradient(reward, changed)[0] - scores).abs().mean() > 100 * TOLERANCE


def test_an_mlp_with_activations_is_seen(folder: Path, model: CLIPModel, tmp_path: Path) -> None:
    linear = head_file("mlp", tmp_path / "head.pth")
    image, _ = features(model, folder, noise(), PROMPTS)
    unit = image / image.norm(dim=-1, keepdim=True)
    rectified = published_mlp(20, nn.ReLU)
    weights = [part for part in linear if isinstance(part, nn.Linear)]  # type: ignore[attr-defined]
    for mine, theirs in zip([p for p in rectified if isinstance(p, nn.Linear)], weights, strict=True):
        mine.load_state_dict(theirs.state_dict())
    reward = Aesthetic(tmp_path / "head.pth", clip_weights=folder / "model.safetensors", config=folder)
    scores, _ = score_with_gradient(reward, noise())
    assert (rectified(unit)[:, 0] - scores).abs().max() > 100 * TOLERANCE
