"""Which pair is asked next: where one more vote tells most, and everything a little (stats/active_sampling.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_video.stats import outcome_variances, sampling_probabilities

Systems = frozenset[str]
"""Ids of two systems."""


@dataclass(frozen=True)
class Candidate:
    """A pair of clips of the study."""

    pair_id: str
    prompt_id: str
    systems: Systems
    num_votes: int
    """Votes and open leases."""
    is_eligible: bool
    """Whether it may be shown to this rater now."""


def pair_probabilities(
    candidates: Sequence[Candidate], outcomes: Mapping[Systems, tuple[int, int, int]], *, floor: float
) -> NDArray[np.float64]:
    """Return the chance of each candidate.

    Args:
        candidates: Every pair of the study; at least one is eligible.
        outcomes: Wins, ties and losses so far of each pair of systems; those that are not in there have none.
        floor: Share of an even draw, in (0, 1].

    Returns:
        Shape (n,), positive where eligible and 0 elsewhere, summing to 1.
    """
    systems = sorted({tuple(sorted(candidate.systems)) for candidate in candidates})
    prompts = sorted({candidate.prompt_id for candidate in candidates})
    row_of, column_of = ({name: index for index, name in enumerate(names)} for names in (systems, prompts))
    rows = np.array([row_of[tuple(sorted(candidate.systems))] for candidate in candidates])
    columns = np.array([column_of[candidate.prompt_id] for candidate in candidates])
    eligible = np.array([candidate.is_eligible for candidate in candidates])
    shape = (len(systems), len(prompts))
    counts, choices = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (rows, columns), [candidate.num_votes for candidate in candidates])
    np.add.at(choices, (rows, columns), eligible)
    tallies = np.array([outcomes.get(frozenset(names), (0, 0, 0)) for names in systems])
    cells = sampling_probabilities(counts, outcome_variances(*tallies.T), floor=floor, eligible=choices > 0)
    shares: NDArray[np.float64] = np.where(eligible, (cells / np.maximum(choices, 1))[rows, columns], 0.0)
    return shares
