"""train_asd.py on two processes ends with the adapter that one process ends with."""

from pathlib import Path

import pytest
import yaml
from torch import Tensor

from rlhf_video.testing import tiny_wan_pipeline
from rlhf_video.testing.launch import ACCELERATE, run_script
from rlhf_video.testing.runs import adapter_of, is_trained


def train(folder: Path, name: str, launcher: tuple[str, ...] = ()) -> dict[str, Tensor]:
    config = {
        "backbone": str(folder / "wan"),
        "prompts": {split: str(folder / f"{split}.txt") for split in ("train", "validation")},
        "rewards": [{"name": "brightness"}],
        "sampling": {"num_frames": 9, "height": 16, "width": 16, "num_steps": 2, "guidance": 2.0},
        "causal": {"chunk_frames": 1},
        "steps": {"trained": [1, 2], "first_chunk": 2, "exit": "last", "validated": 1},
        "lora": {"rank": 2, "alpha": 2.0},
        "fake": {"rank": 2, "learning_rate": 1e-3, "updates": 2},
        "adversarial": {"weight": 1.0, "learning_rate": 1e-3, "discriminator": {"width": 8, "num_heads": 2}},
        "optim": {"learning_rate": 1e-3, "max_grad_norm": 0.01, "epsilon": 1e-6},
        "batch": {"global_clips": 4},
        "num_steps": 3,
        "validation": {"every": 3, "clips_per_prompt": 1, "batch": 4},
        "output_dir": str(folder / name),
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    run_script(launcher, "train_asd.py", "--config", file)
    return adapter_of(folder / name)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    tiny_wan_pipeline(tmp_path / "wan")
    for name, shape in (("train", "circle"), ("validation", "square")):
        (tmp_path / f"{name}.txt").write_text("".join(f"a {c} {shape} moving left\n" for c in ("red", "blue")))
    one, two = train(tmp_path, "one"), train(tmp_path, "two", ACCELERATE)
    assert is_trained(one)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
