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
    np.testing.assert_array_equal(
        sampling_probabilities([[9, 0], [0, 0]], [0.5, 0.5], eligible=eligible), [[1, 0], [0, 0]]
    )


def test_whole_floor_is_an_even_draw() -> None:
    np.testing.assert_allclose(sampling_probabilities([[9, 0], [0, 3]], [0.5, 0.1], floor=1.0), 0.25)


def test_variances_are_those_of_the_smoothed_shares() -> None:
    np.testing.assert_allclose(outcome_variances([0, 97], [0, 0], [0, 0]), [2 / 3, 0.98 + 0.01 - 0.97**2])


def test_weights_of_an_even_draw_are_one_and_bounded_by_the_floor() -> None:
    np.testing.assert_allclose(inverse_propensity_weights([0.25, 0.5], [4, 2]), 1.0)
    chances = sampling_probabilities(np.arange(12).reshape(3, 4), [0.5, 0.5, 0.5], floor=0.2)
    assert inverse_propensity_weights(chances.ravel(), 12).max() == pytest.approx(1 / 0.2)


# Prompts suit systems differently, and no strengths explain all pairs: P(first wins) of each pair and prompt.
WIN = np.array([[0.9, 0.7, 0.5, 0.3], [0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.9, 0.1]])
EARLIER = np.array([[90, 10, 10, 10], [5, 5, 5, 5], [5, 5, 5, 60]])
"""Votes of an earlier study, which the sampler evens out and the fit does not see."""


def fitted_strengths(outcome: np.ndarray, pair: np.ndarray, weight: np.ndarray) -> np.ndarray:
    first, second = PAIRS[pair].T
    table = Comparisons(systems=("a", "b", "c"), first=first, second=second, outcome=outcome, weight=weight)
    return fit_ranking(table).strengths


def adaptive_study(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw 400 votes, five times 80 by what is known then; return outcomes, pairs and inverse propensities."""
    votes, wins, rows = EARLIER.astype(float), EARLIER.sum(axis=1) / 2, []
    for _ in range(5):
        chance = sampling_probabilities(votes, outcome_variances(wins, 0 * wins, votes.sum(axis=1) - wins)).ravel()
        drawn = rng.choice(12, size=80, p=chance)
        won = rng.random(80) < WIN.ravel()[drawn]
        votes += np.bincount(drawn, minlength=12).reshape(3, 4)
        wins += np.bincount(drawn[won] // 4, minlength=3)
        rows.append((np.where(won, 1, -1).astype(np.int8), drawn // 4, inverse_propensity_weights(chance[drawn], 12)))
    outcome, pair, weight = (np.concatenate(column) for column in zip(*rows, strict=True))
    return outcome, pair, weight


def test_weighted_fits_of_adaptive_samples_recover_what_an_even_draw_would_find() -> None:
    share = WIN.mean(axis=1)
    truth = fitted_strengths(np.repeat([1, -1], 3).astype(np.int8), np.tile(np.arange(3), 2), np.r_[share, 1 - share])
    rng, plain, weighted = np.random.default_rng(0), [], []
    for _ in range(200):
        outcome, pair, weight = adaptive_study(rng)
        plain.append(fitted_strengths(outcome, pair, np.ones(400)))
        weighted.append(fitted_strengths(outcome, pair, weight))
    error = np.abs(np.mean(weighted, axis=0) - truth)
    assert (error < 3 * np.std(weighted, axis=0) / np.sqrt(200) + 0.01).all()
    assert np.abs(np.mean(plain, axis=0) - truth).max() > 5 * error.max()


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
