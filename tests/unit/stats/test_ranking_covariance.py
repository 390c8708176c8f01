"""Intervals of strengths are the sandwich of the definitions, and cover what they claim where votes are clustered."""

import math

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import (
    ClusterBy,
    Comparisons,
    Ranking,
    clustered_covariance,
    difference_interval,
    expected_points_interval,
    fit_ranking,
    model_covariance,
    strength_intervals,
    tie_interval,
)

TRUTH = np.array([-0.6, -0.2, 0.2, 0.6])
NAMES = ("s0", "s1", "s2", "s3")


def votes_of(
    rng: np.random.Generator, *, prompts: int, raters: int, per_prompt: int, prompt_sd: float = 0, rater_sd: float = 0
) -> Comparisons:
    """Draw votes where every prompt suits some systems better, and every rater likes some systems better."""
    num = prompts * per_prompt
    prompt, rater = np.repeat(np.arange(prompts), per_prompt), rng.integers(raters, size=num)
    first = rng.integers(4, size=num)
    second = (first + rng.integers(1, 4, size=num)) % 4
    suits = rng.normal(0, prompt_sd, (prompts, 4))[prompt] + rng.normal(0, rater_sd, (raters, 4))[rater] + TRUTH
    rows = np.arange(num)
    gap = suits[rows, first] - suits[rows, second]
    outcome = np.where(rng.random(num) < 1 / (1 + np.exp(-gap)), 1, -1).astype(np.int8)
    return Comparisons(
        systems=NAMES, first=first, second=second, outcome=outcome, weight=np.ones(num), prompt=prompt, rater=rater
    )


def population_strengths(effect_sd: float) -> np.ndarray:
    """Return what infinitely many prompts and raters would be fitted by: the target of the intervals."""
    nodes, mass = np.polynomial.hermite_e.hermegauss(60)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    gaps = np.array([TRUTH[i] - TRUTH[j] for i, j in pairs])[:, None] + math.sqrt(2) * effect_sd * nodes
    share = (1 / (1 + np.exp(-gaps))) @ (mass / mass.sum())
    a, b = ([NAMES[pair[side]] for pair in pairs] for side in (0, 1))
    return fit_ranking(Comparisons.from_labels(a, b, ["A"] * len(pairs), weights=share)).strengths


def shares_covered(ways: tuple[tuple[ClusterBy, ...], ...], *, seed: int, repeats: int, **world: float) -> list[float]:
    """Return per way how often the 95% interval of s3 minus s0 holds the population's gap."""
    truth = population_strengths(math.hypot(world.get("prompt_sd", 0), world.get("rater_sd", 0)))
    rng, held = np.random.default_rng(seed), np.zeros(len(ways))
    for _ in range(repeats):
        ranking = fit_ranking(votes_of(rng, **world))
        for number, way in enumerate(ways):
            covariance = clustered_covariance(ranking, *way) if way else model_covariance(ranking)
            interval = difference_interval(ranking, covariance, "s3", "s0")
            held[number] += interval.low <= truth[3] - truth[0] <= interval.high
    return list(held / repeats)


def test_intervals_cover_prompt_effects_where_the_naive_ones_fail() -> None:
    naive, by_prompt = shares_covered(
        ((), ("prompt",)), seed=0, repeats=200, prompts=60, raters=30, per_prompt=20, prompt_sd=0.8
    )
    assert naive < 0.87
    assert 0.90 <= by_prompt <= 0.98


def test_two_way_intervals_cover_prompts_and_raters_where_one_way_fails() -> None:
    ways: tuple[tuple[ClusterBy, ...], ...] = ((), ("prompt",), ("rater",), ("prompt", "rater"))
    naive, by_prompt, by_rater, by_both = shares_covered(
        ways, seed=0, repeats=200, prompts=40, raters=30, per_prompt=30, prompt_sd=0.6, rater_sd=0.6
    )
    assert naive < 0.80 and max(by_prompt, by_rater) < 0.92
    assert 0.90 <= by_both <= 0.98


def small_ranking() -> Ranking:
    rng = np.random.default_rng(1)
    return fit_ranking(votes_of(rng, prompts=12, raters=5, per_prompt=20, prompt_sd=0.5, rater_sd=0.5))


