"""Noisy voters: their shares have the mean of the formula, and draw what their generator says."""

import numpy as np
import pytest

from rlhf_video.preferences.simulated_votes import simulated_votes


@pytest.mark.parametrize(("gap", "sharpness", "flips"), [(0.0, 10.0, 0.1), (0.2, 5.0, 0.0), (-0.3, 4.0, 0.2)])
def test_the_mean_share_is_that_of_bradley_terry_with_flips(gap: float, sharpness: float, flips: float) -> None:
    shares = simulated_votes(np.full(20000, gap), np.random.default_rng(0), voters=3, sharpness=sharpness, flips=flips)
    a_wins = 1 / (1 + np.exp(-sharpness * gap))
    assert shares.mean() == pytest.approx(a_wins * (1 - flips) + (1 - a_wins) * flips, abs=0.006)
    assert set(np.round(shares * 3, 9)) == {0.0, 1.0, 2.0, 3.0}


def test_gaps_without_a_bound_do_not_overflow() -> None:
    with np.errstate(all="raise"):
        shares = simulated_votes([1e6, -1e6], np.random.default_rng(0), voters=4, sharpness=10.0, flips=0.0)
    assert shares.tolist() == [1.0, 0.0]


def test_the_generator_decides_every_vote() -> None:
    first, second, other = (
        simulated_votes(np.zeros(50), np.random.default_rng(seed), voters=9, sharpness=1.0, flips=0.5)
        for seed in (1, 1, 2)
    )
    assert (first == second).all() and (first != other).any()
