import math

import numpy as np
import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import AreaUnderCurve, Interval, bootstrap_mean, bootstrap_statistic, paired_bootstrap
from rlhf_video.stats.bootstrap import student_quantile


def _coverage(num_clusters: int, *, know_clusters: bool, num_trials: int = 200) -> float:
    """Return how often a nominal 95% interval holds the true mean 0 of correlated clips."""
    rng = np.random.default_rng(num_clusters)
    clusters = np.repeat(np.arange(num_clusters), 4)
    hits = 0
    for trial in range(num_trials):
        values = rng.normal(size=num_clusters)[clusters] + 0.5 * rng.normal(size=clusters.size)
        labels = clusters if know_clusters else np.arange(clusters.size)
        interval = paired_bootstrap(values, labels, num_resamples=800, seed=trial)
        hits += interval.low <= 0.0 <= interval.high
    return hits / num_trials


@pytest.mark.parametrize("num_clusters", [6, 16, 60])
def test_interval_covers_the_truth_in_95_percent_of_simulated_runs(num_clusters: int) -> None:
    # Three standard errors of 200 trials are 4.6 points.
    assert _coverage(num_clusters, know_clusters=True) == pytest.approx(0.95, abs=0.046)


def test_ignoring_the_clusters_would_claim_far_too_much() -> None:
    assert _coverage(16, know_clusters=False) < 0.85


def test_same_input_and_seed_give_the_same_interval() -> None:
    values, clusters = np.random.default_rng(0).normal(size=24), np.repeat(np.arange(8), 3)
    assert paired_bootstrap(values, clusters, seed=3) == paired_bootstrap(values, clusters, seed=3)
    assert paired_bootstrap(values, clusters, seed=3) != paired_bootstrap(values, clusters, seed=4)


def test_interval_is_wider_at_a_higher_level() -> None:
    values, clusters = np.random.default_rng(0).normal(size=60), np.repeat(np.arange(20), 3)
    narrow, wide = (paired_bootstrap(values, clusters, level=level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_few_clusters_are_as_uncertain_as_students_t_says() -> None:
    values = np.random.default_rng(1).normal(size=10)
    interval = bootstrap_mean(values, np.arange(10), num_resamples=40_000)
    half_width = 2.262 * values.std(ddof=1) / math.sqrt(10)
    assert (interval.high - interval.low) / 2 == pytest.approx(half_width, rel=0.1)


def test_one_cluster_says_nothing_about_the_spread() -> None:
    interval = paired_bootstrap([1.0, 2.0], [0, 0])
    assert interval == Interval(1.5, -math.inf, math.inf, 2, 1)
    assert not interval.is_above_zero


def test_constant_differences_have_a_point_interval() -> None:
    interval = paired_bootstrap(np.full(12, 0.1), np.repeat(np.arange(4), 3))
    assert interval.low == pytest.approx(0.1)
    assert interval.high == pytest.approx(0.1)
    assert interval.is_above_zero
    assert not interval.is_below_zero


def test_clusters_of_unequal_size_weigh_every_clip_alike() -> None:
    assert paired_bootstrap([0.0, 0.0, 0.0, 4.0], ["a", "a", "a", "b"]).mean == 1.0


def test_scaled_interval_is_in_the_other_unit() -> None:
    assert Interval(0.1, 0.0, 0.2, 9, 3).scaled(100.0) == Interval(10.0, 0.0, 20.0, 9, 3)
    assert str(Interval(0.1, 0.0, 0.2, 9, 3)) == "+0.100 [+0.000, +0.200]"
    assert str(Interval(-1e-17, -0.1, 0.1, 9, 3)) == "+0.000 [-0.100, +0.100]"


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], [], "no score"),
        ([1.0, math.nan], [0, 1], "1 of 2 scores are not finite"),
        ([1.0, 2.0], [0], "must both be"),
        ([[1.0]], [[0]], "must both be"),
    ],
)
def test_scores_that_cannot_be_averaged_are_refused(values: list[float], clusters: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        paired_bootstrap(values, clusters)


def test_level_and_resamples_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match=r"for example 0\.95"):
        paired_bootstrap([1.0, 2.0], [0, 1], level=95)
    with pytest.raises(DataError, match="num_resamples"):
        paired_bootstrap([1.0, 2.0], [0, 1], num_resamples=0)


@pytest.mark.parametrize(
    ("degrees", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (29, 2.045), (59, 2.001)]
)
def test_student_quantile_matches_the_table(degrees: int, expected: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(expected, rel=2e-3)


def test_any_statistic_of_a_mean_has_the_interval_of_the_mean() -> None:
    values, clusters = np.random.default_rng(2).normal(size=60), np.repeat(np.arange(20), 3)
    mean = bootstrap_mean(values, clusters, num_resamples=4000)
    general = bootstrap_statistic(lambda weights: float(weights @ values / weights.sum()), clusters, num_resamples=4000)
    assert general.mean == pytest.approx(mean.mean)
    assert (general.low, general.high) == pytest.approx((mean.low, mean.high), abs=0.03)
    assert (general.num_items, general.num_clusters) == (60, 20)


def test_interval_of_a_rank_statistic_covers_the_truth_in_95_percent_of_simulated_runs() -> None:
    # P(decided |margin| > tied |margin|) for normals one standard deviation apart is Phi(1 / sqrt 2).
    truth, hits, clusters = 0.760250, 0, np.repeat(np.arange(30), 4)
    rng = np.random.default_rng(5)
    for trial in range(150):
        kind = rng.random(clusters.size) < 0.5
        shared = 0.5 * rng.normal(size=30)[clusters]
        values = shared + math.sqrt(0.75) * rng.normal(size=clusters.size) + kind
        interval = bootstrap_statistic(AreaUnderCurve(kind, values), clusters, num_resamples=300, seed=trial)
        hits += interval.low <= truth <= interval.high
    # Three standard errors of 150 trials are 5.3 points.
    assert hits / 150 == pytest.approx(0.95, abs=0.053)


def test_statistic_that_most_draws_do_not_define_has_no_bounds() -> None:
    # Both kinds are there only when all three prompts are drawn, in 6 of 27 draws.
    interval = bootstrap_statistic(lambda weights: 1.0 if (weights > 0).all() else math.nan, [0, 1, 2])
    assert (interval.mean, interval.low, interval.high) == (1.0, -math.inf, math.inf)


def test_statistic_of_one_prompt_has_no_bounds() -> None:
    assert bootstrap_statistic(lambda weights: float(weights.sum()), [7, 7]) == Interval(2.0, -math.inf, math.inf, 2, 1)


def test_statistic_without_a_value_or_without_observations_is_refused() -> None:
    with pytest.raises(DataError, match="not defined on this sample"):
        bootstrap_statistic(lambda weights: math.nan, [0, 1])
    with pytest.raises(DataError, match="nothing to resample"):
        bootstrap_statistic(lambda weights: 1.0, [])
    with pytest.raises(DataError, match="draws nothing"):
        bootstrap_statistic(lambda weights: 1.0, [0, 1], num_resamples=0)
