"""The evaluation page of a realistic run that nobody made: two systems, many prompts, fifteen scores."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from evaluation.base import ClipEntry
from evaluation.comparison import compare_systems
from evaluation.report_page import write_evaluation_report
from evaluation.scores import Column, SystemScores
from evaluation.summary import summarise
from rlhf_video.data import write_video

# name, family, unit, higher is better, mean, spread, gain
COLUMNS = (
    ("sprite_judge/all_right", "reward", "share", True, 0.52, None, 0.17),
    ("hps_v2", "reward", "score", True, 0.262, 0.012, 0.006),
    ("clip_score", "reward", "score", True, 0.301, 0.02, 0.004),
    ("temporal_flickering", "vbench-port", "score", True, 0.968, 0.01, 0.004),
    ("subject_consistency", "vbench-port", "score", True, 0.942, 0.03, 0.012),
    ("background_consistency", "vbench-port", "score", True, 0.955, 0.02, 0.0),
    ("motion_smoothness", "vbench-port", "score", True, 0.981, 0.006, 0.003),
    ("dynamic_degree", "vbench-port", "share", True, 0.61, None, -0.14),
    ("aesthetic_quality", "vbench-port", "score", True, 0.513, 0.05, 0.012),
    ("imaging_quality", "vbench-port", "score", True, 0.604, 0.08, -0.002),
    ("motion", "measure", "pixels per frame", True, 1.32, 0.5, -0.21),
    ("luminance_flicker", "measure", "grey levels", False, 2.1, 0.7, -0.2),
    ("blockiness", "measure", "ratio", False, 1.04, 0.03, 0.001),
    ("brightness", "measure", "share", None, 0.43, 0.1, 0.02),
    ("drift/sharpness", "measure", "log ratio", None, -0.08, 0.11, 0.05),
)
SHAPES, COLOURS = ("circle", "square", "star"), ("red", "blue", "green", "yellow")
WAYS = ("moving left", "moving right", "standing still", "bouncing", "growing", "spinning")
NUM_PROMPTS, CLIPS_PER_PROMPT = 72, 2
HOSTILE = "<script>alert('x')</script> & \"quotes\""


def prompts(count: int) -> list[str]:
    every = [f"a {colour} {shape} {way}" for way in WAYS for shape in SHAPES for colour in COLOURS]
    return every[:count]


def draw_clip(path: Path, index: int, *, side: int = 64, speed: float = 1.0) -> Path:
    """Write a dot that moves, so that a person sees which clip is which."""
    frames = torch.full((13, 3, side, side), 0.15)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for frame in range(13):
        x = (10 + 3.1 * speed * frame + 7 * index) % side
        y = (14 + 1.7 * frame + 5 * index) % side
        disc = ((rows - y) ** 2 + (columns - x) ** 2) < 64
        frames[frame, index % 3][disc] = 0.95
        frames[frame, (index + 1) % 3][disc] = 0.1 + 0.2 * (index % 4)
    write_video(path, frames, 8.0)
    return path


def make_system(
    folder: Path, name: str, *, gain: float, num_prompts: int = NUM_PROMPTS, side: int = 64, first: str = ""
) -> SystemScores:
    rng, shared = np.random.default_rng(abs(hash(name)) % 1000 if False else int(gain * 10)), np.random.default_rng(7)
    texts = prompts(num_prompts)
    texts[0] = first or texts[0]
    drawn = [
        draw_clip(folder / name / f"clip-{index}.mp4", index, side=side, speed=1.0 - 0.3 * gain) for index in range(6)
    ]
    entries = tuple(
        ClipEntry(
            file=drawn[(CLIPS_PER_PROMPT * number + sample) % len(drawn)],
            sha256=hashlib.sha256(f"{name}{number}{sample}".encode()).hexdigest(),
            prompt=text,
            sample=sample,
            seed=100 * number + sample,
        )
        for number, text in enumerate(texts)
        for sample in range(CLIPS_PER_PROMPT)
    )
    columns, values, statuses, reasons = [], {}, {}, {}
    for column, family, unit, better, mean, spread, change in COLUMNS:
        ease = np.repeat(shared.normal(size=num_prompts), CLIPS_PER_PROMPT)
        noise = 0.7 * ease + 0.7 * rng.normal(size=len(entries))
        if spread is None:
            held = (noise < 2.2 * (mean + gain * change - 0.5)).astype(np.float64)
        else:
            held = mean + gain * change + spread * noise
        columns.append(Column(name=column, family=family, unit=unit, higher_is_better=better))
        states = ["ok"] * len(entries)
        reasons[column] = {}
        if column == "aesthetic_quality" and gain > 0:
            for index in (5, 40):
                states[index], held[index] = "failed", np.nan
                reasons[column][index] = "RuntimeError: the worker died (exit code -9), perhaps for want of memory"
        if column == "drift/sharpness":
            for index in (3, 77, 101):
                states[index % len(entries)], held[index % len(entries)] = "skipped", np.nan
                reasons[column][index % len(entries)] = (
                    f"the clip is flat: nothing to be sharp {HOSTILE if first else ''}"
                )
        values[column], statuses[column] = held, tuple(states)
    return SystemScores(
        system=name, entries=entries, columns=tuple(columns), values=values, statuses=statuses, reasons=reasons
    )


def make_curves(scores: SystemScores, *, slope: float) -> dict[str, list[list[float]]]:
    rng = np.random.default_rng(3)
    return {"drift/sharpness": [list(1.0 - slope * np.arange(6) + 0.1 * rng.normal(size=6)) for _ in scores.entries]}


PROVENANCE = {
    "rlhf-video": "0.6.0, commit 204e672a",
    "suite": "sprite-held-out v2, 72 prompts, sha256 5f1c…9e",
    "seeds": "0 to 143, bootstrap 0",
    "clips": {"base": {"model": "assets/sprite-wan", "manifest": "sha256 9d01…aa"}, "adapter": {"scale": 1.0}},
    "environments": {"vbench": "lock 3e77b1, python 3.11, torch 2.13.0"},
    "commands": [
        "python evaluation/vbench_run.py generate --config sprite.yaml",
        "python evaluation/vbench_run.py run",
    ],
}


def write_page(
    folder: Path, *, first: str = "", names: tuple[str, str] = ("sprite-wan", "reward-bp"), **options: int
) -> Path:
    base = make_system(folder / "clips", names[0], gain=0.0, first=first, **options)
    adapter = make_system(folder / "clips", names[1], gain=1.0, first=first, **options)
    scores = [base, adapter]
    curves = {base.system: make_curves(base, slope=0.06), adapter.system: make_curves(adapter, slope=0.03)}
    summaries = [summarise(system, num_resamples=500) for system in scores]
    return write_evaluation_report(
        folder / "report", summaries, [compare_systems(base, adapter)], scores, PROVENANCE, curves=curves
    )
