"""How far the probabilities of a pairwise scorer can be believed: Brier score, calibration error, temperature."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError
from rlhf_video.stats.tie_models import log_sigmoid

_STEPS = 100  # Newton converges in a handful; the bound only ends a loop that cannot


def win_probability(difference: ArrayLike, slope: float = 1.0) -> NDArray[np.float64]:
    """Return P(A wins) = 1 / (1 + e^(-slope * difference)) for decided pairs.

    Args:
        difference: Score of A minus score of B, any shape.
        slope: What `fit_slope` found; the inverse of a temperature.
    """
    return np.exp(log_sigmoid(slope * np.asarray(difference, dtype=np.float64)))


def brier_score(probability: ArrayLike, outcome: ArrayLike) -> float:
    """Return the mean squared error of probabilities (Brier 1950): 0 is perfect, 0.25 is what 1/2 always scores.

    Args:
        probability: P(A wins), shape (n,).
        outcome: 1 where A won, 0 where B did, shape (n,).

    Raises:
        DataError: The shapes differ or nothing is given.
    """
    p, y = _checked(probability, outcome)
    return float(np.mean((p - y) ** 2))


def calibration_error(probability: ArrayLike, outcome: ArrayLike, *, num_bins: int = 10) -> float:
    """Return the expected calibration error (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599).

    Which clip is called A is arbitrary, so each pair counts by its favourite: confidence max(p, 1 - p) in [0.5, 1]
    against how often the favourite won, over bins of equal width.

    Args:
        probability: P(A wins), shape (n,).
        outcome: 1 where A won, 0 where B did, shape (n,).
        num_bins: Bins over [0.5, 1].

    Raises:
        DataError: The shapes differ or nothing is given.
    """
    p, y = _checked(probability, outcome)
    confidence = np.maximum(p, 1 - p)
    right = np.where(p == 0.5, 0.5, np.where(p > 0.5, y, 1 - y))
    bins = np.minimum(((confidence - 0.5) * 2 * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(p))


def fit_slope(difference: ArrayLike, outcome: ArrayLike, *, ridge: float = 1e-6) -> float:
    """Return the slope a that maximises the likelihood of s(a * difference), by Newton's method.

    Platt's scaling (1999) without an offset, since swapping A and B must swap the probability; 1 / a is the temperature
    of Guo et al. (2017). Where every favourite won no finite slope is best; the ridge then decides.

    Args:
        difference: Score of A minus score of B, shape (n,), not all 0.
        outcome: 1 where A won, 0 where B did, shape (n,).
        ridge: Weight of a^2 / 2 in units of squared spread, per pair.

    Raises:
        DataError: The shapes differ, nothing is given, or every difference is 0.
    """
    d, y = _checked(difference, outcome)
    spread = float(np.sqrt(np.mean(d**2)))
    if not (np.isfinite(spread) and spread > 0):
        raise DataError(
            "No slope fits: every pair of the calibration split has the same score or one that is not finite."
        )
    x, slope = d / spread, 0.0
    for _ in range(_STEPS):
        p = win_probability(x, slope)
        gradient = np.mean((y - p) * x) - ridge * slope
        curvature = np.mean(p * (1 - p) * x**2) + ridge
        # A full step may jump over the maximum where the curve is flat; steps of at most 2 always come home.
        step = float(np.clip(gradient / curvature, -2.0, 2.0))
        slope += step
        if abs(step) < 1e-10:
            break
    return slope / spread


def _checked(values: ArrayLike, outcome: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(values, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.size == 0:
        raise DataError(f"Values of shape {x.shape} and outcomes of shape {y.shape} must both be (n,) with n >= 1.")
    return x, y
