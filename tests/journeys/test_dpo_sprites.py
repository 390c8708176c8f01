"""The shipped recipe of Video-DPO does what the README's table says of it on unseen prompts.

The full journey is the README's run; it touches the test prompts and changes nothing by what it sees. The short one
takes 150 of the 200 optimiser steps and measures on the validation prompts.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.runtime import read_metrics
from rlhf_video.validation import Comparison

RIGHT = "judge/all"
PROMISED_GAIN = 0.08
"""Rise of the share of clips with every attribute right, rounded to a point, for every seed of the README's table."""
PROMISED_ACCURACY = 0.65
"""Share of draws of noise for which the model prefers the right clip of a held-out pair."""


def _train(folder: Path, *overrides: str) -> dict[str, Any]:
    """Run the entry script as a user does; return the run's card."""
    command = [sys.executable, "rlhf_video/train_dpo.py", f"output_dir={folder}", *overrides]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"})
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


def _interval_in_readme(seed: int) -> tuple[float, float]:
    """Return the interval that the README's table of Video-DPO states for a training seed's gain, in points."""
    section = Path("README.md").read_text().split("## Video-DPO", 1)[1]
    row = re.search(rf"^\| {seed} \| \S+% \| \S+% \| \S+ \[(\S+), (\S+)\] \|", section, re.M)
    assert row is not None
    return float(row[1]), float(row[2])


def _held_out_accuracy(folder: Path) -> float:
    """Return the share of (held-out pair, draw of noise) in the right order at the last validation."""
    shares = [m["validation/dpo/draw_accuracy"] for m in read_metrics(folder) if "validation/dpo/draw_accuracy" in m]
    return float(shares[-1])


@pytest.mark.journey
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_preferences_make_the_videos_of_unseen_prompts_better(seed: int, tmp_path: Path) -> None:
    card = _train(tmp_path / "run", f"seed={seed}")
    assert card["measured_on"] == "unseen test prompts"
    assert card["num_pairs"] >= 240
    comparison = Comparison.from_json(card["comparison"])
    gain = comparison.change(RIGHT).difference
    assert round(gain.mean, 2) >= PROMISED_GAIN
    assert gain.low > 0
    low, high = _interval_in_readme(seed)
    assert low <= 100 * gain.mean <= high, "the README states another gain for this seed"
    assert set(card["alarm_names"]) <= {"displacement", "saturated-beta"}, "the recipe stays within its guards"
    assert _held_out_accuracy(tmp_path / "run") >= PROMISED_ACCURACY


@pytest.mark.journey
@pytest.mark.short
def test_a_cut_recipe_gives_half_of_the_gain(tmp_path: Path) -> None:
    card = _train(
        tmp_path / "run",
        "num_steps=150",
        "validation.every=150",
        "checkpoint.every=150",
        "validation.num_prompts=48",
        "validation.clips_per_prompt=2",
        "prompts.test=null",
    )
    assert card["measured_on"] == "validation prompts"
    gain = Comparison.from_json(card["comparison"]).change(RIGHT).difference
    assert gain.mean >= PROMISED_GAIN / 2
    assert gain.low > 0
    assert _held_out_accuracy(tmp_path / "run") >= PROMISED_ACCURACY
