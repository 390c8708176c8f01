"""The shipped recipe of distillation keeps the teacher's share of right clips in a few causal steps.

The full journey is the README's run, against rendered clips, on unseen prompts. The short one takes 40 of the default
recipe's 200 optimiser steps and measures on the validation prompts.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.sprites.clips import write_clips
from rlhf_video.validation import Comparison

RIGHT = "judge/all"
KEPT = {"4 steps": 0.90, "2 steps, first chunk 4": 0.90, "1 step, first chunk 4": 0.85}
"""Number of steps -> least share of the teacher's right clips that the student keeps; the README has more."""


def shares(card: dict[str, Any], name: str) -> tuple[float, float]:
    """Return the shares of right clips of the teacher and of what the name says."""
    change = Comparison.from_json(card["steps"][name]).change(RIGHT)
    return change.base.mean, change.adapter.mean


@pytest.mark.journey
def test_few_causal_steps_keep_what_the_teacher_gets_right(
    train: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    clips = write_clips(tmp_path / "clips", "train", 400)
    config = "configs/asd/sprite-data.yaml"
    card = train("train_asd.py", tmp_path / "run", "--config", config, f"adversarial.clips={clips}")
    assert card["measured_on"] == "unseen test prompts"
    assert card["num_pairs"] >= 120
    for name, kept in KEPT.items():
        teacher, student = shares(card, name)
        assert student >= kept * teacher, name
    assert set(card["alarm_names"]) == set(), "motion, saturation and diversity stay within their guards"


@pytest.mark.journey
@pytest.mark.short
def test_a_cut_recipe_keeps_half_of_it(train: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    card = train(
        "train_asd.py",
        tmp_path / "run",
        "num_steps=40",
        "validation.every=40",
        "checkpoint.every=40",
        "prompts.test=null",
        "steps.trained=[1, 2]",
    )
    assert card["measured_on"] == "validation prompts"
    teacher, student = shares(card, "2 steps, first chunk 4")
    assert student >= 0.45 * teacher
    cut = Comparison.from_json(card["steps"]["teacher cut to 2 steps"]).change(RIGHT)
    assert cut.adapter.mean < student, "as few steps of the teacher itself do not do it"
    assert cut.difference.high < 0
