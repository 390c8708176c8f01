"""A board that trusts raters as far as they earned it: CrowdBT's accuracy per rater, and weights from it.

Chen, Bennett, Collins-Thompson and Horvitz 2013 (WSDM, "Pairwise Ranking Aggregation in a Crowdsourced Setting"):
rater k answers as the strengths say with chance e_k, and the other way round with 1 - e_k,

    P(i beats j | rater k) = e_k s(r_i - r_j) + (1 - e_k) s(r_j - r_i),

with a Beta prior on e_k. e_k = 1 votes as Bradley-Terry says (close systems still lose), 1/2 flips coins, 0 is
contrary. Here it is fitted by expectation-maximisation, with answers to gold pairs, where the right one is known, as
further evidence. Ties are left out: they say nothing about a rater, and as half wins they would shrink the gaps that
raters are measured by. Always show the unweighted board beside a weighted one.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError
from rlhf_video.settings import check_range
from rlhf_video.stats.calibration import win_probability
from rlhf_video.stats.comparisons import Comparisons
from rlhf_video.stats.ranking import fit_ranking

_MAX_ROUNDS = 200
_SETTLED = 1e-4  # largest move of an accuracy in a round


@dataclass(frozen=True, eq=False)
class CrowdRanking:
    """Strengths and raters, fitted together."""

    strengths: NDArray[np.float64]
    """Strength of each system in log-odds, of a rater of accuracy 1, summing to zero, shape (m,)."""
    raters: NDArray
    """Labels, sorted, shape (K,)."""
    accuracy: NDArray[np.float64]
    """e_k of each rater, the mode of its posterior, in [0, 1], shape (K,)."""


def fit_crowd_bt(
    comparisons: Comparisons,
    *,
    gold_right: ArrayLike | None = None,
    gold_total: ArrayLike | None = None,
    prior: tuple[float, float] = (9.0, 3.0),
    prior_sd: float = 1.0,
) -> CrowdRanking:
    """Fit strengths and accuracies to the mode of their posterior.

    Args:
        comparisons: Votes with raters; weights count as votes.
        gold_right: Gold pairs that each rater, in sorted order of the labels, answered right, shape (K,).
        gold_total: Gold pairs that each rater answered, shape (K,).
        prior: Shapes a, b of the Beta prior on each accuracy, both above 1; a > b says which side is up, as turning all
            strengths and raters around fits as well. (9, 3) has its mode at 0.8 and weighs ten decided gold pairs.
        prior_sd: Of the strengths, as `fit_ranking`; finite, as raters who are always right would make them infinite.

    Raises:
        ConfigError: A prior out of its range.
        DataError: No rater column, no decided vote, gold counts that do not fit, or systems without a decided vote that
            connects them, as `fit_ranking`.
    """
    check_range("prior", min(prior), above=1.0)
    is_decided = comparisons.outcome != 0
    rater = comparisons.cluster_index("rater")[is_decided]
    labels = np.unique(np.asarray(comparisons.rater))
    right, total = _gold(gold_right, gold_total, len(labels))
    decided = comparisons.rows(is_decided)
    both = _with_flipped(decided)
    votes = np.bincount(rater, weights=decided.weight, minlength=len(labels))
    accuracy = (prior[0] - 1.0 + right) / (sum(prior) - 2.0 + total)
    strengths = fit_ranking(decided, prior_sd=prior_sd).strengths
    for _ in range(_MAX_ROUNDS):
        honest = _honest(decided, strengths, accuracy[rater])
        weight = np.concatenate((honest, 1.0 - honest)) * both.weight
        strengths = fit_ranking(replace(both, weight=weight), prior_sd=prior_sd).strengths
        said = np.bincount(rater, weights=decided.weight * honest, minlength=len(labels))
        updated = (prior[0] - 1.0 + right + said) / (sum(prior) - 2.0 + total + votes)
        moved, accuracy = float(np.abs(updated - accuracy).max()), updated
        if moved < _SETTLED:
            break
    return CrowdRanking(strengths, labels, accuracy)


def reliability_weights(accuracy: ArrayLike, *, most: float = 0.95) -> NDArray[np.float64]:
    """Return a weight in [0, 1] for the votes of raters: log-odds of their accuracy, clipped.

    Independent raters' votes add up by their log-odds (Nitzan and Paroush 1982); coin flippers and contrary raters get
    0, so that nobody is turned around.

    Args:
        accuracy: In [0, 1], any shape.
        most: Accuracy from which a vote counts fully, in (1/2, 1); a rater must not outvote all others.

    Raises:
        ConfigError: `most` is out of its range.
        DataError: An accuracy is not in [0, 1].
    """
    check_range("most", most, above=0.5, below=1.0)
    values = np.asarray(accuracy, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError("Accuracies must lie between 0 and 1.")
    clipped = np.clip(values, 0.5, most)
    weights: NDArray[np.float64] = (np.log(clipped) - np.log1p(-clipped)) / math.log(most / (1.0 - most))
    return weights


def _honest(decided: Comparisons, strengths: NDArray[np.float64], accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the chance that each vote said what its rater saw, shape (n,)."""
    agrees = win_probability(decided.outcome * (strengths[decided.first] - strengths[decided.second]))
    straight = accuracy * agrees
    chance: NDArray[np.float64] = straight / (straight + (1.0 - accuracy) * (1.0 - agrees))
    return chance


def _with_flipped(comparisons: Comparisons) -> Comparisons:
    """Return the table twice, the second time with every outcome turned around."""
    twice = {name: np.tile(getattr(comparisons, name), 2) for name in ("first", "second", "outcome", "weight")}
    twice["outcome"][len(comparisons) :] *= -1
    return Comparisons(systems=comparisons.systems, **twice)


def _gold(
    right: ArrayLike | None, total: ArrayLike | None, num_raters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if right is None and total is None:
        return np.zeros(num_raters), np.zeros(num_raters)
    if right is None or total is None:
        raise DataError("Give both gold_right and gold_total, or neither.")
    counts = np.asarray(right, dtype=np.float64), np.asarray(total, dtype=np.float64)
    if any(column.shape != (num_raters,) for column in counts):
        raise DataError(f"gold_right and gold_total must have one count for each of the {num_raters} raters.")
    if not ((counts[0] >= 0) & (counts[0] <= counts[1])).all():
        raise DataError("Every rater's gold_right must be between 0 and gold_total.")
    return counts
