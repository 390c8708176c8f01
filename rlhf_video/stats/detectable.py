"""How large a difference must be to be found: standard errors of clustered means, and what they can detect."""

import math

import numpy as np
from numpy.typing import ArrayLike

from rlhf_video.errors import DataError
from rlhf_video.stats.bootstrap import check_level, student_quantile
from rlhf_video.stats.clusters import cluster_sums


def clustered_standard_error(values: ArrayLike, clusters: ArrayLike) -> float:
    """Return the standard error of a mean, robust to whatever values of one cluster have in common (Liang, Zeger 1986).

    Args:
        values: Shape (n,).
        clusters: Prompt label of each value, shape (n,).

    Returns:
        The standard error with the factor G / (G - 1) of G clusters; inf for one cluster.

    Raises:
        DataError: The shapes differ, nothing is given, or a value is not finite.
    """
    sums, sizes = cluster_sums(values, clusters)
    num_clusters, num_items = len(sizes), sizes.sum()
    if num_clusters == 1:
        return math.inf
    residuals = (sums - sums.sum() / num_items * sizes) / num_items
    return math.sqrt(num_clusters / (num_clusters - 1) * float(residuals @ residuals))


def minimum_detectable_difference(
    standard_error: float, num_clusters: int, *, power: float = 0.8, level: float = 0.95
) -> float:
    """Return the true difference that a two-sided test finds with this power: (t_level + t_power) standard errors.

    Bloom 1995 (Evaluation Review 19), with Student's t of one degree of freedom less than clusters. It is for one test:
    of m tests corrected by Holm, one finds it for sure at the level 1 - (1 - level) / m.

    Args:
        standard_error: Of the mean difference, >= 0.
        num_clusters: Prompts behind it.
        power: Chance of finding it, in [1/2, 1).
        level: One minus the level of the test.

    Returns:
        In the unit of the standard error; inf below two clusters.

    Raises:
        DataError: The power is not in [1/2, 1), or the level not in (0, 1).
    """
    check_level(level)
    if not 0.5 <= power < 1.0:
        raise DataError(f"power={power} must be from 0.5 to below 1, for example 0.8.")
    if num_clusters < 2:
        return math.inf
    degrees = num_clusters - 1
    factor = student_quantile((1.0 + level) / 2.0, degrees) + student_quantile(power, degrees)
    return float(np.float64(factor) * standard_error)
