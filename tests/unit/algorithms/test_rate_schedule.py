"""Learning rates: pure functions of the step, and what that means for resuming."""

import pytest

from rlhf_video.algorithms.config_sections import OptimConfig, may_change


def test_a_rate_warms_up_and_falls_along_a_half_cosine() -> None:
    optim = OptimConfig(learning_rate=1.0, warmup=2, decay="cosine")
    assert optim.rate_at(0, 100) == pytest.approx(0.5)
    assert optim.rate_at(50, 100) == pytest.approx(0.5)
    assert optim.rate_at(99, 100) < 0.001
    assert OptimConfig(learning_rate=1.0).rate_at(99, 100) == 1.0


def test_a_falling_rate_fixes_the_length_of_a_resumed_run() -> None:
    fields = ("output_dir", "num_steps")
    assert may_change(fields, OptimConfig(decay="cosine")) == ("output_dir",)
    assert may_change(fields, OptimConfig()) == fields
