"""Raters whose votes do not fit those of the others, found as early as possible: a test after every vote.

FastChat (fastchat/serve/monitor/elo_analysis.py, outlier_detect; Chatbot Arena, arXiv:2403.04132) multiplies 1 / (2 p)
over a rater's votes, p the share of other votes on the same pair that are at least as extreme, and flags a rater once a
product passes 1 / alpha. Constant 2 fits two outcomes; its ties enter with a p that ignores ties, and honest raters who
often tie are flagged (tests/unit/stats/test_rater_outliers.py). Here 1 / p is divided by its exact mean under what
the others do, over all three outcomes. So each factor has mean 1, the product is a martingale, and by Ville's
inequality it ever passes 1 / alpha for at most a share alpha of the raters who vote like the others.

Evidence is collected for several suspicions at once, and averaged, which keeps its mean at 1: that the rater goes
against the others, and for each system that the rater favours it, or is against it, more than the others.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_video.errors import DataError
from rlhf_video.settings import check_range
from rlhf_video.stats.comparisons import Comparisons


@dataclass(frozen=True)
class RaterSuspicion:
    """What a rater's votes say against the rater."""

    rater: object
    """Label as in the table."""
    evidence: float
    """Largest product so far; at most 1 / alpha for a share 1 - alpha of the raters who vote like the others."""
    is_flagged: bool
    flagged_at: int | None
    """After which of the rater's votes, from 1; None where not flagged."""
    suspicion: str
    """What the evidence points to: "against the others", "for NAME" or "against NAME"."""
    num_votes: int


def find_outliers(comparisons: Comparisons, *, alpha: float = 0.01, min_votes: int = 5) -> list[RaterSuspicion]:
    """Return the evidence against each rater with enough votes, strongest first.

    A flag is a reason to look, or to leave votes out of a board and show both boards, not a proof: raters of another
    taste differ from the others too. With many raters divide alpha by their number.

    Args:
        comparisons: Votes in the order in which they came, with raters; weights are not used.
        alpha: Share of ordinary raters that may ever be flagged, in (0, 1).
        min_votes: Raters with fewer votes are left out.

    Raises:
        ConfigError: alpha is not in (0, 1).
        DataError: No rater column.
    """
    check_range("alpha", alpha, above=0.0, below=1.0)
    raters = comparisons.cluster_index("rater")
    if comparisons.rater is None:
        raise DataError("The comparisons have no rater column.")
    labels = np.unique(comparisons.rater)
    low, high, outcome = _canonical(comparisons)
    pair = np.unique(low * len(comparisons.systems) + high, return_inverse=True)[1]
    totals = np.zeros((int(pair.max()) + 1, 3))
    np.add.at(totals, (pair, outcome + 1), 1.0)
    found = []
    for rater in np.flatnonzero(np.bincount(raters) >= min_votes):
        rows = np.flatnonzero(raters == rater)
        own = np.zeros_like(totals)
        np.add.at(own, (pair[rows], outcome[rows] + 1), 1.0)
        chances = totals - own + 1.0  # one vote of each outcome keeps what the others never did possible
        chances = (chances / chances.sum(axis=1, keepdims=True))[pair[rows]]
        logs, names = _log_factors(chances, outcome[rows], low[rows], high[rows], comparisons.systems)
        running = np.cumsum(logs, axis=0)
        evidence = np.logaddexp.reduce(running, axis=1) - math.log(len(names))
        flagged = np.flatnonzero(evidence >= -math.log(alpha))
        peak = int(np.argmax(evidence))
        found.append(
            RaterSuspicion(
                rater=labels[rater].item(),
                evidence=math.exp(min(float(evidence[peak]), 700.0)),
                is_flagged=len(flagged) > 0,
                flagged_at=int(flagged[0]) + 1 if len(flagged) else None,
                suspicion=names[int(np.argmax(running[peak]))],
                num_votes=len(rows),
            )
        )
    return sorted(found, key=lambda suspicion: -suspicion.evidence)


def _canonical(comparisons: Comparisons) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    swap = comparisons.first > comparisons.second
    low = np.where(swap, comparisons.second, comparisons.first)
    high = np.where(swap, comparisons.first, comparisons.second)
    return low, high, np.where(swap, -comparisons.outcome, comparisons.outcome).astype(np.intp)


def _log_factors(
    chances: NDArray[np.float64],
    outcome: NDArray[np.intp],
    low: NDArray[np.intp],
    high: NDArray[np.intp],
    systems: tuple[str, ...],
) -> tuple[NDArray[np.float64], list[str]]:
    """Return each vote's log factor for each suspicion, shape (n, 1 + 2 S), and the suspicions' names.

    Args:
        chances: Chance of (high wins, tie, low wins) of each vote's pair among the others, shape (n, 3).
        outcome: 1 where the system of the lower index won, 0, or -1, shape (n,).
        low: System of the lower index, shape (n,).
        high: The other, shape (n,).
        systems: Names of the S systems.
    """
    rows = np.arange(len(outcome))
    for_low = _factors(np.cumsum(chances[:, ::-1], axis=1)[:, ::-1], chances)[rows, outcome + 1]  # p: at least so good
    for_high = _factors(np.cumsum(chances, axis=1), chances)[rows, outcome + 1]
    logs = np.zeros((len(outcome), 1 + 2 * len(systems)))
    low_is_favourite = chances[:, 2] >= chances[:, 0]
    logs[:, 0] = np.where(low_is_favourite, for_high, for_low)
    logs[rows, 1 + 2 * low], logs[rows, 2 + 2 * low] = for_low, for_high
    logs[rows, 1 + 2 * high], logs[rows, 2 + 2 * high] = for_high, for_low
    names = ["against the others", *(f"{word} {name}" for name in systems for word in ("for", "against"))]
    return logs, names


def _factors(p_values: NDArray[np.float64], chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(1 / p over its mean under the chances), shape (n, 3)."""
    factors: NDArray[np.float64] = -np.log(p_values) - np.log((chances / p_values).sum(axis=1, keepdims=True))
    return factors
