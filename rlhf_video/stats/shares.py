"""Intervals of a share over clustered clips, and of a difference of two, also near 0 or 1 or where all clips agree.

Eight clips of eight prompts that all move have no spread, so that any bootstrap calls their share certain: [1, 1].
Wilson's score interval (Wilson 1927) does not; with clusters it is used with the effective number of independent clips
(Korn and Graubard 1998, Survey Methodology 24; compared for few clusters by Franco, Little, Louis and Slud 2019,
Journal of Survey Statistics and Methodology 7).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from rlhf_video.errors import DataError
from rlhf_video.stats.bootstrap import Interval, check_level, student_quantile
from rlhf_video.stats.clusters import cluster_sums
from rlhf_video.stats.detectable import clustered_standard_error


def share_interval(values: ArrayLike, clusters: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean of values in [0, 1] with Wilson's interval, inside [0, 1], for clustered clips.

    The effective number of clips is p (1 - p) over the clustered variance of the mean, at most the number of clips;
    where nothing varies it is the number of clusters, as if the clips of a prompt always agreed. Student's t with one
    degree of freedom less than clusters stands for the normal quantile.

    Args:
        values: Shares, mostly 0 or 1, shape (n,).
        clusters: Prompt label of each value, shape (n,).
        level: Confidence level in (0, 1).

    Returns:
        The interval; [0, 1] where there is one cluster.

    Raises:
        DataError: The shapes differ, nothing is given, a value is outside [0, 1], or the level is not in (0, 1).
    """
    check_level(level)
    sums, sizes = cluster_sums(values, clusters)
    array = np.asarray(values, dtype=np.float64)
    if array.min() < 0.0 or array.max() > 1.0:
        raise DataError(f"Shares from {array.min():g} to {array.max():g} must lie between 0 and 1.")
    num_items, num_clusters = len(array), len(sizes)
    mean = float(sums.sum() / num_items)
    if num_clusters == 1:
        return Interval(mean, 0.0, 1.0, num_items, num_clusters)
    spread = mean * (1.0 - mean)
    variance = clustered_standard_error(array, clusters) ** 2
    # Rounding leaves equal values a variance of 1e-33.
    effective = min(spread / variance, num_items) if variance > 1e-12 * max(spread, 1e-3) else float(num_clusters)
    t2 = student_quantile((1.0 + level) / 2.0, num_clusters - 1) ** 2
    center = (mean + t2 / (2.0 * effective)) / (1.0 + t2 / effective)
    reach = math.sqrt(t2) / (1.0 + t2 / effective) * math.sqrt(spread / effective + t2 / (4.0 * effective**2))
    low, high = max(0.0, center - reach), min(1.0, center + reach)
    return Interval(mean, min(low, mean), max(high, mean), num_items, num_clusters)


def share_difference_interval(differences: ArrayLike, clusters: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean difference of paired clips that are 0 or 1, with an interval that is never a point.

    Bonett and Price 2012 (Journal of Educational and Behavioral Statistics 37) for clusters: one pair that improved and
    one that got worse are added, each a prompt of its own, and Student's t interval taken.

    Args:
        differences: -1, 0 or 1, shape (n,).
        clusters: Prompt label of each pair, shape (n,).
        level: Confidence level in (0, 1).

    Returns:
        The mean of what was given and the interval, inside [-1, 1]; [-1, 1] where there is one cluster.

    Raises:
        DataError: The shapes differ, nothing is given, a difference is another number, or the level is not in (0, 1).
    """
    check_level(level)
    sums, sizes = cluster_sums(differences, clusters)
    array = np.asarray(differences, dtype=np.float64)
    if not np.isin(array, (-1.0, 0.0, 1.0)).all():
        raise DataError("Differences of clips that are 0 or 1 must be -1, 0 or 1.")
    mean, num_items, num_clusters = float(array.mean()), len(array), len(sizes)
    if num_clusters == 1:
        return Interval(mean, -1.0, 1.0, num_items, num_clusters)
    center = float(sums.sum() / (num_items + 2))
    reach = student_quantile((1.0 + level) / 2.0, num_clusters - 1) * share_difference_error(array, clusters)
    low, high = max(-1.0, center - reach), min(1.0, center + reach)
    return Interval(mean, min(low, mean), max(high, mean), num_items, num_clusters)


def share_difference_error(differences: ArrayLike, clusters: ArrayLike) -> float:
    """Return the clustered standard error behind `share_difference_interval`, with its two added pairs.

    Raises:
        DataError: The shapes differ, nothing is given, or a difference is not finite.
    """
    cluster_sums(differences, clusters)
    index = np.unique(np.asarray(clusters), return_inverse=True)[1]
    added = np.concatenate((np.asarray(differences, dtype=np.float64), (1.0, -1.0)))
    return clustered_standard_error(added, np.concatenate((index, (len(index), len(index) + 1))))
