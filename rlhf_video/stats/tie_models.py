"""Probabilities of a comparison's three outcomes from a difference of scores: pure NumPy, no fit.

With d = score of A minus score of B and s the logistic function:

- Bradley and Terry 1952: P(A) = s(d), P(B) = s(-d); it knows no tie.
- Rao and Kupper 1967: P(A) = s(d - L), P(B) = s(-d - L), P(tie) = (k^2 - 1) P(A) P(B), with k >= 1 and L = ln k: a
  rater cannot tell differences below L apart. k = 1 is Bradley-Terry.
- Davidson 1970: P(A), P(tie), P(B) in proportion to e^(d/2), v, e^(-d/2): the chance of a tie follows the geometric
  mean of the two strengths. v = 0 is Bradley-Terry.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError

Outcomes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Log-probabilities of (A, tie, B), each of the shape of the differences."""


def bradley_terry(difference: ArrayLike) -> Outcomes:
    """Return the log-probabilities of (A, tie, B); a tie has probability 0.

    Args:
        difference: Score of A minus score of B, any shape.
    """
    d = np.asarray(difference, dtype=np.float64)
    return log_sigmoid(d), np.full_like(d, -math.inf), log_sigmoid(-d)


def rao_kupper(difference: ArrayLike, k: float) -> Outcomes:
    """Return the log-probabilities of (A, tie, B) by Rao and Kupper (1967).

    Args:
        difference: Score of A minus score of B, any shape.
        k: Tie parameter, >= 1; VideoAlign (arXiv:2501.13918) fixes it at 5, where equal clips tie two times of three.

    Raises:
        DataError: k is below 1 or not finite.
    """
    if not (math.isfinite(k) and k >= 1):
        raise DataError(f"Rao-Kupper's k={k} must be 1 or more: 1 means that nobody ever ties.")
    d, threshold = np.asarray(difference, dtype=np.float64), math.log(k)
    log_a, log_b = log_sigmoid(d - threshold), log_sigmoid(-d - threshold)
    log_tie = log_a + log_b + (math.log(k * k - 1) if k > 1 else -math.inf)
    return log_a, log_tie, log_b


def davidson(difference: ArrayLike, v: float) -> Outcomes:
    """Return the log-probabilities of (A, tie, B) by Davidson (1970).

    Args:
        difference: Score of A minus score of B, any shape.
        v: Tie parameter, >= 0; equal clips tie with probability v / (2 + v).

    Raises:
        DataError: v is negative or not finite.
    """
    if not (math.isfinite(v) and v >= 0):
        raise DataError(f"Davidson's v={v} must be 0 or more: 0 means that nobody ever ties.")
    d = np.asarray(difference, dtype=np.float64)
    log_v = np.full_like(d, math.log(v) if v > 0 else -math.inf)
    log_sum = np.logaddexp(np.logaddexp(d / 2, -d / 2), log_v)
    return d / 2 - log_sum, log_v - log_sum, -d / 2 - log_sum


def log_sigmoid(x: ArrayLike) -> NDArray[np.float64]:
    """Return log(1 / (1 + e^-x)) without overflow."""
    return -np.logaddexp(0.0, -np.asarray(x, dtype=np.float64))
