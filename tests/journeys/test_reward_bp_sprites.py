"""The shipped recipe of reward backpropagation keeps the README's promise: on unseen prompts the videos get better.

The full journey is the README's run; it touches the test prompts and changes nothing by what it sees. The short one
takes 20 of the 50 optimiser steps and measures on the validation prompts.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.validation import Comparison

PROMISED_GAIN = 0.10
"""Least rise of the share of clips with every attribute right, for every seed of the README's table."""
RIGHT, HELD_OUT = "judge/all", "clip_heldout/preference"
RATIOS = {"motion, ratio": "frame_difference/motion", "diversity, ratio": "diversity/pixels"}
"""Column of the README's table -> the score whose mean it compares with the base's."""
RATIO_SPREAD = 0.05
"""By which another machine's arithmetic may move a seed's ratio; seeds lie 0.04 apart."""


@pytest.mark.journey
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_videos_get_better_on_unseen_prompts(
    seed: int, train: Callable[..., dict[str, Any]], readme_row: Callable[..., dict[str, list[float]]], tmp_path: Path
) -> None:
    card = train("train_reward_bp.py", tmp_path / "run", f"seed={seed}")
    assert card["measured_on"] == "unseen test prompts"
    assert card["num_pairs"] >= 240
    assert card["num_prompts"] >= 60
    assert card["alarms"] == [], "the default recipe stays within its guards"
    comparison = Comparison.from_json(card["comparison"])
    gain = comparison.change(RIGHT).difference
    assert gain.mean >= PROMISED_GAIN
    assert gain.low > 0
    row = readme_row("## Two commands", seed)
    for column, score in (("difference in points, 95% interval", RIGHT), ("held-out reward", HELD_OUT)):
        _, low, high = row[column]
        points = 100 if score == RIGHT else 1
        assert low <= points * comparison.change(score).difference.mean <= high, f"the README states another {column}"
    for column, score in RATIOS.items():
        assert comparison.ratio(score) == pytest.approx(row[column][0], abs=RATIO_SPREAD), column
    assert comparison.change(HELD_OUT).difference.mean > 0


@pytest.mark.journey
@pytest.mark.short
def test_a_cut_recipe_gives_half_of_the_gain(train: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    card = train(
        "train_reward_bp.py",
        tmp_path / "run",
        "num_steps=20",
        "validation.every=20",
        "validation.num_prompts=null",
        "validation.clips_per_prompt=4",
        "sweep.scales=[]",
        "prompts.test=null",
    )
    assert card["measured_on"] == "validation prompts"
    gain = Comparison.from_json(card["comparison"]).change(RIGHT).difference
    assert gain.mean >= PROMISED_GAIN / 2
    assert gain.low > 0
