"""The entry script on two processes ends with the adapter that one process ends with."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from rlhf_video.lora.files import read_adapter
from rlhf_video.testing import tiny_wan_pipeline
from rlhf_video.testing.launch import ACCELERATE, FSDP2, PACKAGE, TORCHRUN, ZERO2, run_script


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    tiny_wan_pipeline(root / "wan")
    for name, shape in (("train", "circle"), ("validation", "square")):
        lines = (f"a {colour} {shape} moving left" for colour in ("red", "blue", "green"))
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def write_config(folder: Path, name: str, **changes: object) -> Path:
    config = {
        "backbone": str(folder / "wan"),
        "prompts": {split: str(folder / f"{split}.txt") for split in ("train", "validation")},
        "rewards": [{"name": "brightness"}],
        "held_out": [{"name": "sharpness"}],
        "sampling": {"num_frames": 5, "height": 16, "width": 16, "num_steps": 3, "guidance": 2.0},
        "lora": {"rank": 2, "alpha": 2.0},
        "estimator": {"num_grad_steps": 2},
        "pull": {"weight": 0.1},
        "optim": {"learning_rate": 1e-3, "max_grad_norm": 0.01, "epsilon": 1e-6},
        "batch": {"global_prompts": 4, "accumulation": 2},
        "num_steps": 3,
        "validation": {"every": 2, "batch": 4},
        "sweep": {"scales": [0.0, 1.0]},
        "output_dir": str(folder / name),
        **changes,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def train(
    folder: Path,
    name: str,
    launcher: tuple[str, ...] = (),
    changes: dict[str, object] | None = None,
    **environment: str,
) -> dict[str, Tensor]:
    file = write_config(folder, name, **(changes or {}))
    printed = run_script(launcher, "train_reward_bp.py", "--config", file, **environment)
    assert printed.count("side by side") == 1, "only the main process speaks"
    return read_adapter(folder / name / "adapter" / "pytorch_lora_weights.safetensors")[0]


@pytest.fixture(scope="module")
def single(folder: Path) -> dict[str, Tensor]:
    return train(folder, "single")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_accelerate_launch_equal_one(folder: Path, single: dict[str, Tensor]) -> None:
    double = train(folder, "double", ACCELERATE)
    torch.testing.assert_close(double, single, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_fsdp2_processes_equal_one(folder: Path, single: dict[str, Tensor]) -> None:
    double = train(folder, "fsdp2", TORCHRUN, **FSDP2)
    torch.testing.assert_close(double, single, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_fsdp2_processes_equal_one_under_an_attention_plan(folder: Path) -> None:
    sampling = {"num_frames": 9, "height": 32, "width": 32, "num_steps": 3, "guidance": 2.0}
    changes: dict[str, object] = {"attention": {"preset": "hybrid_middle"}, "sampling": sampling}
    one = train(folder, "windowed", changes=changes)
    double = train(folder, "windowed-fsdp2", TORCHRUN, changes, **FSDP2)
    torch.testing.assert_close(double, one, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_deepspeed_zero2_processes_equal_one(folder: Path, single: dict[str, Tensor]) -> None:
    pytest.importorskip("deepspeed", reason='needs pip install -e ".[deepspeed]"')
    double = train(folder, "zero2", TORCHRUN, **ZERO2)
    torch.testing.assert_close(double, single, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_from_its_last_checkpoint_to_the_same_adapter(
    folder: Path, single: dict[str, Tensor]
) -> None:
    file = write_config(folder, "killed", checkpoint={"every": 1})
    command = [sys.executable, str(PACKAGE / "train_reward_bp.py"), "--config", str(file)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    first = folder / "killed" / "checkpoints" / "step-000001"
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        while not first.is_dir():
            assert run.poll() is None, "the run ended before its first checkpoint"
            time.sleep(0.02)
        run.kill()
    assert not (folder / "killed" / "adapter").exists(), "killed on the way"
    run_script((), "train_reward_bp.py", "--config", file, "--resume")
    resumed = read_adapter(folder / "killed" / "adapter" / "pytorch_lora_weights.safetensors")[0]
    torch.testing.assert_close(resumed, single, rtol=0, atol=0)
