"""Rank statistics with ties: Kendall's tau-b, the area under the ROC curve, Spearman's rho. Pure NumPy.

Each class sorts its observations once and is then called with weights, the multiplicities that a bootstrap draws
(weight 2: the observation stands there twice); `bootstrap_statistic` calls it thousands of times.

A comparison of two clips has no natural first clip. The symmetric forms see each one from both sides, (x, y) and
(-x, -y): without this, the numbers would depend on which clip happens to be called A.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError

Weights = NDArray[np.float64]


class KendallTauB:
    """Kendall's tau-b: (concordant - discordant) / sqrt(pairs not tied in x * pairs not tied in y) (Kendall 1945)."""

    def __init__(self, levels: ArrayLike, values: ArrayLike, *, symmetric: bool = False) -> None:
        """Sort the observations.

        Args:
            levels: First variable, shape (n,). The time is n times its number of distinct values: meant for few.
            values: Second variable, shape (n,).
            symmetric: Whether each observation is also seen negated.

        Raises:
            DataError: The shapes differ, nothing is given, or a number is not finite.
        """
        first, second = _aligned(levels, values)
        self._symmetric = symmetric
        if symmetric:
            first, second = np.concatenate((first, -first)), np.concatenate((second, -second))
        self._levels = [np.flatnonzero(first == level) for level in np.unique(first)]
        self._distinct, self._group = np.unique(second, return_inverse=True)

    def __call__(self, weights: Weights) -> float:
        """Return tau-b in [-1, 1], NaN where a variable is constant.

        Args:
            weights: Shape (n,), >= 0.
        """
        weights = np.concatenate((weights, weights)) if self._symmetric else weights
        lower, difference, untied = np.zeros(len(self._distinct)), 0.0, 0.0
        for members in self._levels:
            here = np.bincount(self._group[members], weights=weights[members], minlength=len(lower))
            upto = np.cumsum(lower)
            # Against all lower levels: what lies below in the second variable, minus what lies above.
            difference += float(here @ ((upto - lower) - (upto[-1] - upto)))
            untied += float(here.sum() * lower.sum())
            lower += here
        untied_second = (float(lower.sum()) ** 2 - float(lower @ lower)) / 2.0
        scale = math.sqrt(untied) * math.sqrt(max(untied_second, 0.0))
        return difference / scale if scale > 0.0 else math.nan


class AreaUnderCurve:
    """Probability that a positive's value exceeds a negative's, ties counted half (Hanley and McNeil 1982)."""

    def __init__(self, is_positive: ArrayLike, values: ArrayLike) -> None:
        """Sort the observations.

        Args:
            is_positive: Bool, shape (n,).
            values: Shape (n,).

        Raises:
            DataError: The shapes differ, nothing is given, or a number is not finite.
        """
        kind, numbers = _aligned(is_positive, values)
        self._positive = kind > 0
        self._distinct, self._group = np.unique(numbers, return_inverse=True)

    def __call__(self, weights: Weights) -> float:
        """Return the area in [0, 1], NaN without both kinds.

        Args:
            weights: Shape (n,), >= 0.
        """
        size = len(self._distinct)
        positive = np.bincount(self._group, weights=np.where(self._positive, weights, 0.0), minlength=size)
        negative = np.bincount(self._group, weights=np.where(self._positive, 0.0, weights), minlength=size)
        pairs = float(positive.sum() * negative.sum())
        return float(positive @ (np.cumsum(negative) - negative / 2.0)) / pairs if pairs > 0.0 else math.nan


class SpearmanRho:
    """Spearman's rank correlation; with weights, of the draw, on the ranks of the whole sample."""

    def __init__(self, first: ArrayLike, second: ArrayLike, *, symmetric: bool = False) -> None:
        """Rank the observations.

        Args:
            first: Shape (n,).
            second: Shape (n,).
            symmetric: Whether both are differences between the clips of a comparison, seen from both sides.

        Raises:
            DataError: The shapes differ, nothing is given, or a number is not finite.
        """
        left, right = _aligned(first, second)
        self._symmetric = symmetric
        self._left, self._right = ((signed_ranks if symmetric else midranks)(side) for side in (left, right))

    def __call__(self, weights: Weights) -> float:
        """Return the correlation in [-1, 1], NaN where a variable is constant.

        Args:
            weights: Shape (n,), >= 0.
        """
        left, right, total = self._left, self._right, float(weights.sum())
        if not self._symmetric:
            left, right = left - weights @ left / total, right - weights @ right / total
        scale = math.sqrt(float(weights @ left**2)) * math.sqrt(float(weights @ right**2))
        # Rounding may leave a constant variable a residue of 1e-12, and a perfect correlation one ulp above 1.
        return max(-1.0, min(1.0, float(weights @ (left * right)) / scale)) if scale > 1e-6 else math.nan


def midranks(values: ArrayLike) -> NDArray[np.float64]:
    """Return ranks from 1 to n, equal values sharing their mean rank, shape (n,)."""
    _, group, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2.0)[group]
    return ranks


def signed_ranks(differences: ArrayLike) -> NDArray[np.float64]:
    """Return centred mid-ranks of differences among themselves and their negatives, shape (n,); odd, and 0 for 0."""
    numbers = np.asarray(differences, dtype=np.float64)
    ranks = midranks(np.concatenate((numbers, -numbers)))[: len(numbers)]
    return ranks - (2 * len(numbers) + 1) / 2.0


def _aligned(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if left.ndim != 1 or left.shape != right.shape or left.size == 0:
        raise DataError(f"Both variables must be of one shape (n,) with n >= 1, got {left.shape} and {right.shape}.")
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise DataError("A rank statistic needs finite numbers: drop comparisons with failed clips first.")
    return left, right
