"""What a table of comparisons can tell before any fit: which systems it connects, and whether a maximum exists.

Connection. Systems that are joined by no chain of comparisons have no common scale.

Separation. Draw an arrow from the winner to the loser of every decided comparison, and arrows both ways for a tie.
The Bradley-Terry likelihood has a finite maximum exactly where this graph is strongly connected (Zermelo 1929; Ford
1957): otherwise some set of systems never lost a point to the rest, and the likelihood grows as they move apart.

With a fitted tie parameter this is not enough. A that beats B five times and ties five times never loses a comparison:
under Davidson's and Rao and Kupper's models its strength and the tie parameter grow together without bound, although
half wins would give a finite gap. The likelihood does not fall along a direction exactly where every winner moves away
from its loser at least as fast as the tie parameter grows, and tied systems at most as fast; such a direction is a
solution of difference constraints, and none exists if and only if some cycle of the graph holds more wins than ties.
(This is the absence of separation of Albert and Anderson 1984; the condition of Davidson 1970, strong connection by
decided comparisons alone, is sufficient.)
"""

import numpy as np
from numpy.typing import NDArray

from rlhf_video.errors import DataError
from rlhf_video.stats.comparisons import Comparisons

_NAMED = 12  # systems that a message names of one group


def connected_parts(comparisons: Comparisons) -> tuple[Comparisons, ...]:
    """Split a table into parts whose systems met each other, directly or through others: a ranking each.

    Systems that played nobody (comparisons of weight 0 do not count) are in no part.
    """
    played = comparisons.rows(comparisons.weight > 0)
    wins, ties = played.tally()
    parts = []
    for members in _components(wins, ties):
        if len(members) > 1:
            part = played.rows(np.isin(played.first, members))
            number = np.full(len(played.systems), -1, dtype=np.intp)
            number[members] = np.arange(len(members))
            parts.append(
                Comparisons(
                    systems=tuple(played.systems[index] for index in members),
                    first=number[part.first],
                    second=number[part.second],
                    outcome=part.outcome,
                    weight=part.weight,
                    prompt=part.prompt,
                    rater=part.rater,
                )
            )
    return tuple(parts)


def check_connected(comparisons: Comparisons) -> None:
    """Refuse a table whose systems have no common scale.

    Raises:
        DataError: The systems fall into parts that never met; the message names them.
    """
    parts = _components(*comparisons.tally())
    if len(parts) > 1:
        named = " | ".join(_named(comparisons.systems, part) for part in parts)
        raise DataError(
            f"The comparisons fall into {len(parts)} parts that never met: {named}. No strength compares across parts, "
            "with or without a prior: collect comparisons between them, or rank each part of connected_parts(table)."
        )


def find_separation(comparisons: Comparisons, *, fits_ties: bool) -> str | None:
    """Say why the maximum of the likelihood is infinite, or return None where it is finite.

    Args:
        comparisons: A connected table; a tie counts as a point for both.
        fits_ties: Whether the model has a tie parameter that is fitted too.
    """
    wins, ties = comparisons.tally()
    groups = dominance_groups(wins, ties)
    if len(groups) > 1:
        named = " > ".join(_named(comparisons.systems, group) for group in groups)
        return f"no system of a later group ever took a point from an earlier one ({named})"
    if fits_ties and ties.any() and is_separated_by_ties(wins, ties):
        return "no cycle of comparisons holds more wins than ties, so gaps and the tie parameter grow together"
    return None


def is_finite(wins: NDArray[np.float64], ties: NDArray[np.float64], *, fits_ties: bool) -> bool:
    """Tell whether the likelihood of a tally, both (m, m), has a finite maximum that is unique."""
    if not _reach((wins > 0) | (ties > 0)).all():
        return False
    return not (fits_ties and ties.any() and is_separated_by_ties(wins, ties))


def dominance_groups(wins: NDArray[np.float64], ties: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    """Return the strongly connected groups of a tally, strongest first: one group where Ford's condition holds."""
    reach = _reach((wins > 0) | (ties > 0))
    mutual = reach & reach.T
    leaders = np.unique(mutual.argmax(axis=1))  # the first member stands for its group
    ordered = sorted(leaders, key=lambda leader: (-int(reach[leader].sum()), int(leader)))
    return [np.flatnonzero(mutual[leader]) for leader in ordered]


def is_separated_by_ties(wins: NDArray[np.float64], ties: NDArray[np.float64]) -> bool:
    """Tell whether no cycle holds more wins than ties (Bellman 1958, Ford 1956: no negative cycle).

    Args:
        wins: Weight of wins of row over column, shape (m, m).
        ties: Weight of ties, symmetric, shape (m, m).
    """
    cost = np.where(wins > 0, -1.0, np.where(ties > 0, 1.0, np.inf))
    distance = np.zeros(len(cost))
    for _ in range(len(cost)):
        shorter = np.minimum(distance, (distance[:, None] + cost).min(axis=0))
        if (shorter == distance).all():
            return True
        distance = shorter
    return False


def _components(wins: NDArray[np.float64], ties: NDArray[np.float64]) -> list[NDArray[np.intp]]:
    return dominance_groups(wins + wins.T, ties)


def _reach(arrows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which system reaches which over any number of arrows, itself included (Warshall 1962), shape (m, m)."""
    reach = arrows | np.eye(len(arrows), dtype=bool)
    for middle in range(len(arrows)):
        reach |= reach[:, middle, None] & reach[None, middle, :]
    return reach


def _named(systems: tuple[str, ...], members: NDArray[np.intp]) -> str:
    names = [systems[index] for index in members[:_NAMED]]
    more = f", and {len(members) - _NAMED} more" if len(members) > _NAMED else ""
    return "{" + ", ".join(names) + more + "}"
