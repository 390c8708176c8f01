import math

import numpy as np
import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import (
    JointMeans,
    bootstrap_mean,
    cluster_permutation_test,
    clustered_standard_error,
    minimum_detectable_difference,
)


def _table() -> tuple[np.ndarray, np.ndarray]:
    """Return three columns of 90 clips of 30 prompts; the last is asked of prompts 20 to 29 alone."""
    rng, clusters = np.random.default_rng(0), np.repeat(np.arange(30), 3)
    values = rng.normal(size=(30, 3))[clusters] + 0.5 * rng.normal(size=(90, 3))
    values[clusters < 20, 2] = math.nan
    return values, clusters


def test_sum_of_columns_over_the_same_clips_is_a_mean() -> None:
    values, clusters = _table()
    joint = JointMeans.resample(values, clusters, num_resamples=8000, seed=0)
    together = joint.interval([0.5, 2.0, 0.0], offset=1.0)
    alone = bootstrap_mean(1.0 + values[:, :2] @ [0.5, 2.0], clusters, num_resamples=8000)
    assert together.mean == pytest.approx(alone.mean)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high), abs=0.03)
    error = clustered_standard_error(values[:, :2] @ [0.5, 2.0], clusters)
    assert joint.standard_error([0.5, 2.0, 0.0]) == pytest.approx(error)


def test_column_of_few_prompts_is_as_uncertain_as_alone() -> None:
    values, clusters = _table()
    joint = JointMeans.resample(values, clusters, num_resamples=8000, seed=0)
    interval, asked = joint.interval([0.0, 0.0, 1.0]), clusters >= 20
    alone = bootstrap_mean(values[asked, 2], clusters[asked], num_resamples=8000)
    assert interval.num_clusters == 10
    assert interval.mean == pytest.approx(alone.mean)
    # Here the number of its prompts in a draw varies too.
    assert interval.high - interval.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_prompts_of_several_columns_are_drawn_together() -> None:
    values, clusters = np.random.default_rng(0).normal(size=40), np.arange(40)
    opposite = JointMeans.resample(np.stack((values, -values), axis=1), clusters, num_resamples=500, seed=0)
    assert opposite.interval([1.0, 1.0]).high == pytest.approx(0.0, abs=1e-12)
    assert opposite.standard_error([1.0, 1.0]) == pytest.approx(0.0, abs=1e-12)


def test_contributions_add_up_to_the_means() -> None:
    values, clusters = _table()
    joint = JointMeans.resample(values, clusters, num_resamples=10, seed=0)
    assert joint.contributions.sum(axis=0) == pytest.approx(np.nanmean(values, axis=0))
    one = joint.contributions @ [1.0, 0.0, 0.0]
    assert cluster_permutation_test(one, np.arange(30)) == cluster_permutation_test(values[:, 0], clusters)


def test_column_of_one_prompt_has_no_bounds() -> None:
    joint = JointMeans.resample([[1.0, 1.0], [2.0, math.nan]], [0, 1], num_resamples=100, seed=0)
    assert joint.interval([1.0, 1.0]).low == -math.inf
    assert joint.standard_error([1.0, 1.0]) == math.inf
    assert joint.interval([1.0, 0.0]).num_clusters == 2


@pytest.mark.parametrize("values", [[[math.nan], [math.nan]], [[math.inf], [1.0]], [1.0, 2.0]])
def test_columns_without_finite_values_are_refused(values: list) -> None:
    with pytest.raises(DataError):
        JointMeans.resample(values, [0, 1], num_resamples=10, seed=0)


def test_weights_must_fit() -> None:
    joint = JointMeans.resample([[1.0], [2.0]], [0, 1], num_resamples=10, seed=0)
    with pytest.raises(DataError, match="must be 1 numbers, not all 0"):
        joint.interval([0.0])


def test_independent_clips_have_the_textbook_error() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert clustered_standard_error(values, np.arange(50)) == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert clustered_standard_error([1.0, 2.0], [0, 0]) == math.inf


def test_detectable_difference_is_found_with_80_percent_power() -> None:
    rng, clusters, truth = np.random.default_rng(3), np.repeat(np.arange(24), 3), math.sqrt(1.0 + 1.0 / 3.0)
    effect = minimum_detectable_difference(truth / math.sqrt(24), 24)
    found = 0
    for trial in range(500):
        differences = effect + rng.normal(size=24)[clusters] + rng.normal(size=72)
        found += cluster_permutation_test(differences, clusters, num_permutations=400, seed=trial) < 0.05
    # Three standard errors of 500 trials are 5.4 points.
    assert found / 500 == pytest.approx(0.8, abs=0.054)


def test_detectable_difference_needs_two_prompts_and_a_sensible_power() -> None:
    assert minimum_detectable_difference(0.1, 1) == math.inf
    assert minimum_detectable_difference(0.1, 10_000) == pytest.approx(0.1 * (1.960 + 0.8416), rel=1e-3)
    with pytest.raises(DataError, match=r"power=0\.2"):
        minimum_detectable_difference(0.1, 10, power=0.2)
