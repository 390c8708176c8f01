"""Six tiny clips of two systems, and a metric that measures their brightness."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evaluation.base import ClipEntry, ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.registry import NamedMetric
from rlhf_video.data import sha256_file, write_video

PROMPTS = ("a red circle", "a blue square", "a star")
SYSTEMS = {"dim": 0.2, "bright": 0.6}


class Brightness:
    """Mean brightness; answers of other kinds by prompt."""

    def __init__(self, answers: dict[str, object] | None = None, *, name: str = "mean_level") -> None:
        self.answers = answers or {}
        self.num_calls = 0
        self.spec = MetricSpec(
            name=name,
            version="1",
            family="measure",
            dimensions=(name,),
            unit="grey levels",
            higher_is_better=True,
            uses_prompt=False,
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        self.num_calls += 1
        answer = self.answers.get(clip.entry.prompt)
        if isinstance(answer, Exception):
            raise answer
        value = answer if isinstance(answer, float) else float(clip.pixels.mean())
        curve = clip.pixels.mean(dim=(1, 2, 3)).tolist()
        return ClipScore(values={self.spec.name: value}, curves={self.spec.name: curve})


def write_system(folder: Path, brightness: float) -> Path:
    """Write three clips and the manifest of generate.py."""
    clips = []
    for number, prompt in enumerate(PROMPTS):
        file = folder / f"{number}.mp4"
        write_video(file, torch.full((3, 3, 16, 16), brightness + 0.05 * number), 8.0)
        clips.append({"file": file.name, "prompt": prompt, "seed": 100 + number, "sha256": sha256_file(file)})
    (folder / "manifest.json").write_text(json.dumps({"model": "none", "clips": clips}))
    return folder


@pytest.fixture
def systems(tmp_path: Path) -> dict[str, Path]:
    """Return system -> folder of its clips."""
    return {name: write_system(tmp_path / "clips" / name, brightness) for name, brightness in SYSTEMS.items()}


@pytest.fixture
def entries(systems: dict[str, Path]) -> list[ClipEntry]:
    return [
        ClipEntry(file=folder / clip["file"], sha256=clip["sha256"], prompt=clip["prompt"], seed=clip["seed"])
        for folder in systems.values()
        for clip in json.loads((folder / "manifest.json").read_text())["clips"]
    ]


@pytest.fixture
def brightness() -> Callable[..., NamedMetric]:
    """Return a function that builds the metric with its answers by prompt."""

    def build(answers: dict[str, object] | None = None, *, name: str = "mean_level", key: str = "") -> NamedMetric:
        return NamedMetric(name, Brightness(answers, name=name), key or f"key of {name}")

    return build


@pytest.fixture
def answers() -> dict[str, object]:
    """Return one answer that is skipped, one that fails, by prompt."""
    return {PROMPTS[0]: SkipClipError("nothing moves"), PROMPTS[1]: RuntimeError("no memory")}


@pytest.fixture
def not_a_number() -> dict[str, object]:
    return {PROMPTS[2]: math.nan}


@pytest.fixture
def config_file(tmp_path: Path, systems: dict[str, Path]) -> Path:
    """Return a config of two systems of given clips and weightless metrics."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    path = tmp_path / "evaluation.yaml"
    path.write_text(
        f"output_dir: {tmp_path / 'run'}\n"
        f"systems: {{dim: {{clips: {systems['dim']}}}, bright: {{clips: {systems['bright']}}}}}\n"
        f"suite: {{prompts: {prompts}}}\n"
        "metrics:\n"
        "  - {name: reward, label: level, options: {name: brightness}}\n"
        "  - {name: luminance_flicker}\n"
        "num_resamples: 1000\n"
    )
    return path