def test_two_systems_have_the_sandwich_of_the_textbook() -> None:
    a_won = np.array([1, 1, 1, 0, 1, 0, 1, 1, 0, 1])
    prompt = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    labels = ["A" if won else "B" for won in a_won]
    ranking = fit_ranking(Comparisons.from_labels(["a"] * 10, ["b"] * 10, labels, prompts=prompt))
    share = a_won.mean()
    sums = np.array([(a_won - share)[prompt == number].sum() for number in range(3)])
    variance = 3 / 2 * (sums**2).sum() / (10 * share * (1 - share)) ** 2
    interval = difference_interval(ranking, clustered_covariance(ranking, "prompt"), "a", "b")
    t_with_2_degrees = 4.302652729911275
    assert interval.mean == pytest.approx(math.log(7 / 3))
    assert interval.high - interval.mean == pytest.approx(t_with_2_degrees * math.sqrt(variance))
    assert (interval.num_items, interval.num_clusters) == (10, 3)
    naive = difference_interval(ranking, model_covariance(ranking), "a", "b")
    assert naive.high - naive.mean == pytest.approx(1.959963984540054 / math.sqrt(10 * share * (1 - share)))


def test_two_way_is_prompt_plus_rater_minus_both() -> None:
    ranking = small_ranking()
    table = ranking.comparisons
    assert table.prompt is not None
    joined = Comparisons(
        systems=table.systems,
        first=table.first,
        second=table.second,
        outcome=table.outcome,
        weight=table.weight,
        prompt=np.array([f"{prompt}/{rater}" for prompt, rater in zip(table.prompt, table.rater, strict=True)]),
    )
    both = clustered_covariance(fit_ranking(joined), "prompt")
    prompt, rater = clustered_covariance(ranking, "prompt"), clustered_covariance(ranking, "rater")
    two_way = clustered_covariance(ranking, "prompt", "rater")
    np.testing.assert_allclose(two_way.matrix, prompt.matrix + rater.matrix - both.matrix, atol=1e-12)
    assert (prompt.num_clusters, rater.num_clusters, two_way.num_clusters) == (12, 5, 5)
    # Where prompts are raters, both ways are one.
    same = Comparisons(**{**vars(table), "rater": table.prompt})
    one = clustered_covariance(fit_ranking(same), "prompt", "rater")
    np.testing.assert_allclose(one.matrix, prompt.matrix, atol=1e-12)


def test_votes_copied_within_their_prompt_fool_only_the_model() -> None:
    table = small_ranking().comparisons
    assert table.prompt is not None
    twice = fit_ranking(
        Comparisons(**{name: value if name == "systems" else np.tile(value, 2) for name, value in vars(table).items()})
    )
    once = fit_ranking(table)
    for ways in (("prompt",), ("rater",)):
        np.testing.assert_allclose(
            clustered_covariance(twice, *ways).matrix, clustered_covariance(once, *ways).matrix, atol=1e-12
        )
    np.testing.assert_allclose(model_covariance(twice).matrix, model_covariance(once).matrix / 2, atol=1e-12)


def test_covariances_of_strengths_sum_to_zero_and_are_never_negative() -> None:
    for prompts, raters in ((12, 5), (3, 3)):  # 3 clusters for 3 free strengths: the two-way difference can be negative
        rng = np.random.default_rng(2)
        ranking = fit_ranking(votes_of(rng, prompts=prompts, raters=raters, per_prompt=20, prompt_sd=0.5))
        covariance = clustered_covariance(ranking, "prompt", "rater").matrix
        np.testing.assert_allclose(covariance.sum(axis=0), 0, atol=1e-12)
        assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_strength_intervals_are_those_of_the_difference_to_the_mean() -> None:
    ranking = small_ranking()
    covariance = clustered_covariance(ranking, "prompt")
    intervals = strength_intervals(ranking, covariance, level=0.9)
    assert list(intervals) == list(NAMES)
    for index, interval in enumerate(intervals.values()):
        reach = covariance.critical(0.9) * math.sqrt(covariance.matrix[index, index])
        assert interval.mean == ranking.strengths[index]
        assert (interval.low, interval.high) == pytest.approx((interval.mean - reach, interval.mean + reach))


def with_ties() -> Comparisons:
    rng = np.random.default_rng(3)
    table = votes_of(rng, prompts=20, raters=10, per_prompt=30)
    outcome = np.where(rng.random(len(table)) < 0.3, 0, table.outcome).astype(np.int8)
    return Comparisons(**{**vars(table), "outcome": outcome})


def test_expected_points_of_bradley_terry_are_the_logistic_of_the_gap() -> None:
    ranking = small_ranking()
    covariance = clustered_covariance(ranking, "prompt")
    gap = difference_interval(ranking, covariance, "s2", "s1")
    share = expected_points_interval(ranking, covariance, "s2", "s1")
    for end in ("low", "mean", "high"):
        assert getattr(share, end) == pytest.approx(1 / (1 + math.exp(-getattr(gap, end))))


