"""Noisy voters for simulation studies: scores say who is better, voters follow them most of the time."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def simulated_votes(
    gaps: ArrayLike, rng: np.random.Generator, *, voters: int, sharpness: float, flips: float
) -> NDArray[np.float64]:
    """Return the share of voters who prefer A, for each gap of scores.

    Each voter prefers A with probability sigmoid(sharpness * gap) (Bradley and Terry 1952, as in arXiv:1706.03741), and
    then presses the wrong button with probability `flips` (section 2.2.3 there assumes that 10% of the answers are
    random, which is 0.05 here).

    Args:
        gaps: Score of A minus that of B, shape (n,).
        rng: Decides every vote; draws 2 * voters * n numbers.
        voters: Voters of each pair, >= 1.
        sharpness: How surely a vote follows the gap, >= 0, in votes' logits per unit of score.
        flips: Share of votes that are simply wrong, in [0, 1].

    Returns:
        Shares in {0, 1/voters, ..., 1}, shape (n,).
    """
    gaps = np.asarray(gaps, dtype=np.float64)
    seen = (voters, len(gaps))
    # As the tanh form of the sigmoid: exp overflows for gaps of rewards without a bound.
    a_wins = rng.random(seen) < 0.5 * (1 + np.tanh(0.5 * sharpness * gaps))
    return np.mean(a_wins ^ (rng.random(seen) < flips), axis=0)
