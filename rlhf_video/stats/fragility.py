"""How few votes carry the first place: the fewest whose removal puts another system ahead.

An interval asks what other voters would have said; this asks how much hangs on single votes, honest or not. 0.003% of
the votes decided who led a public board (Huang, Shen, Wei and Broderick 2025, arXiv:2508.11847). As there, votes are
ordered by their influence on the gap of two systems; unlike a linear extrapolation, every answer here is a set of votes
whose removal was fitted and does change the leader.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_video.errors import DataError
from rlhf_video.stats.comparisons import Comparisons
from rlhf_video.stats.ranking import Ranking, RankingModel, fit_ranking


@dataclass(frozen=True, eq=False)
class Fragility:
    """The fewest votes found whose removal changes the leader."""

    leader: str
    challenger: str | None
    """Who leads without these votes; None where no removal was found."""
    rows: NDArray[np.intp]
    """Which votes, most influential first, shape (k,); look at them."""
    share: float
    """k over all votes with a weight; inf where no removal was found."""
    is_exact: bool
    """Whether fewer votes surely do not suffice; else k is an upper bound."""

    @property
    def num_votes(self) -> float:
        """Return k; inf where no removal was found."""
        return len(self.rows) if self.challenger is not None else math.inf


def fewest_votes_to_flip(
    comparisons: Comparisons,
    *,
    model: RankingModel = "bradley_terry",
    prior_sd: float | None = None,
    num_challengers: int = 5,
) -> Fragility:
    """Return the fewest votes whose removal puts another system strictly ahead of the leader.

    Two systems: exact, as only the leader's wins matter, heaviest first. More: for each of the nearest challengers
    votes are removed in order of their influence on the gap, and the shortest prefix that changes the leader is found
    by bisection over fits; an upper bound, with about 12 fits per challenger.

    Args:
        comparisons: The table behind the board, with its weights.
        model: As `fit_ranking`.
        prior_sd: As `fit_ranking`. Without a prior, removals that leave no finite fit are not counted as a change.
        num_challengers: How many systems behind the leader are tried.

    Raises:
        ConfigError: As `fit_ranking`.
        DataError: As `fit_ranking`.
    """
    whole = fit_ranking(comparisons, model=model, prior_sd=prior_sd)
    order = np.argsort(-whole.strengths, kind="stable")
    leader = int(order[0])
    total = int((comparisons.weight > 0).sum())
    if len(comparisons.systems) == 2:
        rows = _of_two(comparisons, leader)
        found = None if rows is None else (rows, int(order[1]))
    else:
        found = None
        for challenger in order[1 : num_challengers + 1]:
            found = _shortest_prefix(comparisons, whole, leader, int(challenger), found)
    names = comparisons.systems
    exact = len(names) == 2
    if found is None:
        return Fragility(names[leader], None, np.zeros(0, dtype=np.intp), math.inf, exact)
    return Fragility(names[leader], names[found[1]], found[0], len(found[0]) / total, exact or len(found[0]) == 1)


def _of_two(comparisons: Comparisons, leader: int) -> NDArray[np.intp] | None:
    """Return the leader's heaviest wins, just enough that the other has more; None where the other never won."""
    for_leader = np.where(comparisons.first == leader, comparisons.outcome, -comparisons.outcome)
    wins = np.flatnonzero((for_leader == 1) & (comparisons.weight > 0))
    lost = float(comparisons.weight[for_leader == -1].sum())
    wins = wins[np.argsort(-comparisons.weight[wins], kind="stable")]
    # What is left of the leader's wins after removing 0, 1, 2, ... of them; the last is exactly 0.
    left = np.append(np.cumsum(comparisons.weight[wins][::-1])[::-1], 0.0)
    enough = left < lost
    return wins[: int(np.argmax(enough))] if enough.any() else None


def _shortest_prefix(
    comparisons: Comparisons,
    whole: Ranking,
    leader: int,
    challenger: int,
    best: tuple[NDArray[np.intp], int] | None,
) -> tuple[NDArray[np.intp], int] | None:
    """Return the shorter of `best` and the shortest prefix, by influence on one gap, that changes the lead."""
    influence = _influence(comparisons, whole, leader, challenger)
    ordered = np.argsort(-influence, kind="stable")
    ordered = ordered[influence[ordered] > 0]
    most = len(ordered) if best is None else len(best[0]) - 1
    gap = float(whole.strengths[leader] - whole.strengths[challenger])
    # The linear guess is usually a little short; from there up until the leader changes, then back by bisection.
    guess = int(np.searchsorted(np.cumsum(influence[ordered]), gap)) + 1
    below, above = 0, max(1, min(guess, most))
    while above > 1 and _leader_without(comparisons, whole, ordered[:above]) is None:
        above //= 2  # so many votes went that no finite fit is left
    while (winner := _leader_without(comparisons, whole, ordered[:above])) in (None, leader):
        if winner is None or above >= most:
            return best
        below, above = above, min(most, above + max(1, above // 4))
    while above - below > 1:
        middle = (below + above) // 2
        other = _leader_without(comparisons, whole, ordered[:middle])
        if other in (None, leader):
            below = middle
        else:
            above, winner = middle, other
    return (ordered[:above], winner) if above <= most and winner is not None else best


def _influence(comparisons: Comparisons, whole: Ranking, leader: int, challenger: int) -> NDArray[np.float64]:
    """Return by how much each vote raises the gap, to first order, shape (n,); 0 for votes outside the fit."""
    likelihood, cells, table = whole.cells.likelihood, whole.cells, whole.comparisons
    hessian = likelihood.derivatives(whole.free, cells.weights(table.weight)).hessian
    jacobian = likelihood.jacobian()
    direction = np.linalg.solve(-hessian, jacobian[leader] - jacobian[challenger])
    influence = np.zeros(len(comparisons))
    fitted = comparisons.weight > 0
    if whole.model == "bradley_terry_without_ties":
        fitted &= comparisons.outcome != 0
    influence[fitted] = (likelihood.scores(whole.free) @ direction)[cells.index] * table.weight
    return influence


def _leader_without(comparisons: Comparisons, whole: Ranking, rows: NDArray[np.intp]) -> int | None:
    """Return who leads once rows are removed, the old leader where the first place is shared, None for no fit."""
    keep = np.ones(len(comparisons), dtype=bool)
    keep[rows] = False
    old = int(np.argmax(whole.strengths))
    try:
        strengths = fit_ranking(comparisons.rows(keep), model=whole.model, prior_sd=whole.prior_sd).strengths
    except DataError:
        return None
    new = int(np.argmax(strengths))
    return new if strengths[new] > strengths[old] + 1e-9 else old
