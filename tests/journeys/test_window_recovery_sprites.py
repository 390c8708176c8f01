"""The shipped recipe of window recovery keeps its promise: windows that ruin the model cost next to nothing after it.

It is the run of docs/attention.md; it touches the test prompts and changes nothing by what it sees.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf_video.validation import Comparison

LOSS_OF_UNTRAINED_WINDOWS = 0.15
"""Least share of right clips that the plan costs before it is trained."""
DISTANCE_TO_DENSE = 0.02
"""Largest share of right clips that it costs afterwards."""
PSNR_GAIN_DB = 3.0
"""Least rise of the PSNR to the dense model's clip of the same seed."""
RIGHT, PSNR = "judge/all", "psnr/to_dense"


@pytest.mark.journey
def test_recovered_windows_are_as_good_as_the_dense_model_on_unseen_prompts(
    train: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    card = train("train_sft.py", tmp_path / "run", "--config", "configs/sft/sprite-recovery.yaml")
    to_dense, recovered = Comparison.from_json(card["comparison"]), Comparison.from_json(card["recovery"])
    assert card["measured_on"] == "unseen test prompts"
    assert card["num_pairs"] >= 240
    untrained = recovered.change(RIGHT).base.mean - to_dense.change(RIGHT).base.mean
    assert untrained <= -LOSS_OF_UNTRAINED_WINDOWS
    assert to_dense.change(RIGHT).difference.mean >= -DISTANCE_TO_DENSE
    assert recovered.change(PSNR).difference.mean >= PSNR_GAIN_DB
    assert recovered.change(PSNR).difference.low > 0
