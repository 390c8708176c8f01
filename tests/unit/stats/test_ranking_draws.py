"""Ranks and the chance of being best follow from draws that are as wide as the covariance they stand for."""

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import (
    Comparisons,
    bootstrap_draws,
    clustered_covariance,
    davidson,
    fit_ranking,
    model_covariance,
    normal_draws,
    percentile_intervals,
    rank_systems,
    simultaneous_critical,
    strength_intervals,
)


def votes_of(strengths: list[float], *, prompts: int, per_prompt: int, seed: int, v: float = 0.0) -> Comparisons:
    rng, num_systems, num = np.random.default_rng(seed), len(strengths), prompts * per_prompt
    first = rng.integers(num_systems, size=num)
    second = (first + rng.integers(1, num_systems, size=num)) % num_systems
    win, tie, _ = np.exp(davidson(np.array(strengths)[first] - np.array(strengths)[second], v))
    draw = rng.random(num)
    return Comparisons(
        systems=tuple(f"s{index}" for index in range(num_systems)),
        first=first,
        second=second,
        outcome=np.where(draw < win, 1, np.where(draw < win + tie, 0, -1)).astype(np.int8),
        weight=np.ones(num),
        prompt=np.repeat(np.arange(prompts), per_prompt),
    )


def test_normal_draws_have_the_covariance_they_were_given() -> None:
    ranking = fit_ranking(votes_of([0, 0.5, 1], prompts=60, per_prompt=10, seed=0, v=0.5), model="davidson")
    covariance = model_covariance(ranking)
    drawn = normal_draws(ranking, covariance, num_draws=40_000)
    np.testing.assert_allclose(np.cov(drawn.draws.T), covariance.matrix[:3, :3], atol=0.03 * covariance.matrix.max())
    np.testing.assert_allclose(drawn.draws.mean(axis=0), ranking.strengths, atol=0.002)
    np.testing.assert_allclose(drawn.draws.sum(axis=1), 0, atol=1e-12)
    clustered = clustered_covariance(ranking, "prompt")
    wide = normal_draws(ranking, clustered, num_draws=40_000)
    upper = np.quantile(wide.draws, 0.975, axis=0)
    expected = [interval.high for interval in strength_intervals(ranking, clustered).values()]
    np.testing.assert_allclose(upper - ranking.strengths, np.array(expected) - ranking.strengths, rtol=0.03)


@pytest.mark.parametrize("model", ["bradley_terry", "davidson", "rao_kupper"])
def test_bootstrap_is_as_wide_as_the_sandwich(model: str) -> None:
    ranking = fit_ranking(votes_of([0, 0.4, 0.8], prompts=80, per_prompt=12, seed=1, v=0.6), model=model)
    drawn = bootstrap_draws(ranking, "prompt", num_resamples=400)
    sandwich = clustered_covariance(ranking, "prompt")
    np.testing.assert_allclose(drawn.draws.std(axis=0), np.sqrt(np.diag(sandwich.matrix)[:3]), rtol=0.15)
    assert drawn.num_undefined == 0
    expected = strength_intervals(ranking, sandwich)
    for system, interval in percentile_intervals(drawn).items():
        assert interval.high - interval.low == pytest.approx(expected[system].high - expected[system].low, rel=0.2)
        assert interval.low < interval.mean < interval.high


def test_resamples_without_a_tie_fall_back_to_bradley_terry() -> None:
    table = votes_of([0, 0.3], prompts=30, per_prompt=4, seed=2)
    outcome = table.outcome.copy()
    outcome[0] = 0  # one tie: a third of the resamples misses its prompt
    ranking = fit_ranking(Comparisons(**{**vars(table), "outcome": outcome}), model="rao_kupper")
    drawn = bootstrap_draws(ranking, "prompt", num_resamples=200)
    assert drawn.draws.shape == (200, 2) and np.isfinite(drawn.draws).all()


def test_same_seed_gives_the_same_draws() -> None:
    ranking = fit_ranking(votes_of([0, 0.4, 0.8], prompts=20, per_prompt=12, seed=1))
    covariance = model_covariance(ranking)
    for draw in (
        lambda seed: bootstrap_draws(ranking, "prompt", num_resamples=20, seed=seed).draws,
        lambda seed: normal_draws(ranking, covariance, num_draws=20, seed=seed).draws,
    ):
        np.testing.assert_array_equal(draw(5), draw(5))
        assert not np.array_equal(draw(5), draw(6))


