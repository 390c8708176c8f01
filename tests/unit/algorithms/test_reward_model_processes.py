"""The entry script on two processes ends with the reward that one process ends with."""

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from rlhf_video.testing.launch import ACCELERATE, FSDP2, TORCHRUN, launch, run_script
from rlhf_video.testing.tiny_pairs import tiny_clip, tiny_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    tiny_clip(root / "clip")
    tiny_pairs(root / "pairs.jsonl", every_tie=5)
    return root


def write_config(folder: Path, name: str) -> Path:
    config = {
        "reward": "clip_preference",
        "options": {"model": str(folder / "clip")},
        "pairs": {"train": str(folder / "pairs.jsonl"), "validation_share": 0.3, "frames_per_clip": 2},
        "trains": "lora",
        "lora": {"rank": 2, "alpha": 2.0},
        "loss": {"model": "rao_kupper", "learn_tie_parameter": True, "temperature": 4.0},
        "optim": {"learning_rate": 0.01, "epsilon": 1e-3},
        "batch": {"global_pairs": 8, "accumulation": 2},
        "num_steps": 3,
        "validation": {"every": 2},
        "output_dir": str(folder / name),
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def weights(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / name / "reward" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_accelerate_launch_equal_one(folder: Path) -> None:
    single = run_script((), "train_reward_model.py", "--config", write_config(folder, "single"))
    double = run_script(ACCELERATE, "train_reward_model.py", "--config", write_config(folder, "double"))
    for printed in (single, double):
        assert printed.count("reward           ") == 1, "only the main process speaks"
    torch.testing.assert_close(weights(folder, "double"), weights(folder, "single"), rtol=0, atol=1e-5)
    start = load_file(folder / "clip" / "model.safetensors")
    assert any(not torch.equal(start[name], value) for name, value in weights(folder, "single").items())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sharding_a_reward_model_is_refused_in_one_paragraph(folder: Path) -> None:
    done = launch(TORCHRUN, "train_reward_model.py", "--config", write_config(folder, "fsdp2"), **FSDP2)
    assert done.returncode != 0
    assert "error: Reward models are not sharded, and this launch asks for fsdp2" in done.stderr
