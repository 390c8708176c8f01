"""Means of many columns over the same prompts, and sums of them: one resampling of prompts for all.

A total adds up means whose clips partly belong to the same prompts, so its interval needs them drawn together. Each
column may lack most clips: VBench asks each prompt in a few of its dimensions alone.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError
from rlhf_video.stats.bootstrap import MAX_DRAWS, Interval, check_level, percentile_interval


@dataclass(frozen=True, eq=False)
class JointMeans:
    """The mean of each of D columns, in the data and in R resamples of its G clusters."""

    means: NDArray[np.float64]
    """Shape (D,)."""
    draws: NDArray[np.float64]
    """Shape (R, D); NaN where a draw holds no value of the column."""
    contributions: NDArray[np.float64]
    """What each cluster adds to each mean, shape (G, D); a column sums to its mean."""
    shares: NDArray[np.float64]
    """Share of a column's values that each cluster holds, shape (G, D); a column sums to 1."""
    num_items: int
    """Rows that have a value in any column."""
    num_clusters: NDArray[np.int64]
    """Clusters that have a value, of each column, shape (D,)."""

    @classmethod
    def resample(cls, values: ArrayLike, clusters: ArrayLike, *, num_resamples: int, seed: int) -> "JointMeans":
        """Draw clusters whole with replacement, the same for every column.

        Args:
            values: Shape (n, D), NaN where a row has no value of a column.
            clusters: Prompt label of each row, shape (n,).
            num_resamples: R.
            seed: Seed of the draws.

        Raises:
            DataError: The shapes differ, a column has no value, a value is infinite, or there are no draws.
        """
        table, labels = np.asarray(values, dtype=np.float64), np.asarray(clusters)
        if table.ndim != 2 or labels.shape != table.shape[:1]:
            raise DataError(f"Values of shape {table.shape} and clusters of shape {labels.shape} must be (n, D), (n,).")
        present = ~np.isnan(table)
        if np.isinf(table).any() or not present.any(axis=0).all() or not table.shape[1]:
            raise DataError("Every column needs a value, and values must be finite: leave out columns without any.")
        if num_resamples < 1:
            raise DataError(f"num_resamples={num_resamples} draws nothing: use 1,000 or more.")
        used = present.any(axis=1)
        index = np.unique(labels[used], return_inverse=True)[1]
        sums, sizes = np.zeros((2, int(index.max()) + 1, table.shape[1]))
        np.add.at(sums, index, np.where(present, table, 0.0)[used])
        np.add.at(sizes, index, present[used].astype(np.float64))
        totals = sizes.sum(axis=0)
        draws = _draw_means(sums, sizes, num_resamples=num_resamples, rng=np.random.default_rng(seed))
        clusters_of = (sizes > 0).sum(axis=0)
        return cls(sums.sum(axis=0) / totals, draws, sums / totals, sizes / totals, int(used.sum()), clusters_of)

    def interval(self, weights: ArrayLike, *, offset: float = 0.0, level: float = 0.95) -> Interval:
        """Return offset + sum of weights * means, with its percentile interval, widened as that of `bootstrap_mean`.

        The widening is for as many clusters as the column with fewest has, which errs on the wide side. The ends are
        infinite where that is one, or where most draws leave a column empty.

        Args:
            weights: Shape (D,); columns of weight 0 do not count.
            offset: Added to the sum.
            level: Confidence level in (0, 1).

        Raises:
            DataError: The level is not in (0, 1).
        """
        check_level(level)
        weight, used = self._used(weights)
        value = float(self.means[used] @ weight) + offset
        fewest = self.fewest_clusters(weights)
        draws = self.draws[:, used] @ weight + offset
        return percentile_interval(value, draws, num_items=self.num_items, num_clusters=fewest, level=level)

    def standard_error(self, weights: ArrayLike) -> float:
        """Return the clustered standard error of the weighted sum; inf where a column has one cluster."""
        weight, used = self._used(weights)
        if self.fewest_clusters(weights) < 2:
            return math.inf
        residuals = (self.contributions - self.shares * self.means)[:, used] @ weight
        num_clusters = len(residuals)
        return math.sqrt(num_clusters / (num_clusters - 1) * float(residuals @ residuals))

    def fewest_clusters(self, weights: ArrayLike) -> int:
        """Return the number of clusters of the column with fewest, of those with a weight."""
        return int(self.num_clusters[self._used(weights)[1]].min())

    def _used(self, weights: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        array = np.asarray(weights, dtype=np.float64)
        used = array != 0.0
        if array.shape != self.means.shape or not used.any():
            raise DataError(f"Weights {array.tolist()} must be {len(self.means)} numbers, not all 0.")
        return array[used], used


def _draw_means(
    sums: NDArray[np.float64], sizes: NDArray[np.float64], *, num_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the means of each draw, shape (num_resamples, D), drawing in blocks of bounded memory."""
    num_clusters = len(sums)
    block = max(1, MAX_DRAWS // num_clusters)
    means = []
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        chosen = rng.integers(num_clusters, size=(size, num_clusters)) + np.arange(size)[:, None] * num_clusters
        counts = np.bincount(chosen.ravel(), minlength=size * num_clusters).reshape(size, num_clusters).astype(float)
        drawn = counts @ sizes
        means.append(np.divide(counts @ sums, drawn, out=np.full_like(drawn, math.nan), where=drawn > 0))
    return np.concatenate(means)
