"""A tiny benchmark in VideoGen-RewardBench's layout whose people prefer the brighter clip."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from rlhf_video.data import write_video

COLUMNS = ("path_A", "path_B", "A_model", "B_model", "prompt", "VQ", "MQ", "TA", "Overall")
BRIGHTNESS = {"dim": 0.2, "medium": 0.5, "bright": 0.8}
PROMPTS = ("a red circle", "a blue square moving left", "a star")
PAIRS = (("dim", "bright"), ("bright", "medium"), ("medium", "dim"))


def write_clip(path: Path, brightness: float, *, num_frames: int = 3, fps: float = 8.0) -> Path:
    """Write a still clip of one grey level."""
    write_video(path, torch.full((num_frames, 3, 16, 16), brightness), fps)
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(prompt: str, model_a: str, model_b: str, **labels: str) -> dict[str, str]:
    number = PROMPTS.index(prompt)
    return {
        "path_A": f"videos/{model_a}/{number}.mp4",
        "path_B": f"videos/{model_b}/{number}.mp4",
        "A_model": model_a,
        "B_model": model_b,
        "prompt": prompt,
        **{"VQ": "same", "MQ": "A", "TA": "B", "Overall": "A"},
        **labels,
    }


@pytest.fixture
def make_row() -> Callable[..., dict[str, str]]:
    return row


@pytest.fixture
def make_csv() -> Callable[..., Path]:
    return write_csv


@pytest.fixture
def make_clip() -> Callable[..., Path]:
    return write_clip


@pytest.fixture
def bench_root(tmp_path: Path) -> Path:
    """Return a folder with nine clips (three generators, three prompts) and nine comparisons."""
    root = tmp_path / "bench"
    rows = []
    for number, prompt in enumerate(PROMPTS):
        for model, brightness in BRIGHTNESS.items():
            write_clip(root / "videos" / model / f"{number}.mp4", brightness + 0.02 * number)
        for model_a, model_b in PAIRS:
            brighter = "A" if BRIGHTNESS[model_a] > BRIGHTNESS[model_b] else "B"
            rows.append(row(prompt, model_a, model_b, Overall=brighter, VQ="same", MQ=brighter))
    write_csv(root / "videogen-rewardbench.csv", rows)
    return root
