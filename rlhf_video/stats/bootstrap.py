"""Clustered bootstrap intervals for a mean (Cameron, Gelbach and Miller 2008; Hesterberg 2015, arXiv:1411.5279).

Clips of one prompt resemble each other, so whole prompts are resampled, never single clips.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError
from rlhf_video.stats.clusters import cluster_sums

MAX_DRAWS = 4_000_000
"""Clusters drawn at once: 32 MB an array."""


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, in the unit of the scores."""

    mean: float
    low: float
    """Lower end; -inf where one cluster says nothing about the spread between clusters."""
    high: float
    num_items: int
    num_clusters: int

    @property
    def is_above_zero(self) -> bool:
        """Tell whether the whole interval lies above zero."""
        return self.low > 0.0

    @property
    def is_below_zero(self) -> bool:
        """Tell whether the whole interval lies below zero."""
        return self.high < 0.0

    def scaled(self, factor: float) -> "Interval":
        """Return the interval in another unit, for example factor=100 for percentage points (factor >= 0)."""
        return Interval(self.mean * factor, self.low * factor, self.high * factor, self.num_items, self.num_clusters)

    def __str__(self) -> str:
        """Write "+0.120 [+0.050, +0.190]"; what rounds to zero has no minus."""
        return f"{self.mean:+z.3f} [{self.low:+z.3f}, {self.high:+z.3f}]"


