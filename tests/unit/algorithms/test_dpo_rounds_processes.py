"""train_dpo_rounds.py on two processes ends with the adapter that one process ends with."""

from pathlib import Path

import pytest
import yaml
from torch import Tensor

from rlhf_video.testing import tiny_wan_pipeline
from rlhf_video.testing.launch import TORCHRUN, run_script
from rlhf_video.testing.runs import adapter_of, is_trained

SAMPLING = {"num_frames": 5, "height": 16, "width": 16, "num_steps": 2, "guidance": 1.0}


def train(folder: Path, name: str, launcher: tuple[str, ...] = ()) -> dict[str, Tensor]:
    config = {
        "backbone": str(folder / "wan"),
        "prompts": "rotate",
        "carry_pairs": True,
        "rounds": 2,
        "pairs": {
            "prompts": str(folder / "train.txt"),
            "clips_per_prompt": 2,
            "sampling": SAMPLING,
            "rewards": [{"name": "brightness"}],
            "rule": {"best_worst": {"score": "brightness/brightness"}},
            "split": {"validation_share": 0.0},
            "batch_size": 1,
        },
        "train": {
            "prompts": {"validation": str(folder / "validation.txt")},
            "loss": {"beta": 5.0},
            "rewards": [{"name": "brightness"}],
            "sampling": SAMPLING,
            "lora": {"rank": 2, "alpha": 2.0},
            "optim": {"learning_rate": 1e-3, "max_grad_norm": 0.01, "epsilon": 1e-6, "warmup": 0},
            "batch": {"global_pairs": 2},
            "num_steps": 2,
            "validation": {"batch": 4},
        },
        "output_dir": str(folder / name),
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    printed = run_script(launcher, "train_dpo_rounds.py", "--config", file)
    assert printed.count("round 2") == 1, "only the main process speaks"
    return adapter_of(folder / name / "round-2" / "run")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_equal_one(tmp_path: Path) -> None:
    tiny_wan_pipeline(tmp_path / "wan")
    for name, shape in (("train", "circle"), ("validation", "square")):
        prompts = [f"a {colour} {shape} moving left\n" for colour in ("red", "blue", "green", "white")]
        (tmp_path / f"{name}.txt").write_text("".join(prompts))
    one, two = train(tmp_path, "one"), train(tmp_path, "two", TORCHRUN)
    assert is_trained(one) and one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-6
