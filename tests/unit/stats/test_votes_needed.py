"""Planned numbers of votes are the published ones for one look, and what simulated studies need with many."""

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import deciding_lead, fixed_votes_needed, votes_needed


@pytest.mark.parametrize(("win_rate", "votes"), [(0.52, 4904), (0.55, 783), (0.6, 194), (0.65, 85)])
def test_fixed_numbers_are_the_usual_ones(win_rate: float, votes: int) -> None:
    assert fixed_votes_needed(win_rate) == fixed_votes_needed(1 - win_rate) == votes


def test_fixed_number_has_its_power() -> None:
    votes = fixed_votes_needed(0.6)
    wins = np.random.default_rng(0).binomial(votes, 0.6, size=20_000)
    found = np.abs(wins - votes / 2) > 1.96 * np.sqrt(votes) / 2
    assert found.mean() == pytest.approx(0.8, abs=0.03)  # a binomial is not normal: 0.79


def test_expected_votes_of_the_sequence_are_those_of_simulated_studies() -> None:
    plan = votes_needed(0.65)
    leads = np.cumsum(np.where(np.random.default_rng(1).random((4000, 700)) < 0.65, 1, -1), axis=1)
    stops = np.abs(leads) >= deciding_lead(700)
    stopped_at = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, 700)
    assert plan.expected == pytest.approx(stopped_at.mean(), rel=0.03)
    assert (stopped_at <= plan.with_power).mean() == pytest.approx(0.8, abs=0.02)
    assert plan.fixed == 85 < plan.expected < plan.with_power < 2 * plan.fixed


def test_ties_make_studies_longer_and_the_test_no_different() -> None:
    plain, tied = votes_needed(0.7), votes_needed(0.7, tie_rate=0.3)
    assert (plain.fixed, plain.expected) == (tied.fixed, tied.expected)
    assert plain.with_ties(70) == 70 and tied.with_ties(70) == 100


def test_more_pairs_and_more_power_need_more_votes() -> None:
    plain = votes_needed(0.7)
    pairs, power = votes_needed(0.7, num_pairs=10), votes_needed(0.7, power=0.95)
    assert pairs.fixed > plain.fixed and pairs.expected > plain.expected and pairs.with_power > plain.with_power
    assert power.fixed > plain.fixed and power.expected == plain.expected and power.with_power > plain.with_power
    assert votes_needed(0.3) == plain


def test_plans_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ConfigError, match="equal systems"):
        votes_needed(0.5)
    with pytest.raises(ConfigError, match="too near"):
        votes_needed(0.51)
    with pytest.raises(ConfigError, match="win_rate"):
        votes_needed(1.0)
    with pytest.raises(ConfigError, match="tie_rate"):
        votes_needed(0.6, tie_rate=1.0)
    with pytest.raises(ConfigError, match="power"):
        votes_needed(0.6, power=0.3)
    with pytest.raises(DataError, match="confidence level"):
        votes_needed(0.6, level=95)
