"""train_dpo.py on two processes ends with the adapter that one process ends with."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from rlhf_video.runtime import read_metrics
from rlhf_video.testing import tiny_wan_pipeline
from rlhf_video.testing.launch import ACCELERATE, FSDP2, TORCHRUN, run_script
from rlhf_video.testing.runs import adapter_of, is_trained
from rlhf_video.testing.tiny_pairs import tiny_clip_pairs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    tiny_wan_pipeline(root / "wan")
    (root / "validation.txt").write_text("".join(f"a {colour} square moving left\n" for colour in ("red", "blue")))
    tiny_clip_pairs(root / "train.jsonl", [f"a {colour} circle moving left" for colour in ("red", "blue", "green")])
    tiny_clip_pairs(root / "heldout.jsonl", [f"a {colour} triangle moving left" for colour in ("red", "blue", "green")])
    return root


def train(
    folder: Path, name: str, launcher: tuple[str, ...] = (), *, changes: dict[str, object], **environment: str
) -> dict[str, Tensor]:
    config = {
        "backbone": str(folder / "wan"),
        "prompts": {"validation": str(folder / "validation.txt")},
        "pairs": {"train": str(folder / "train.jsonl"), "validation": str(folder / "heldout.jsonl")},
        "loss": {"beta": None, "auto_beta": {"start": 5.0, "warmup": 1}},
        "rewards": [{"name": "brightness"}],
        "sampling": {"num_frames": 5, "height": 16, "width": 16, "num_steps": 3, "guidance": 2.0},
        "lora": {"rank": 2, "alpha": 2.0},
        "optim": {"learning_rate": 1e-3, "max_grad_norm": 0.01, "epsilon": 1e-6, "warmup": 0},
        "batch": {"global_pairs": 4, "accumulation": 2},
        "num_steps": 3,
        "validation": {"every": 2, "batch": 4},
        "output_dir": str(folder / name),
        **changes,
    }
    if "reference" in changes:  # each run fills its own
        config["reference"] = {"fixed_draws": 4, "cache": str(folder / f"{name}-kept")}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    printed = run_script(launcher, "train_dpo.py", "--config", file, **environment)
    assert printed.count("side by side") == 1, "only the main process speaks"
    return adapter_of(folder / name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["joint", "two_pass, cached", "token budget", "kto"])
def test_two_processes_of_either_kind_equal_one(folder: Path, kind: str) -> None:
    changes: dict[str, dict[str, object]] = {
        "joint": {},
        "two_pass, cached": {"passes": "two_pass", "reference": {"fixed_draws": 4, "cache": "kept"}},
        "token budget": {"batch": {"token_budget": 24}},  # three pairs of 8 tokens: one place is filled up
        "kto": {
            "loss": {"kind": "kto", "beta": 200.0, "disliked_weight": 0.2, "sft_weight": 2.0},
            "batch": {"token_budget": 24, "accumulation": 2},
        },
    }
    name = kind.replace(", ", "-").replace(" ", "-")
    single = train(folder, f"{name}-single", changes=changes[kind])
    assert is_trained(single)
    double = train(folder, f"{name}-double", ACCELERATE, changes=changes[kind])
    torch.testing.assert_close(double, single, rtol=0, atol=1e-6)
    sharded = train(folder, f"{name}-fsdp2", TORCHRUN, changes=changes[kind], **FSDP2)
    torch.testing.assert_close(sharded, single, rtol=0, atol=1e-6)
    if kind == "kto":
        assert all(points(folder / f"kto-{way}")[-1] > 0.01 for way in ("single", "double", "fsdp2"))
        assert points(folder / "kto-double") == pytest.approx(points(folder / "kto-single"), abs=1e-5)


def points(run: Path) -> list[float | None]:
    """Return kto's reference point of every step."""
    return [line["dpo/reference_point"] for line in read_metrics(run) if "loss/dpo" in line]
