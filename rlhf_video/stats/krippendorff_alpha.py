"""How well raters agree beyond chance: Krippendorff's alpha, and plain percent agreement beside it.

Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": alpha = 1 - D_o / D_e, the disagreement within items
over the disagreement of answers drawn from all items. 1 is perfect agreement, 0 what chance gives, negative is worse.
Raters may be missing: an item counts by the pairs of answers it has. Give answers about the same A and B for every
rater of an item, never about the left and right they saw.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats.bootstrap import Interval, bootstrap_statistic

AlphaMetric = Literal["nominal", "ordinal"]
"""Nominal: any two different answers disagree as much. Ordinal: B < tie < A, apart by the answers in between."""


def krippendorff_alpha(
    items: ArrayLike,
    raters: ArrayLike,
    answers: ArrayLike,
    *,
    metric: AlphaMetric = "nominal",
    num_resamples: int = 2_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return alpha with an interval from resampled items.

    Args:
        items: Label of what was judged (a pair of clips), shape (n,).
        raters: Label of who judged it, shape (n,); one answer per rater and item.
        answers: Any sortable values, for votes 1 (A), 0 (tie), -1 (B); ordinal alpha takes them in sorted order, (n,).
        metric: How much two different answers disagree.
        num_resamples: Bootstrap draws of whole items.
        seed: Seed of the draws.
        level: Confidence level in (0, 1).

    Returns:
        Alpha, at most 1, and its interval; `num_items` and `num_clusters` are the items with two answers or more.

    Raises:
        ConfigError: Another metric.
        DataError: The shapes differ, a rater answered an item twice, no item has two answers, all answers are the same
            (chance would agree as well, so alpha is not defined), or the level is not in (0, 1).
    """
    if metric not in ("nominal", "ordinal"):
        raise ConfigError(f"metric={metric!r} is not known. Known: nominal, ordinal.")
    counts = _answer_counts(items, raters, answers)
    if (counts.sum(axis=0) > 0).sum() < 2:
        raise DataError("All answers are the same: alpha cannot tell agreement from chance. See percent_agreement.")
    within = _coincidences(counts)

    def alpha(weights: NDArray[np.float64]) -> float:
        observed = np.tensordot(weights, within, axes=1)
        totals = observed.sum(axis=0)
        distance = _distances(totals, metric)
        expected = totals @ distance @ totals
        if expected <= 0.0:
            return float("nan")
        return float(1.0 - (totals.sum() - 1.0) * (observed * distance).sum() / expected)

    return bootstrap_statistic(alpha, np.arange(len(counts)), num_resamples=num_resamples, seed=seed, level=level)


def percent_agreement(items: ArrayLike, raters: ArrayLike, answers: ArrayLike) -> float:
    """Return the share of pairs of answers to the same item that agree, every answer weighing the same, in [0, 1].

    It is 1 - D_o of nominal alpha. Raters who always say "tie" agree fully: read it beside alpha.

    Args:
        items: Shape (n,).
        raters: Shape (n,).
        answers: Shape (n,).

    Raises:
        DataError: As `krippendorff_alpha`, but equal answers are fine.
    """
    within = _coincidences(_answer_counts(items, raters, answers)).sum(axis=0)
    return float(np.trace(within) / within.sum())


def _answer_counts(items: ArrayLike, raters: ArrayLike, answers: ArrayLike) -> NDArray[np.float64]:
    """Return how often each item got each answer, shape (items with two answers or more, distinct answers)."""
    columns = [np.asarray(column) for column in (items, raters, answers)]
    if any(column.ndim != 1 or column.shape != columns[0].shape for column in columns):
        raise DataError(f"Columns of shapes {[column.shape for column in columns]} must all be (n,).")
    item, rater, answer = (np.unique(column, return_inverse=True)[1] for column in columns)
    if len(np.unique(np.stack((item, rater)), axis=1).T) < len(item):
        raise DataError("A rater answered an item twice: keep one answer per rater and item.")
    counts = np.zeros((int(item.max(initial=-1)) + 1, int(answer.max(initial=-1)) + 1))
    np.add.at(counts, (item, answer), 1.0)
    counts = counts[counts.sum(axis=1) > 1]
    if not len(counts):
        raise DataError("No item was judged by two raters, so there is no agreement to measure.")
    return counts


def _coincidences(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each item's ordered pairs of answers of two raters over its answers minus 1, shape (items, V, V)."""
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(counts.shape[1])
    pairs[:, diagonal, diagonal] -= counts
    coincidences: NDArray[np.float64] = pairs / (counts.sum(axis=1) - 1.0)[:, None, None]
    return coincidences


def _distances(totals: NDArray[np.float64], metric: AlphaMetric) -> NDArray[np.float64]:
    """Return the squared distance of every two answers, shape (V, V)."""
    if metric == "nominal":
        return 1.0 - np.eye(len(totals))
    # The answers between two, counting half of each end: the difference of their mid-ranks.
    midranks = np.cumsum(totals) - totals / 2.0
    squared: NDArray[np.float64] = (midranks[:, None] - midranks[None, :]) ** 2
    return squared
