import math

import numpy as np
import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import cluster_permutation_test


def test_few_clusters_are_tested_exactly() -> None:
    # All five clusters point one way: 2 of 32 sign patterns are as extreme.
    assert cluster_permutation_test([1.0] * 10, np.repeat(np.arange(5), 2)) == 2 / 32


def test_many_clusters_with_a_clear_effect_give_the_smallest_p() -> None:
    values = 2.0 + np.random.default_rng(0).normal(size=60)
    assert cluster_permutation_test(values, np.arange(60), num_permutations=999) == 1 / 1000


def test_p_values_are_uniform_when_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(20), 3)
    p_values = [
        cluster_permutation_test(rng.normal(size=20)[clusters], clusters, num_permutations=400) for _ in range(300)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.038)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)


def test_no_difference_at_all_is_never_significant() -> None:
    assert cluster_permutation_test(np.zeros(30), np.arange(30)) == 1.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        cluster_permutation_test([math.inf], [0])
    with pytest.raises(DataError, match="num_permutations"):
        cluster_permutation_test([1.0], [0], num_permutations=0)
