"""The sampler goes where votes help most, excludes nothing, and its weights give back what an even draw would find."""

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import (
    Comparisons,
    fit_ranking,
    inverse_propensity_weights,
    outcome_variances,
    sampling_probabilities,
)

PAIRS = np.array([(0, 1), (0, 2), (1, 2)])


def test_probabilities_sum_to_one_and_are_never_below_the_floor() -> None:
    votes = np.random.default_rng(0).integers(0, 30, size=(6, 8))
    chances = sampling_probabilities(votes, outcome_variances(*np.random.default_rng(1).integers(0, 40, (3, 6))))
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    assert chances.min() == pytest.approx(0.2 / 48)


def test_pairs_are_drawn_in_proportion_to_what_a_vote_gains() -> None:
    votes, variances = np.array([[3, 4], [10, 10], [0, 0]]), np.array([0.9, 0.9, 0.4])
    chances = sampling_probabilities(votes, variances, floor=1e-9).sum(axis=1)
    number = votes.sum(axis=1) + 1
    gain = np.sqrt(variances / number) - np.sqrt(variances / (number + 1))
    np.testing.assert_allclose(chances, gain / gain.sum(), rtol=1e-6)
    assert chances[0] > chances[1]


def test_prompts_with_the_fewest_votes_of_the_pair_come_next() -> None:
    chances = sampling_probabilities([[2, 1, 1], [0, 5, 5]], [0.5, 0.5], floor=0.3)
    assert chances[0, 1] == chances[0, 2] > chances[0, 0] == pytest.approx(0.3 / 6)
    assert chances[1, 0] > chances[1, 1] == chances[1, 2] == pytest.approx(0.3 / 6)


def test_what_is_not_eligible_is_never_drawn() -> None:
    eligible = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(sampling_probabilities([[9, 0], [0, 0]], [0.5, 0.5], eligible=eligible), [[1, 0], [0, 0]])


def test_whole_floor_is_an_even_draw() -> None:
    np.testing.assert_allclose(sampling_probabilities([[9, 0], [0, 3]], [0.5, 0.1], floor=1.0), 0.25)


def test_variances_are_those_of_the_smoothed_shares() -> None:
    np.testing.assert_allclose(outcome_variances([0, 97], [0, 0], [0, 0]), [2 / 3, 0.98 + 0.01 - 0.97**2])


def test_weights_of_an_even_draw_are_one_and_bounded_by_the_floor() -> None:
    np.testing.assert_allclose(inverse_propensity_weights([0.25, 0.5], [4, 2]), 1.0)
    chances = sampling_probabilities(np.arange(12).reshape(3, 4), [0.5, 0.5, 0.5], floor=0.2)
    assert inverse_propensity_weights(chances.ravel(), 12).max() == pytest.approx(1 / 0.2)


# Each pair wins by prompt in its own way, so that strengths alone cannot explain the votes: (pair, prompt) -> P(first wins).
WIN = np.array([[0.9, 0.7, 0.5, 0.3], [0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.9, 0.1]])


def fitted_gaps(outcome: np.ndarray, pair: np.ndarray, weight: np.ndarray) -> np.ndarray:
    first, second = PAIRS[pair].T
    table = Comparisons(systems=("a", "b", "c"), first=first, second=second, outcome=outcome, weight=weight)
    return fit_ranking(table).strengths


def test_weighted_fits_of_adaptive_samples_recover_the_truth_of_an_even_draw() -> None:
    """300 studies, whose sampler looks at its votes ten times: the weighted mean is the truth, the plain one is not."""
    rng = np.random.default_rng(0)
    both = np.tile(np.arange(3), 2)
    truth = fitted_gaps(np.repeat(np.array([1, -1], dtype=np.int8), 3), both, np.r_[WIN.mean(1), 1 - WIN.mean(1)])
    plain, weighted = [], []
    for _ in range(300):
        votes, wins = np.zeros((3, 4)), np.zeros(3)
        cells, outcomes, chances = [], [], []
        for _ in range(10):
            chance = sampling_probabilities(votes, outcome_variances(wins, 0 * wins, votes.sum(1) - wins)).ravel()
            drawn = rng.choice(12, size=60, p=chance)
            won = rng.random(60) < WIN.ravel()[drawn]
            votes += np.bincount(drawn, minlength=12).reshape(3, 4)
            wins += np.bincount(drawn[won] // 4, minlength=3)
            cells.append(drawn)
            outcomes.append(np.where(won, 1, -1))
            chances.append(chance[drawn])
        pair, outcome = np.concatenate(cells) // 4, np.concatenate(outcomes).astype(np.int8)
        weight = inverse_propensity_weights(np.concatenate(chances), 12)
        plain.append(fitted_gaps(outcome, pair, np.ones(600)))
        weighted.append(fitted_gaps(outcome, pair, weight))
    error = np.mean(weighted, axis=0) - truth
    noise = np.std(weighted, axis=0) / np.sqrt(300)
    assert (np.abs(error) < 3 * noise + 0.01).all()
    assert np.abs(np.mean(plain, axis=0) - truth).max() > 2 * np.abs(error).max()


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="floor"):
        sampling_probabilities([[1]], [0.5], floor=0.0)
    with pytest.raises(DataError, match="must be \\(P, Q\\)"):
        sampling_probabilities([[1]], [0.5, 0.5])
    with pytest.raises(DataError, match="variances positive"):
        sampling_probabilities([[1]], [0.0])
    with pytest.raises(DataError, match="Nothing is eligible"):
        sampling_probabilities([[1]], [0.5], eligible=[[False]])
    with pytest.raises(DataError, match="probability"):
        inverse_propensity_weights([0.0], 3)
