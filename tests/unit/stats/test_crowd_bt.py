"""CrowdBT finds who is right how often, and the board of the weighted votes is nearer to the truth."""

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import Comparisons, fit_crowd_bt, fit_ranking, reliability_weights

TRUTH = np.array([-1.5, -0.5, 0.5, 1.5])


def votes_of(rng: np.random.Generator, accuracy: np.ndarray, *, per_rater: int, tie_rate: float = 0.2) -> Comparisons:
    num = len(accuracy) * per_rater
    rater = np.repeat(np.arange(len(accuracy)), per_rater)
    first = rng.integers(4, size=num)
    second = (first + rng.integers(1, 4, size=num)) % 4
    seen = np.where(rng.random(num) < 1 / (1 + np.exp(TRUTH[second] - TRUTH[first])), 1, -1)
    said = np.where(rng.random(num) < accuracy[rater], seen, -seen)
    outcome = np.where(rng.random(num) < tie_rate, 0, said).astype(np.int8)
    names = ("s0", "s1", "s2", "s3")
    return Comparisons(systems=names, first=first, second=second, outcome=outcome, weight=np.ones(num), rater=rater)


def test_accuracies_are_recovered_from_agreement_alone() -> None:
    truth = np.repeat([0.95, 0.75, 0.5], 10)
    fits = [
        fit_crowd_bt(votes_of(np.random.default_rng(seed), truth, per_rater=150)).accuracy.reshape(3, 10).mean(axis=1)
        for seed in range(4)
    ]
    np.testing.assert_allclose(np.mean(fits, axis=0), [0.95, 0.75, 0.5], atol=0.08)  # the prior pulls all to 0.8


def test_gold_answers_count_as_votes_of_known_truth() -> None:
    table = votes_of(np.random.default_rng(0), np.full(4, 0.8), per_rater=10)
    gold = fit_crowd_bt(table, gold_right=[1000, 0, 500, 0], gold_total=[1000, 1000, 1000, 0])
    np.testing.assert_allclose(gold.accuracy[:3], [1.0, 0.0, 0.5], atol=0.02)
    assert 0.5 < gold.accuracy[3] < 1


def test_weighted_board_is_nearer_to_the_truth_than_the_plain_one() -> None:
    accuracy = np.array([0.95] * 6 + [0.5] * 10)
    plain, weighted, joint = [], [], []
    for seed in range(8):
        table = votes_of(np.random.default_rng(seed), accuracy, per_rater=60, tie_rate=0.0)
        crowd = fit_crowd_bt(table)
        assert table.rater is not None
        weight = reliability_weights(crowd.accuracy)[table.rater]
        for errors, strengths in (
            (plain, fit_ranking(table).strengths),
            (weighted, fit_ranking(Comparisons(**{**vars(table), "weight": weight})).strengths),
            (joint, crowd.strengths),
        ):
            errors.append(np.abs(strengths - TRUTH).mean())
    assert np.mean(joint) < np.mean(weighted) < 0.6 * np.mean(plain)


def test_raters_of_full_accuracy_leave_the_board_as_it_is() -> None:
    table = votes_of(np.random.default_rng(1), np.ones(3), per_rater=100, tie_rate=0.0)
    crowd = fit_crowd_bt(table, gold_right=[10**9] * 3, gold_total=[10**9] * 3)
    np.testing.assert_allclose(crowd.strengths, fit_ranking(table, prior_sd=1.0).strengths, atol=1e-4)


def test_weights_are_clipped_log_odds() -> None:
    weights = reliability_weights([0.1, 0.5, 0.8, 0.95, 1.0])
    np.testing.assert_allclose(weights, [0, 0, np.log(4) / np.log(19), 1, 1], atol=1e-12)
    with pytest.raises(ConfigError, match="most"):
        reliability_weights([0.5], most=0.5)
    with pytest.raises(DataError, match="between 0 and 1"):
        reliability_weights([1.2])


def test_counts_and_priors_that_do_not_fit_are_refused() -> None:
    table = votes_of(np.random.default_rng(2), np.full(3, 0.8), per_rater=20)
    with pytest.raises(DataError, match="or neither"):
        fit_crowd_bt(table, gold_right=[1, 1, 1])
    with pytest.raises(DataError, match="one count"):
        fit_crowd_bt(table, gold_right=[1], gold_total=[1])
    with pytest.raises(DataError, match="between 0 and gold_total"):
        fit_crowd_bt(table, gold_right=[2, 0, 0], gold_total=[1, 0, 0])
    with pytest.raises(ConfigError, match="prior"):
        fit_crowd_bt(table, prior=(4.0, 1.0))
    with pytest.raises(DataError, match="no rater column"):
        fit_crowd_bt(Comparisons(**{**vars(table), "rater": None}))
