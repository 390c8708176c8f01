"""train_sft.py on two processes ends with the adapter that one process ends with, for both of its methods.

On clips of mixed sizes too, where the clips of a step cannot be shared equally.
"""

import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from rlhf_video.attention import AttentionPlan, Band
from rlhf_video.data import write_lossless
from rlhf_video.testing import tiny_wan_pipeline
from rlhf_video.testing.launch import ACCELERATE, FSDP2, TORCHRUN, run_script
from rlhf_video.testing.runs import adapter_of, is_trained

KINDS = ("fine-tuning", "recovery", "mixed sizes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("processes")
    tiny_wan_pipeline(root / "wan")
    AttentionPlan(num_heads=6, layers=(Band(halo=0.0), Band(halo=0.0))).save(root / "plan.json")
    for name, shape in (("train", "circle"), ("validation", "square")):
        lines = (f"a {colour} {shape} moving left" for colour in ("red", "blue", "green"))
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    entries = []
    for number in range(8):
        size = (9, 3, 32, 32) if number < 5 else (5, 3, 16, 32)
        video = torch.rand(size, generator=torch.Generator().manual_seed(number))
        write_lossless(root / f"{number}.mkv", video, 8)
        entries.append({"file": f"{number}.mkv", "prompt": f"a {['red', 'blue', 'green'][number % 3]} circle"})
    for name, part in (("clips", entries[:3]), ("heldout", entries[3:5]), ("mixed", [*entries[:3], *entries[5:]])):
        (root / f"{name}.json").write_text(json.dumps({"clips": part}))
    return root


def train(folder: Path, kind: str, name: str, launcher: tuple[str, ...] = (), **environment: str) -> dict[str, Tensor]:
    prompts = {"validation": str(folder / "validation.txt")}
    train_list = "mixed.json" if kind == "mixed sizes" else "clips.json"
    clips = {"train": str(folder / train_list), "validation": str(folder / "heldout.json")}
    batch = {"token_budget": 24, "accumulation": 2} if kind == "mixed sizes" else {"global_clips": 4, "accumulation": 2}
    config = {
        "backbone": str(folder / "wan"),
        "prompts": prompts | ({"train": str(folder / "train.txt")} if kind == "recovery" else {}),
        "data": {} if kind == "recovery" else clips,
        "recovery": {"anneal_steps": 1, "clips_per_prompt": 3} if kind == "recovery" else None,
        "attention": {"file": str(folder / "plan.json")},
        "rewards": [{"name": "brightness"}],
        "sampling": {"num_frames": 9, "height": 32, "width": 32, "num_steps": 3, "guidance": 2.0},
        "lora": {"rank": 2, "alpha": 2.0},
        "optim": {"learning_rate": 1e-3, "max_grad_norm": 0.01, "epsilon": 1e-6},
        "batch": batch,
        "num_steps": 3,
        "validation": {"every": 2, "batch": 4},
        "output_dir": str(folder / name),
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    printed = run_script(launcher, "train_sft.py", "--config", file, **environment)
    assert printed.count("side by side") == 1, "only the main process speaks"
    return adapter_of(folder / name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_of_either_kind_equal_one(folder: Path, kind: str) -> None:
    single = train(folder, kind, f"{kind}-single")
    assert is_trained(single)
    double = train(folder, kind, f"{kind}-double", ACCELERATE)
    torch.testing.assert_close(double, single, rtol=0, atol=1e-6)
    sharded = train(folder, kind, f"{kind}-fsdp2", TORCHRUN, **FSDP2)
    torch.testing.assert_close(sharded, single, rtol=0, atol=1e-6)