def paired_bootstrap(
    differences: ArrayLike, clusters: ArrayLike, *, num_resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the interval of the mean paired difference, clusters resampled whole.

    Args:
        differences: Adapter minus base of each pair (same prompt, same noise), shape (n,).
        clusters: Prompt label of each pair, shape (n,).
        num_resamples: Bootstrap draws.
        seed: Seed of the draws; the same input and seed give the same interval.
        level: Confidence level in (0, 1).

    Raises:
        DataError: The shapes differ, nothing is given, a value is not finite, or the level is not in (0, 1).
    """
    return bootstrap_mean(differences, clusters, num_resamples=num_resamples, seed=seed, level=level)


def bootstrap_mean(
    values: ArrayLike, clusters: ArrayLike, *, num_resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the interval of a mean over clustered values, with Hesterberg's small-sample widening.

    The percentile interval is too narrow with few clusters; its tail probability is replaced by
    Phi(-sqrt(k / (k - 1)) * t_{k - 1}) (Hesterberg 2015, section 5.3), which matches the t interval for normal data.

    Args:
        values: Scores, shape (n,).
        clusters: Prompt label of each score, shape (n,).
        num_resamples: Bootstrap draws.
        seed: Seed of the draws.
        level: Confidence level in (0, 1).

    Raises:
        DataError: As `paired_bootstrap`.
    """
    _check_draws(num_resamples, level)
    sums, sizes = cluster_sums(values, clusters)
    mean = float(sums.sum() / sizes.sum())
    num_items, num_clusters = int(sizes.sum()), len(sizes)
    if num_clusters == 1:
        return Interval(mean, -math.inf, math.inf, num_items, num_clusters)
    means = _resampled_means(sums, sizes, num_resamples=num_resamples, rng=np.random.default_rng(seed))
    return percentile_interval(mean, means, num_items=num_items, num_clusters=num_clusters, level=level)


def bootstrap_statistic(
    statistic: Callable[[NDArray[np.float64]], float],
    clusters: ArrayLike,
    *,
    num_resamples: int = 2_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the interval of any statistic of clustered observations, with the widening of `bootstrap_mean`.

    Args:
        statistic: Weights of the observations, shape (n,), to a number; NaN where a draw does not define it. It is
            called with ones, then with the multiplicity that each draw gives each observation's cluster.
        clusters: Prompt label of each observation, shape (n,).
        num_resamples: Bootstrap draws.
        seed: Seed of the draws.
        level: Confidence level in (0, 1).

    Returns:
        The statistic in `mean`, and the percentile interval of the draws that define it. Infinite ends where there is
        one cluster, or where fewer than half of the draws define it: the data cannot tell.

    Raises:
        DataError: Nothing is given, the level is not in (0, 1), there are no draws, or the statistic is not defined.
    """
    labels = np.asarray(clusters)
    _check_draws(num_resamples, level)
    if labels.ndim != 1 or labels.size == 0:
        raise DataError(f"Clusters of shape {labels.shape} must be (n,) with n >= 1: there is nothing to resample.")
    names, index = np.unique(labels, return_inverse=True)
    whole = float(statistic(np.ones(len(index))))
    if math.isnan(whole):
        raise DataError("The statistic is not defined on this sample, so it has no interval.")
    num_clusters = len(names)
    if num_clusters == 1:
        return Interval(whole, -math.inf, math.inf, len(index), num_clusters)
    rng = np.random.default_rng(seed)
    draws = np.empty(num_resamples)
    for number in range(num_resamples):
        counts = np.bincount(rng.integers(num_clusters, size=num_clusters), minlength=num_clusters)
        draws[number] = statistic(counts[index].astype(np.float64))
    return percentile_interval(whole, draws, num_items=len(index), num_clusters=num_clusters, level=level)


def percentile_interval(
    value: float, draws: NDArray[np.float64], *, num_items: int, num_clusters: int, level: float
) -> Interval:
    """Return the percentile interval of a statistic's draws, with Hesterberg's widening.

    Args:
        value: The statistic on the data.
        draws: On each resample, shape (R,); NaN where it is not defined.
        num_items: Observations.
        num_clusters: Resampled values that the widening is for.
        level: Confidence level in (0, 1).

    Returns:
        The interval; its ends are infinite with fewer than two clusters, or where fewer than half of the draws define
        the statistic.
    """
    defined = draws[~np.isnan(draws)]
    if num_clusters < 2 or 2 * len(defined) < len(draws):
        return Interval(value, -math.inf, math.inf, num_items, num_clusters)
    tail = expanded_tail((1.0 - level) / 2.0, num_clusters)
    low, high = np.quantile(defined, [tail, 1.0 - tail])
    # Rounding in resampled sums may put equal values one ulp beside their mean.
    return Interval(value, min(float(low), value), max(float(high), value), num_items, num_clusters)


def check_level(level: float) -> None:
    """Refuse what is no confidence level.

    Raises:
        DataError: The level is not in (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise DataError(f"level={level} is not a confidence level: use a number between 0 and 1, for example 0.95.")


def _check_draws(num_resamples: int, level: float) -> None:
    check_level(level)
    if num_resamples < 1:
        raise DataError(f"num_resamples={num_resamples} draws nothing: use 1,000 or more.")


def _resampled_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], *, num_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the mean of each bootstrap draw, shape (num_resamples,), drawing in blocks of bounded memory."""
    num_clusters = len(sums)
    block = max(1, MAX_DRAWS // num_clusters)
    means = []
    for start in range(0, num_resamples, block):
        chosen = rng.integers(num_clusters, size=(min(block, num_resamples - start), num_clusters))
        means.append(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1))
    return np.concatenate(means)


def expanded_tail(tail: float, num_clusters: int) -> float:
    """Return the tail probability whose percentile interval is as wide as a t interval (Hesterberg 2015, section 5.3).

    Args:
        tail: Nominal probability of one tail, in (0, 1/2].
        num_clusters: Number of resampled values, >= 2.
    """
    widening = math.sqrt(num_clusters / (num_clusters - 1)) * student_quantile(1.0 - tail, num_clusters - 1)
    return NormalDist().cdf(-widening)


def student_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t: exact for 1 and 2 degrees of freedom, else Abramowitz and Stegun 26.7.5.

    Args:
        probability: In (0, 1); the expansion is good to 0.2% from 3 degrees on for 0.005 to 0.995.
        degrees: Degrees of freedom, >= 1.
    """
    if degrees == 1:
        return math.tan(math.pi * (probability - 0.5))
    if degrees == 2:
        return (2.0 * probability - 1.0) / math.sqrt(2.0 * probability * (1.0 - probability))
    x = NormalDist().inv_cdf(probability)
    terms = (
        x,
        (x**3 + x) / 4.0,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96.0,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384.0,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160.0,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))
