"""A paired permutation test that flips whole clusters (Winkler et al. 2015, NeuroImage 123: exchangeability blocks)."""

import numpy as np
from numpy.typing import ArrayLike

from rlhf_video.errors import DataError
from rlhf_video.stats.clusters import cluster_sums

MAX_EXACT_CLUSTERS = 14  # 16,384 sign patterns


def cluster_permutation_test(
    differences: ArrayLike, clusters: ArrayLike, *, num_permutations: int = 10_000, seed: int = 0
) -> float:
    """Return the two-sided p-value of "base and adapter are exchangeable within every prompt".

    Every pattern of signs is tried with up to 14 clusters, else random ones, with the observed pattern counted
    (Phipson and Smyth 2010), so that p is never 0.

    Args:
        differences: Adapter minus base of each pair, shape (n,).
        clusters: Prompt label of each pair, shape (n,).
        num_permutations: Random sign patterns for more than 14 clusters.
        seed: Seed of the random patterns.

    Returns:
        p-value in (0, 1].

    Raises:
        DataError: The shapes differ, nothing is given, or a value is not finite.
    """
    if num_permutations < 1:
        raise DataError(f"num_permutations={num_permutations} tries nothing: use 1,000 or more.")
    sums, _ = cluster_sums(differences, clusters)
    observed = abs(float(sums.sum()))
    tolerance = 1e-12 * max(1.0, float(np.abs(sums).sum()))  # a sum in another order is the same statistic
    if len(sums) <= MAX_EXACT_CLUSTERS:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        flipped = np.abs((1.0 - 2.0 * patterns) @ sums)
        return float((flipped >= observed - tolerance).mean())
    rng = np.random.default_rng(seed)
    extreme, left = 0, num_permutations
    while left:
        block = min(left, max(1, 4_000_000 // len(sums)))
        signs = rng.integers(0, 2, size=(block, len(sums)), dtype=np.int8) * 2.0 - 1.0
        extreme += int((np.abs(signs @ sums) >= observed - tolerance).sum())
        left -= block
    return (extreme + 1) / (num_permutations + 1)


def smallest_p_value(num_clusters: int, num_permutations: int = 10_000) -> float:
    """Return the least p-value that `cluster_permutation_test` can have, in (0, 1].

    Args:
        num_clusters: Prompts, at least 1.
        num_permutations: As of the test.
    """
    if num_clusters <= MAX_EXACT_CLUSTERS:
        return 2.0 ** (1 - num_clusters)  # the observed signs, and all of them turned round
    return 1.0 / (num_permutations + 1)
