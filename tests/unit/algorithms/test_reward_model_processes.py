"""The entry script on two processes ends with the reward that one process ends with."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from rlhf_video.testing.tiny_pairs import tiny_clip, tiny_pairs

ROOT = Path(__file__).resolve().parents[3]
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    tiny_clip(root / "clip")
    tiny_pairs(root / "pairs.jsonl", every_tie=5)
    return root


def train(
    folder: Path, name: str, launcher: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
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
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, *launcher, "rlhf_video/train_reward_model.py", "--config", str(folder / f"{name}.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550, check=False)


def weights(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / name / "reward" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_accelerate_launch_equal_one(folder: Path) -> None:
    launchers: dict[str, tuple[str, ...]] = {"single": (), "double": ACCELERATE}
    for name, launcher in launchers.items():
        done = train(folder, name, launcher)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        assert done.stdout.count("reward           ") == 1, "only the main process speaks"
    torch.testing.assert_close(weights(folder, "double"), weights(folder, "single"), rtol=0, atol=1e-5)
    start = load_file(folder / "clip" / "model.safetensors")
    assert any(not torch.equal(start[name], value) for name, value in weights(folder, "single").items())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sharding_a_reward_model_is_refused_in_one_paragraph(folder: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    done = train(folder, "fsdp2", launcher, ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    assert done.returncode != 0
    assert "error: Reward models are not sharded, and this launch asks for fsdp2" in done.stderr
