"""Which pair is asked next: where one more vote tells most, and everything a little (stats/active_sampling.py)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from app.voting.pair_table import PairTable, Systems
from rlhf_video.stats import outcome_variances, sampling_probabilities


def pair_probabilities(
    table: PairTable,
    num_votes: NDArray[np.float64],
    eligible: NDArray[np.bool_],
    outcomes: Mapping[Systems, tuple[int, int, int]],
    *,
    floor: float,
) -> NDArray[np.float64]:
    """Return the chance of each pair.

    Args:
        table: Every pair of the study, n of them.
        num_votes: Votes and open leases of each, shape (n,).
        eligible: Whether it may be shown to this rater now, shape (n,); at least one may.
        outcomes: Wins, ties and losses so far of each pair of systems; those that are not in there have none.
        floor: Share of an even draw, in (0, 1].

    Returns:
        Shape (n,), positive where eligible and 0 elsewhere, summing to 1.
    """
    shape, cell = (len(table.systems), len(table.prompts)), (table.system_of, table.prompt_of)
    counts, choices = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, cell, num_votes)
    np.add.at(choices, cell, eligible)
    tallies = np.array([outcomes.get(systems, (0, 0, 0)) for systems in table.systems])
    cells = sampling_probabilities(counts, outcome_variances(*tallies.T), floor=floor, eligible=choices > 0)
    shares: NDArray[np.float64] = np.where(eligible, (cells / np.maximum(choices, 1))[cell], 0.0)
    return shares
