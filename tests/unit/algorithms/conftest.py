"""A tiny but real run: WanPipeline folder, closed-form reward, three prompt files."""

from pathlib import Path

import pytest

from rlhf_video.testing import tiny_wan_pipeline

COLOURS = ("red", "blue", "green", "white", "black", "pink")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_pipeline(tmp_path_factory.mktemp("tiny") / "wan")


@pytest.fixture
def recipe(tmp_path: Path, tiny_folder: Path) -> dict[str, object]:
    """Return plain config values; tests change what they are about."""
    for name, shape in (("train", "circle"), ("validation", "square"), ("test", "triangle")):
        (tmp_path / f"{name}.txt").write_text("".join(f"a {colour} {shape} moving left\n" for colour in COLOURS[:4]))
    return {
        "backbone": str(tiny_folder),
        "prompts": {name: str(tmp_path / f"{name}.txt") for name in ("train", "validation")},
        "rewards": [{"name": "brightness"}],
        "held_out": [{"name": "sharpness"}],
        "sampling": {"num_frames": 5, "height": 16, "width": 16, "num_steps": 3, "guidance": 2.0},
        "lora": {"rank": 4, "alpha": 4.0},
        "estimator": {"num_grad_steps": 2},
        "optim": {"learning_rate": 0.01, "max_grad_norm": 1.0},
        "batch": {"global_prompts": 4},
        "num_steps": 2,
        "validation": {"every": 2, "clips_per_prompt": 2, "batch": 8},
        "held_out_stop": {"enabled": False},
        "sweep": {"scales": [0.0, 1.0]},
        "checkpoint": {"every": 2},
        "output_dir": str(tmp_path / "run"),
    }
