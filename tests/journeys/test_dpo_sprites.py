"""The shipped recipe of Video-DPO does what the README's table says of it on unseen prompts.

The full journey is the README's run; it touches the test prompts and changes nothing by what it sees. The short one
takes 150 of the 200 optimiser steps and measures on the validation prompts.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.validation import Comparison

RIGHT = "judge/all"
RATIOS = {"motion, ratio": "frame_difference/motion", "diversity, ratio": "diversity/pixels"}
"""Column of the README's table -> the score whose mean it compares with the base's."""
PROMISED_GAIN = 0.08
"""Rise of the share of clips with every attribute right, rounded to a point, for every seed of the README's table."""
PROMISED_ACCURACY = 0.65
"""Share of draws of noise for which the model prefers the right clip of a held-out pair."""
ACCURACY_SPREAD, RATIO_SPREAD = 5.0, 0.05
"""Points and shares by which another machine's arithmetic may move a seed's numbers; seeds lie 6 and 0.04 apart."""


def _held_out_accuracy(card: dict[str, Any]) -> float:
    """Return the share of (held-out pair, draw of noise) in the right order when training was over."""
    return float(card["held_out_pairs"]["result/dpo/draw_accuracy"])


@pytest.mark.journey
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_preferences_make_the_videos_of_unseen_prompts_better(
    seed: int, train: Callable[..., dict[str, Any]], readme_row: Callable[..., dict[str, list[float]]], tmp_path: Path
) -> None:
    card = train("train_dpo.py", tmp_path / "run", f"seed={seed}")
    assert card["measured_on"] == "unseen test prompts"
    assert card["num_pairs"] >= 240
    comparison = Comparison.from_json(card["comparison"])
    gain = comparison.change(RIGHT).difference
    assert round(gain.mean, 2) >= PROMISED_GAIN
    assert gain.low > 0
    assert set(card["alarm_names"]) <= {"displacement", "saturated-beta"}, "the recipe stays within its guards"
    assert _held_out_accuracy(card) >= PROMISED_ACCURACY
    row = readme_row("## Video-DPO", seed)
    _, low, high = row["difference in points, 95% interval"]
    assert low <= 100 * gain.mean <= high, "the README states another gain for this seed"
    assert 100 * _held_out_accuracy(card) == pytest.approx(row["held-out pairs"][0], abs=ACCURACY_SPREAD)
    for column, score in RATIOS.items():
        assert comparison.ratio(score) == pytest.approx(row[column][0], abs=RATIO_SPREAD), column


@pytest.mark.journey
@pytest.mark.short
def test_a_cut_recipe_gives_half_of_the_gain(train: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    card = train(
        "train_dpo.py",
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
    assert _held_out_accuracy(card) >= PROMISED_ACCURACY
