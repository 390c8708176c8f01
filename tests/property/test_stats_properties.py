import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_video.stats import cluster_permutation_test, paired_bootstrap

scores = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 6))
pairs = st.lists(st.tuples(scores, st.integers(0, 9)), min_size=1, max_size=40)


@given(pairs=pairs)
@settings(max_examples=25)
def test_interval_holds_its_mean_and_counts_what_it_saw(pairs: list[tuple[float, int]]) -> None:
    values, clusters = zip(*pairs, strict=True)
    interval = paired_bootstrap(values, clusters, num_resamples=100)
    assert interval.low <= interval.mean <= interval.high
    assert np.isclose(interval.mean, np.mean(values), atol=1e-9)
    assert (interval.num_items, interval.num_clusters) == (len(values), len(set(clusters)))


@given(pairs=pairs, seed=st.integers(0, 5))
@settings(max_examples=25)
def test_order_of_the_pairs_does_not_matter(pairs: list[tuple[float, int]], seed: int) -> None:
    shuffled = [pairs[index] for index in np.random.default_rng(seed).permutation(len(pairs))]
    results = []
    for order in (pairs, shuffled):
        values, clusters = zip(*order, strict=True)
        interval = paired_bootstrap(values, clusters, num_resamples=100)
        results.append((interval.mean, interval.low, interval.high))
    np.testing.assert_allclose(results[0], results[1], atol=1e-8)


@given(pairs=pairs, shift=st.floats(-10, 10), factor=st.floats(0.1, 10))
@settings(max_examples=25)
def test_interval_moves_and_stretches_with_the_scores(
    pairs: list[tuple[float, int]], shift: float, factor: float
) -> None:
    values, clusters = (np.array(column) for column in zip(*pairs, strict=True))
    plain = paired_bootstrap(values, clusters, num_resamples=100)
    moved = paired_bootstrap(values * factor + shift, clusters, num_resamples=100)
    np.testing.assert_allclose(
        [moved.low, moved.mean, moved.high], np.array([plain.low, plain.mean, plain.high]) * factor + shift, atol=1e-6
    )


@given(pairs=pairs)
@settings(max_examples=25)
def test_permutation_test_does_not_depend_on_the_sign_of_the_difference(pairs: list[tuple[float, int]]) -> None:
    values, clusters = (np.array(column) for column in zip(*pairs, strict=True))
    forward = cluster_permutation_test(values, clusters, num_permutations=200)
    assert 0.0 < forward <= 1.0
    assert forward == cluster_permutation_test(-values, clusters, num_permutations=200)
