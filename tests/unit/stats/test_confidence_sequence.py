"""A confidence sequence may be looked at after every vote; an interval for one look calls equal systems different."""

import itertools
import math

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import deciding_lead, log_wealth, prompt_values, sequence_interval

THRESHOLD = math.log(2 / 0.05)


def share_ever_excluded(values: np.ndarray, mean: float) -> float:
    """Return in how many studies, rows of values, the 95% sequence ever excludes a mean."""
    return float((log_wealth(values, mean).max(axis=-1) >= THRESHOLD).any(axis=0).mean())


def test_peeking_at_wald_intervals_stops_falsely_and_at_the_sequence_does_not() -> None:
    rng = np.random.default_rng(0)
    votes = rng.choice([-1, 0, 1], size=(2000, 1000), p=[0.35, 0.3, 0.35])  # equal systems, 30% ties
    lead = np.abs(np.cumsum(votes, axis=1))
    decided = np.cumsum(votes != 0, axis=1)
    wald = lead > 1.96 * np.sqrt(decided)
    assert wald[:, 19:].any(axis=1).mean() > 0.35  # from the 20th vote on; nominal 5%
    needed = np.concatenate(([math.inf], deciding_lead(1000)))[decided]
    assert (lead >= needed).any(axis=1).mean() <= 0.05


@pytest.mark.parametrize("mean", [0.5, -0.2])
def test_sequence_holds_the_true_mean_at_all_counts_at_once(mean: float) -> None:
    rng = np.random.default_rng(1)
    win = (0.7 + mean) / 2
    votes = rng.choice([-1.0, 0.0, 1.0], size=(1000, 400), p=[0.7 - win, 0.3, win])
    assert share_ever_excluded(votes, mean) <= 0.05


def clustered_votes(rng: np.random.Generator, *, prompts: int, per_prompt: int) -> np.ndarray:
    """Draw 1000 studies of equal systems, of which each prompt suits one better: (1000, votes per prompt, prompts)."""
    win = 1 / (1 + np.exp(-rng.normal(0, 1.0, (1000, 1, prompts))))
    return np.where(rng.random((1000, per_prompt, prompts)) < win, 1.0, -1.0)


def test_prompts_as_values_stay_valid_where_votes_of_shared_prompts_do_not() -> None:
    votes = clustered_votes(np.random.default_rng(2), prompts=20, per_prompt=30)
    lead = np.abs(np.cumsum(votes.reshape(1000, -1), axis=1))  # one round over all prompts after the other
    assert (lead >= deciding_lead(600)).any(axis=1).mean() > 0.2
    assert share_ever_excluded(votes.mean(axis=1), 0.0) <= 0.05


def test_wealth_is_exactly_one_on_average() -> None:
    win, mean = 0.7, 2 * 0.7 - 1
    paths = np.array(list(itertools.product([1.0, -1.0], repeat=8)))
    chance = np.prod(np.where(paths > 0, win, 1 - win), axis=1)
    expected = np.tensordot(np.exp(log_wealth(paths, mean)), chance, axes=([1], [0]))
    np.testing.assert_allclose(expected, 1.0, rtol=1e-12)


def test_interval_ends_where_the_wealth_reaches_its_threshold() -> None:
    votes = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], size=200, p=[0.2, 0.3, 0.5])
    interval = sequence_interval(votes)
    assert -1 < interval.low < interval.mean < interval.high < 1
    assert interval.mean == votes.mean() and interval.num_items == 200
    for end, side in ((interval.low, 0), (interval.high, 1)):
        outside, inside = (end - 1e-6, end + 1e-6) if side == 0 else (end + 1e-6, end - 1e-6)
        assert log_wealth(votes, outside)[side].max() >= THRESHOLD > log_wealth(votes, inside)[side].max()
    mirrored = sequence_interval(-votes)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))
    wider = sequence_interval(votes, level=0.99)
    assert wider.low < interval.low and interval.high < wider.high


def test_deciding_lead_is_where_the_interval_excludes_equality() -> None:
    needed = deciding_lead(60)
    for count in (1, 7, 20, 60):
        for losses in range(count // 2 + 1):
            path = np.array([-1.0] * losses + [1.0] * (count - losses))  # losses first: the lead is largest at the end
            assert sequence_interval(path).is_above_zero == (count - 2 * losses >= needed[count - 1])
    assert np.isinf(needed[:5]).all() and needed[59] < 30


def test_ties_move_nothing() -> None:
    votes = np.array([1.0] * 12 + [-1.0] * 2)
    np.testing.assert_allclose(log_wealth(np.insert(votes, 5, [0.0] * 4), 0.0)[:, -1], log_wealth(votes, 0.0)[:, -1])


def test_a_prompt_counts_once_when_its_votes_are_complete() -> None:
    prompts = ["x", "y", "x", "z", "y", "x", "y", "x"]
    outcomes = [1, -1, 0, 1, -1, 1, 1, -1]
    np.testing.assert_array_equal(prompt_values(outcomes, prompts, votes_per_prompt=2), [0.5, -1.0])
    np.testing.assert_array_equal(prompt_values(outcomes, prompts, votes_per_prompt=1), [1, -1, 1])
    np.testing.assert_allclose(prompt_values(outcomes, prompts, votes_per_prompt=3), [2 / 3, -1 / 3])
    assert prompt_values(outcomes, prompts, votes_per_prompt=5).shape == (0,)
    assert prompt_values([], [], votes_per_prompt=1).shape == (0,)


def test_values_and_levels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="no value"):
        sequence_interval([])
    for value in (1.5, math.nan):
        with pytest.raises(DataError, match="between -1"):
            sequence_interval([0.0, value])
    with pytest.raises(DataError, match="confidence level"):
        sequence_interval([1.0], level=95)
    with pytest.raises(DataError, match="must be \\(n,\\)"):
        sequence_interval([[1.0]])
    with pytest.raises(DataError, match="mean=1"):
        log_wealth([1.0], 1.0)
    with pytest.raises(ConfigError, match="votes_per_prompt"):
        prompt_values([1], ["x"], votes_per_prompt=0)
    with pytest.raises(DataError, match="must both"):
        prompt_values([1], ["x", "y"], votes_per_prompt=1)
    with pytest.raises(DataError, match="num_votes"):
        deciding_lead(0)
