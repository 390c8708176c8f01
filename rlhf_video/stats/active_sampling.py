"""Which pair of systems and which prompt to show next, with the probability that makes the fit fair again.

Pairs of systems: where one more vote shrinks the standard error most, sqrt(var / n) - sqrt(var / (n + 1)) (Chatbot
Arena, Chiang et al. 2024, arXiv:2403.04132). Prompts: those of the pair with the fewest votes, so that prompts stay
balanced whatever the pairs do. And with a chance of `floor` any pair and prompt, so that nothing is ever excluded.

Votes that were drawn unevenly count by the inverse of their probability (`inverse_propensity_weights`): the weighted
fit has the target of a uniform draw, also where the model is wrong, as where prompts suit some systems better.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import DataError
from rlhf_video.settings import check_range


def outcome_variances(wins: ArrayLike, ties: ArrayLike, losses: ArrayLike) -> NDArray[np.float64]:
    """Return the variance of a vote, 1 / 0 / -1, of each pair of systems, with one vote of each outcome added.

    Args:
        wins: Shape (P,).
        ties: Shape (P,).
        losses: Shape (P,).

    Returns:
        Shape (P,), above 0; 2/3 for a pair without votes.
    """
    counts = np.stack([np.asarray(column, dtype=np.float64) for column in (wins, ties, losses)]) + 1.0
    win, _, loss = counts / counts.sum(axis=0)
    return win + loss - (win - loss) ** 2


def sampling_probabilities(
    num_votes: ArrayLike, variances: ArrayLike, *, floor: float = 0.2, eligible: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Return the chance of showing each pair of systems with each prompt next.

    Args:
        num_votes: Votes so far, and open assignments, of each pair and prompt, shape (P, Q).
        variances: Variance of a vote of each pair, > 0, shape (P,); `outcome_variances`.
        floor: Chance of an even draw among all that are eligible, in (0, 1]. 1 / floor bounds the weights.
        eligible: Whether a pair and prompt may be shown (clips exist, the rater has not seen them), shape (P, Q).

    Returns:
        Shape (P, Q), summing to 1, positive where eligible and 0 elsewhere.

    Raises:
        ConfigError: The floor is not in (0, 1].
        DataError: Shapes that do not fit, a negative count, a variance that is not positive, or nothing eligible.
    """
    check_range("floor", floor, above=0.0, below=math.nextafter(1.0, 2.0))
    counts, variance = np.asarray(num_votes, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    if counts.ndim != 2 or variance.shape != counts.shape[:1]:
        raise DataError(f"Votes of shape {counts.shape} and variances of shape {variance.shape} must be (P, Q), (P,).")
    if not ((counts >= 0).all() and (variance > 0).all() and np.isfinite(variance).all()):
        raise DataError("Counts of votes must be 0 or more, and variances positive: see outcome_variances.")
    allowed = np.ones(counts.shape, dtype=bool) if eligible is None else np.asarray(eligible, dtype=bool)
    if allowed.shape != counts.shape or not allowed.any():
        raise DataError("Nothing is eligible: no pair of clips is left to show, or `eligible` has another shape.")
    votes = (
        counts.sum(axis=1) + 1.0
    )  # one vote is taken for granted, as in the variances: the first would gain infinitely
    gain = np.sqrt(variance / votes) - np.sqrt(variance / (votes + 1.0))
    gain = np.where(allowed.any(axis=1), gain, 0.0)
    open_counts = np.where(allowed, counts, math.inf)
    fewest = allowed & (open_counts == open_counts.min(axis=1, keepdims=True))
    greedy = (gain / gain.sum())[:, None] * fewest / np.maximum(fewest.sum(axis=1, keepdims=True), 1)
    probabilities: NDArray[np.float64] = (1.0 - floor) * greedy + floor * allowed / allowed.sum()
    return probabilities


def inverse_propensity_weights(probabilities: ArrayLike, num_choices: ArrayLike) -> NDArray[np.float64]:
    """Return the weight of each vote that makes an uneven draw even: 1 / (probability x number of choices).

    Horvitz and Thompson 1952. The mean weight is 1 on average; no weight exceeds 1 / floor. Votes whose weights vary
    carry less than their number: their effective number is sum(w)^2 / sum(w^2).

    Args:
        probabilities: The chance with which each assignment was drawn, as stored then, in (0, 1], shape (n,).
        num_choices: How many were eligible in that draw, shape (n,) or a number.

    Raises:
        DataError: A probability that is not in (0, 1], or fewer than one choice.
    """
    chance, choices = np.asarray(probabilities, dtype=np.float64), np.asarray(num_choices, dtype=np.float64)
    if not ((chance > 0) & (chance <= 1)).all() or not (choices >= 1).all():
        raise DataError("Every vote needs the probability of its assignment, above 0 and at most 1, and its choices.")
    weights: NDArray[np.float64] = 1.0 / (chance * choices)
    return weights
