"""MPS computes what the original computes in float32: golden numbers of tests/parity/record_mps.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rewards.mps import Mps
from rewards.mps_layers import _ParallelBlock
from rewards.random_weights import random_array

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "mps.json").read_text())
TOLERANCE = 1e-5
PROMPTS: list[str] = GOLDEN["prompts"]
SIZE = GOLDEN["config"]["vision_config"]["image_size"]
EVALUATION_THRESHOLD = 0.3


@pytest.fixture(scope="module")
def options(
    tmp_path_factory: pytest.TempPathFactory, random_state: Callable[..., Any], clip_tokenizer: Callable[..., Path]
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mps")
    state = random_state(GOLDEN["shapes"])
    state["model.logit_scale"] = torch.tensor(GOLDEN["logit_scale"])
    state["model.text_model.embeddings.token_embedding.weight"] *= GOLDEN["token_scale"]
    torch.save(state, folder / "mps.pth")
    (folder / "config.json").write_text(json.dumps(GOLDEN["config"]))
    tokenizer = clip_tokenizer(GOLDEN["merges"])
    return {
        "weights": folder / "mps.pth",
        "config": folder,
        "tokenizer": tokenizer,
        "condition": GOLDEN["condition"],
    }


def image(name: str) -> torch.Tensor:
    noise = random_array(f"image {name}", (1, 3 * SIZE * SIZE))[0]
    unit = noise / np.abs(noise).max() * 0.5 + 0.5
    return torch.from_numpy(np.round(unit * 255) / 255).float().reshape(3, SIZE, SIZE)


def scores_of(reward: Mps, name: str, prompts: list[str]) -> torch.Tensor:
    video = image(name)[None, None].expand(len(prompts), -1, -1, -1, -1)
    return reward(video, prompts, fps=8).values["preference"]


def both_images(reward: Mps, prompts: list[str]) -> torch.Tensor:
    return torch.stack([scores_of(reward, name, prompts) for name in ("first", "second")], dim=-1)


def alone() -> torch.Tensor:
    return torch.tensor([record["scores"] for record in GOLDEN["alone"]])


def difference_alone(reward: Mps) -> float:
    return float((both_images(reward, PROMPTS) - alone()).abs().max())


@pytest.mark.parametrize("prompt", list(GOLDEN["token_ids"]))
def test_padded_tokens_equal_the_originals(prompt: str, options: dict[str, Any]) -> None:
    reward = Mps(**options)
    ids = reward._text._token_ids(prompt)[0].tolist()
    assert ids + [reward._padding] * (reward._num_tokens - len(ids)) == GOLDEN["token_ids"][prompt]


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_features_score_and_gradient_equal_the_originals_at_batch_size_one(
    number: int, options: dict[str, Any]
) -> None:
    reward, record, pixels = Mps(**options), GOLDEN["alone"][number], image("first").requires_grad_()
    sentence, tokens, mask = reward._condition([PROMPTS[number]], pixels)
    torch.testing.assert_close(sentence[0], torch.tensor(record["text_features"]), rtol=0, atol=TOLERANCE)
    features = reward._model.embed_image(reward._pixels(pixels.detach()[None]), tokens, mask)[0]
    unit = features / features.norm()
    torch.testing.assert_close(unit, torch.tensor(record["image_features"]), rtol=0, atol=TOLERANCE)
    score = reward(pixels[None, None], [PROMPTS[number]], fps=8).values["preference"]
    torch.testing.assert_close(score[0], torch.tensor(record["scores"][0]), rtol=0, atol=TOLERANCE)
    (gradient,) = torch.autograd.grad(score.sum(), pixels)
    recorded = record["gradient"]
    taken = gradient.flatten()[:: recorded["every"]]
    torch.testing.assert_close(taken, torch.tensor(recorded["values"]), rtol=0, atol=TOLERANCE)
    assert abs(float(gradient.norm()) - record["gradient_norm"]) < TOLERANCE


def test_a_batch_scores_as_the_original_does_one_by_one(options: dict[str, Any]) -> None:
    assert difference_alone(Mps(**options)) < TOLERANCE


def test_evaluation_scripts_threshold_gives_its_scores(options: dict[str, Any]) -> None:
    scores = scores_of(Mps(**options, mask_threshold=EVALUATION_THRESHOLD), "first", PROMPTS)
    torch.testing.assert_close(scores, torch.tensor(GOLDEN["evaluation_script"]), rtol=0, atol=TOLERANCE)


def test_batch_mode_equals_the_original_on_a_batch(options: dict[str, Any]) -> None:
    reward = Mps(**options, mask_threshold=EVALUATION_THRESHOLD, similarity_over="batch")
    recorded = torch.tensor(GOLDEN["in_batch"])
    torch.testing.assert_close(both_images(reward, PROMPTS), recorded, rtol=0, atol=TOLERANCE)


def test_the_original_depends_on_batch_mates_and_the_default_does_not(options: dict[str, Any]) -> None:
    recorded = torch.tensor(GOLDEN["in_batch"])[:, 0]
    assert (recorded - torch.tensor(GOLDEN["evaluation_script"])).abs().max() > 100 * TOLERANCE
    reward = Mps(**options, mask_threshold=EVALUATION_THRESHOLD)
    singles = torch.cat([scores_of(reward, "first", [prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(scores_of(reward, "first", PROMPTS), singles, rtol=0, atol=TOLERANCE)
    batch_mode = Mps(**options, mask_threshold=EVALUATION_THRESHOLD, similarity_over="batch")
    assert (scores_of(batch_mode, "first", PROMPTS) - singles).abs().max() > 100 * TOLERANCE


def test_a_changed_patch_moves_the_score_a_hundred_tolerances(options: dict[str, Any]) -> None:
    reward, pixels = Mps(**options), image("first")
    changed = pixels.clone()
    changed[:, 7:14, 7:14] = 1 - changed[:, 7:14, 7:14]
    before, after = (reward(x[None, None], PROMPTS[:1], fps=8).values["preference"] for x in (pixels, changed))
    assert (before - after).abs() > 100 * TOLERANCE


def test_another_threshold_is_seen(options: dict[str, Any]) -> None:
    assert difference_alone(Mps(**options, mask_threshold=EVALUATION_THRESHOLD)) > 100 * TOLERANCE


def test_unread_padding_is_seen(options: dict[str, Any]) -> None:
    reward = Mps(**options)
    reward._padding = 0
    assert difference_alone(reward) > 100 * TOLERANCE


def test_normalised_image_tokens_are_seen(options: dict[str, Any]) -> None:
    reward = Mps(**options)
    tower = reward._model.clip.vision_model
    tower.encoder.register_forward_hook(
        lambda module, inputs, output: setattr(
            output, "last_hidden_state", tower.post_layernorm(output.last_hidden_state)
        )
    )
    assert difference_alone(reward) > 100 * TOLERANCE


def test_missing_rotary_positions_are_seen(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    reward = Mps(**options)
    angles = _ParallelBlock.forward.__globals__["_angles"]
    monkeypatch.setattr("rewards.mps_layers._angles", lambda tokens: 0 * angles(tokens))
    assert difference_alone(reward) > 100 * TOLERANCE


def test_openais_activation_is_seen(options: dict[str, Any], tmp_path: Path) -> None:
    values = json.loads((options["config"] / "config.json").read_text())
    values["vision_config"]["hidden_act"] = "quick_gelu"
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert difference_alone(Mps(**{**options, "config": tmp_path})) > 100 * TOLERANCE
