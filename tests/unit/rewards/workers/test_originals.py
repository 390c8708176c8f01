"""hpsv2 and image-reward, installed for real into environments of their own: the original code scores clips.

Slow: installs torch and 60 packages twice, two minutes each on two cores; `RLHF_VIDEO_ENVS` is where they are kept.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rewards import registry
from rewards.random_weights import random_array
from rewards.workers.environments import Environment
from rewards.workers.lock import WorkerLock, load_lock
from rewards.workers.parity import run_original

PROMPTS = ("a red circle", "a blue square")
CONFIGS: dict[str, dict[str, object]] = {
    "hpsv2": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 56, "layers": 2, "width": 64, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    },
    "image-reward": {
        "tokenizer": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["a", "red", "blue", "circle", "square"]],
        "vision": {"embed_dim": 48, "depth": 2, "num_heads": 4},
        "text": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "vocab_size": 16,
            "max_position_embeddings": 64,
            "type_vocab_size": 2,
            "add_cross_attention": True,
        },
    },
}
REWARDS = {"hpsv2": ("hps_v2_worker", "hps_v2"), "image-reward": ("image_reward_worker", "image_reward")}

Made = tuple[WorkerLock, Environment]

pytestmark = pytest.mark.slow


@pytest.fixture(params=sorted(CONFIGS))
def made(request: pytest.FixtureRequest, worker_environment: Callable[[str], Environment]) -> Made:
    return load_lock(request.param), worker_environment(request.param)


def frames(count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 40, 60, 3), dtype=np.uint8)


@pytest.mark.timeout(900)
def test_environment_holds_exactly_what_its_lock_says(made: Made) -> None:
    lock, environment = made
    wrong = {n: v for n, v in environment.packages.items() if not lock.has(n, v) and n not in ("pip", "triton")}
    assert {name: version for name, version in wrong.items() if "nvidia" not in name and "cuda" not in name} == {}
    assert len(environment.packages) >= len(lock.pins)


def test_original_computes_from_regenerated_weights(made: Made) -> None:
    lock, environment = made
    run, again, other = (
        run_original(lock.name, frames(), PROMPTS, config=CONFIGS[lock.name], seed=seed, python=environment.python)
        for seed in (0, 0, 1)
    )
    np.testing.assert_allclose(run.arrays["score"], run.arrays["package_score"], rtol=0, atol=2e-6)
    assert all(np.array_equal(run.arrays[name], again.arrays[name]) for name in run.arrays)
    assert np.abs(run.arrays["score"] - other.arrays["score"]).min() > 1e-3
    assert np.abs(run.arrays["pixel_gradient"]).max() > 1e-4
    assert sum(np.prod(shape) for shape in run.state.values()) > 10_000


def test_scores_move_with_the_picture_and_the_prompt(made: Made) -> None:
    lock, environment = made
    changed = frames()
    changed[0, 4:20, 4:20] = 255 - changed[0, 4:20, 4:20]

    def score(pictures: np.ndarray, prompts: tuple[str, ...]) -> np.ndarray:
        config = CONFIGS[lock.name]
        return run_original(lock.name, pictures, prompts, config=config, python=environment.python).arrays["score"]

    base = score(frames(), PROMPTS)
    moved = np.abs(score(changed, PROMPTS) - base)
    assert moved[0] > 1e-3 and moved[1] < 1e-6
    assert np.abs(score(frames(), PROMPTS[::-1]) - base).min() > 1e-3


def test_worker_reward_scores_clips_with_the_original(made: Made, tmp_path: Path) -> None:
    lock, environment = made
    weights, config = tmp_path / "weights.pt", tmp_path / "config.json"
    config.write_text(json.dumps(CONFIGS[lock.name]))
    pictures = frames(4)
    run = run_original(
        lock.name,
        pictures,
        [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2,
        config=CONFIGS[lock.name],
        python=environment.python,
        save_weights=weights,
    )
    name, dimension = REWARDS[lock.name]
    reward = registry.build(name, weights=weights, config=config, frames_per_pass=3, device="cpu")
    video = torch.from_numpy(pictures).movedim(-1, 1).float().div(255).unflatten(0, (2, 2))
    output = reward(video, PROMPTS, fps=8.0)
    assert output.valid.tolist() == [True, True]
    expected = run.arrays["package_score"].reshape(2, 2).mean(axis=1)
    np.testing.assert_allclose(output.values[dimension].numpy(), expected, rtol=0, atol=2e-6)
    reward.close()


def test_weights_of_another_model_are_refused(made: Made, tmp_path: Path) -> None:
    lock, _ = made
    weights, config = tmp_path / "weights.pt", tmp_path / "config.json"
    config.write_text(json.dumps(CONFIGS[lock.name]))
    torch.save({"state_dict": {"proj": torch.from_numpy(random_array("proj", (2, 2)))}}, weights)
    reward = registry.build(REWARDS[lock.name][0], weights=weights, config=config, device="cpu")
    with pytest.raises(ValueError, match="refused to start"):
        reward(torch.rand(1, 2, 3, 8, 8), ["a circle"], fps=8.0)