@pytest.mark.parametrize("model", ["bradley_terry", "davidson", "rao_kupper"])
def test_expected_points_of_both_sides_sum_to_one_and_follow_the_delta_method(model: str) -> None:
    ranking = fit_ranking(with_ties(), model=model)
    covariance = clustered_covariance(ranking, "prompt")
    forward = expected_points_interval(ranking, covariance, "s3", "s0")
    backward = expected_points_interval(ranking, covariance, "s0", "s3")
    assert (forward.low, forward.mean, forward.high) == pytest.approx(
        (1 - backward.high, 1 - backward.mean, 1 - backward.low)
    )
    win, tie, _ = np.exp(ranking.outcome_log_probabilities("s3", "s0"))
    assert forward.mean == pytest.approx(win + tie / 2)

    def logit(free: np.ndarray) -> float:
        moved = Ranking(**{**vars(ranking), "strengths": free[:4], "tie_parameter": None})
        if len(free) > 4:
            moved = Ranking(**{**vars(moved), "tie_parameter": math.exp(free[4])})
        win, tie, loss = np.exp(moved.outcome_log_probabilities("s3", "s0"))
        return math.log((win + tie / 2) / (loss + tie / 2))

    tie_number = [] if ranking.tie_parameter is None else [math.log(ranking.tie_parameter)]
    at, small = np.array([*ranking.strengths, *tie_number]), 1e-6
    gradient = np.array([(logit(at + step) - logit(at - step)) / (2 * small) for step in np.eye(len(at)) * small])
    reach = covariance.critical(0.95) * math.sqrt(gradient @ covariance.matrix @ gradient)
    assert math.log(forward.high / (1 - forward.high)) == pytest.approx(logit(at) + reach, rel=1e-6)


@pytest.mark.parametrize(("model", "bound"), [("davidson", 0.0), ("rao_kupper", 1.0)])
def test_tie_parameter_has_an_interval_inside_its_bounds(model: str, bound: float) -> None:
    ranking = fit_ranking(with_ties(), model=model)
    interval = tie_interval(ranking, clustered_covariance(ranking, "prompt"))
    assert bound < interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(ranking.tie_parameter)
    plain = fit_ranking(with_ties())
    with pytest.raises(DataError, match="no tie parameter"):
        tie_interval(plain, model_covariance(plain))


def test_undefeated_system_is_never_called_certain() -> None:
    # Its scores hardly vary: the plain sandwich says 0.54 for the gap's standard error, the posterior 0.77.
    rng = np.random.default_rng(4)
    a = ["top"] * 10 + ["mid"] * 40
    b = ["mid"] * 10 + ["low"] * 40
    labels = ["A"] * 10 + list(rng.choice(["A", "B"], size=40))
    ranking = fit_ranking(Comparisons.from_labels(a, b, labels, prompts=np.tile(np.arange(10), 5)), prior_sd=1.0)
    assert ranking.separation is not None
    robust, posterior = clustered_covariance(ranking, "prompt"), model_covariance(ranking)
    excess = np.linalg.eigvalsh(robust.matrix - posterior.matrix)
    assert excess.min() > -1e-12
    interval = difference_interval(ranking, robust, "top", "mid")
    assert interval.high - interval.low > 2 * 1.96 * 0.7


def test_prior_alone_has_the_posterior_of_its_own_precision() -> None:
    # With a prior so strong that votes hardly matter, every difference has variance 2 sd^2 whatever the clusters.
    table = small_ranking().comparisons
    ranking = fit_ranking(table, prior_sd=1e-3)
    for covariance in (model_covariance(ranking), clustered_covariance(ranking, "prompt")):
        gradient = np.array([1.0, -1.0, 0.0, 0.0])
        assert covariance.standard_error(gradient) == pytest.approx(math.sqrt(2) * 1e-3, rel=1e-3)


def test_clusters_that_cannot_tell_are_refused() -> None:
    table = small_ranking().comparisons
    bare = fit_ranking(Comparisons(**{**vars(table), "prompt": None, "rater": np.zeros(len(table))}))
    with pytest.raises(DataError, match="no prompt column"):
        clustered_covariance(bare, "prompt")
    with pytest.raises(DataError, match="share one rater"):
        clustered_covariance(bare, "rater")
    with pytest.raises(ConfigError, match="'prompt', 'rater' or both"):
        clustered_covariance(bare)
    with pytest.raises(ConfigError, match="not by 'user'"):
        clustered_covariance(bare, "user")
    with pytest.raises(DataError, match="confidence level"):
        strength_intervals(bare, model_covariance(bare), level=95)