def test_resamples_without_a_maximum_are_refused_and_mended_by_a_prior() -> None:
    # One loss among ten prompts: a third of the resamples misses it, and there s0 is undefeated.
    table = Comparisons.from_labels(["s0"] * 10, ["s1"] * 10, ["A"] * 9 + ["B"], prompts=range(10))
    with pytest.raises(DataError, match=r"of 200 resamples leave some system undefeated.*prior_sd"):
        bootstrap_draws(fit_ranking(table), "prompt", num_resamples=200)
    drawn = bootstrap_draws(fit_ranking(table, prior_sd=1.0), "prompt", num_resamples=200)
    assert drawn.num_undefined == 0 and np.isfinite(drawn.draws).all()


def test_bootstrap_refuses_what_it_cannot_tell() -> None:
    table = votes_of([0, 0.4, 0.8], prompts=20, per_prompt=12, seed=1)
    ranking = fit_ranking(table)
    with pytest.raises(DataError, match="no rater column"):
        bootstrap_draws(ranking, "rater")
    with pytest.raises(ConfigError, match="not by 'user'"):
        bootstrap_draws(ranking, "user")
    with pytest.raises(DataError, match="1 draws"):
        bootstrap_draws(ranking, "prompt", num_resamples=1)
    with pytest.raises(DataError, match="share one prompt"):
        bootstrap_draws(fit_ranking(Comparisons(**{**vars(table), "prompt": np.zeros(len(table))})), "prompt")
    undefeated = Comparisons.from_labels(["a"] * 9, ["b"] * 9, ["A"] * 9, prompts=range(9))
    with pytest.raises(DataError, match=r"cannot tell how sure.*normal_draws"):
        bootstrap_draws(fit_ranking(undefeated, prior_sd=1.0), "prompt")


def test_far_apart_systems_have_sure_ranks() -> None:
    ranking = fit_ranking(votes_of([2.0, 0.0, 1.0], prompts=100, per_prompt=20, seed=3))
    for drawn in (
        normal_draws(ranking, clustered_covariance(ranking, "prompt")),
        bootstrap_draws(ranking, "prompt", num_resamples=200),
    ):
        lines = rank_systems(drawn)
        assert [(line.system, line.rank, line.best_rank, line.worst_rank) for line in lines] == [
            ("s0", 1, 1, 1),
            ("s2", 2, 2, 2),
            ("s1", 3, 3, 3),
        ]
        assert [line.probability_best for line in lines] == [1.0, 0.0, 0.0]


def test_equal_systems_may_have_any_rank_and_share_the_chance_of_being_best() -> None:
    every_pair = [(a, b) for a in "abc" for b in "abc" if a != b] * 10
    table = Comparisons.from_labels(*zip(*every_pair, strict=True), ["A"] * 60)
    lines = rank_systems(normal_draws(fit_ranking(table), model_covariance(fit_ranking(table)), num_draws=20_000))
    assert [(line.best_rank, line.worst_rank) for line in lines] == [(1, 3)] * 3
    assert sum(line.probability_best for line in lines) == pytest.approx(1.0)
    assert all(line.probability_best == pytest.approx(1 / 3, abs=0.02) for line in lines)


def test_rank_intervals_hold_for_all_systems_at_once() -> None:
    truth, held, repeats = [0.0, 0.1, 0.2, 1.0], 0, 150
    true_rank = {f"s{index}": 4 - index for index in range(4)}
    for seed in range(repeats):
        ranking = fit_ranking(votes_of(truth, prompts=40, per_prompt=10, seed=seed))
        drawn = normal_draws(ranking, clustered_covariance(ranking, "prompt"), num_draws=1_000)
        lines = rank_systems(drawn)
        held += all(line.best_rank <= true_rank[line.system] <= line.worst_rank for line in lines)
    assert held / repeats >= 0.93


def test_allowing_for_all_pairs_needs_more_than_for_one() -> None:
    two = fit_ranking(votes_of([0, 0.1], prompts=40, per_prompt=10, seed=5))
    assert simultaneous_critical(normal_draws(two, model_covariance(two), num_draws=40_000)) == pytest.approx(
        1.96, abs=0.03
    )
    five = fit_ranking(votes_of([0.0] * 5, prompts=40, per_prompt=50, seed=5))
    # Tukey's studentised range of 5 means with infinite degrees, 3.858, over the square root of 2.
    assert simultaneous_critical(normal_draws(five, model_covariance(five), num_draws=40_000)) == pytest.approx(
        3.858 / 2**0.5, abs=0.05
    )
