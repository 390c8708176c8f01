"""Which pair is asked next: where one more vote tells most, and everything a little."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidate:
    """A pair that could be shown."""

    pair_id: str
    prompt_id: str
    systems: frozenset[str]
    """Ids of the two systems."""


def pair_probabilities(
    candidates: Sequence[Candidate], num_votes: dict[frozenset[str], int], *, uniform_share: float
) -> NDArray[np.float64]:
    """Return the probability of each candidate.

    A share is uniform over candidates. The rest goes to a pair of systems in proportion to what one more vote takes
    from the standard error of its win rate, sqrt(p(1-p)) (1/sqrt(n) - 1/sqrt(n+1)) (Chatbot Arena, arXiv:2403.04132, p
    taken as 1/2), and then uniformly to its prompts.

    Args:
        candidates: At least one.
        num_votes: Votes so far for each pair of systems; 0 where it is not in there.
        uniform_share: In (0, 1].

    Returns:
        Shape (n,), positive, summing to 1.
    """
    groups: dict[frozenset[str], list[int]] = {}
    for index, candidate in enumerate(candidates):
        groups.setdefault(candidate.systems, []).append(index)
    counts = np.array([num_votes.get(systems, 0) for systems in groups], dtype=np.float64) + 1.0
    gains = 0.5 * (counts**-0.5 - (counts + 1.0) ** -0.5)
    greedy = np.zeros(len(candidates))
    for gain, members in zip(gains / gains.sum(), groups.values(), strict=True):
        greedy[members] = gain / len(members)
    return uniform_share / len(candidates) + (1.0 - uniform_share) * greedy
