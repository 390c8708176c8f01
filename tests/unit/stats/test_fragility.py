"""Fragility names votes whose removal does change the leader: exactly the fewest of two systems, a bound of more."""

import itertools
import math

import numpy as np
import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import Comparisons, fewest_votes_to_flip, fit_ranking


def leader_without(table: Comparisons, rows: np.ndarray, prior_sd: float | None) -> str | None:
    keep = np.ones(len(table), dtype=bool)
    keep[rows] = False
    try:
        ranking = fit_ranking(table.rows(keep), prior_sd=prior_sd)
    except DataError:
        return None
    first, second = np.argsort(-ranking.strengths)[:2]
    return ranking.systems[first] if ranking.strengths[first] > ranking.strengths[second] + 1e-9 else None


def random_table(rng: np.random.Generator, *, num: int, systems: int) -> Comparisons:
    first = rng.integers(systems, size=num)
    return Comparisons(
        systems=tuple("abcd"[:systems]),
        first=first,
        second=(first + rng.integers(1, systems, size=num)) % systems,
        outcome=rng.choice([1, 1, 0, -1], size=num).astype(np.int8),
        weight=np.ones(num),
    )


@pytest.mark.parametrize("model", ["bradley_terry", "davidson", "bradley_terry_without_ties"])
def test_two_systems_flip_after_one_more_than_the_lead(model: str) -> None:
    labels = ["A"] * 12 + ["tie"] * 5 + ["B"] * 9
    table = Comparisons.from_labels(["mine"] * 26, ["base"] * 26, labels)
    found = fewest_votes_to_flip(table, model=model)
    assert (found.leader, found.challenger, found.num_votes, found.is_exact) == ("mine", "base", 4, True)
    assert found.share == pytest.approx(4 / 26)
    assert leader_without(table, found.rows, None) == "base"
    assert leader_without(table, found.rows[:-1], None) is None  # level


def test_heaviest_wins_go_first() -> None:
    table = Comparisons.from_labels(["x"] * 5, ["y"] * 5, ["A", "A", "A", "B", "B"], weights=[1, 5, 1, 3, 1])
    found = fewest_votes_to_flip(table)
    np.testing.assert_array_equal(found.rows, [1])
    assert found.challenger == "y"


def test_an_undefeated_leader_never_falls() -> None:
    table = Comparisons.from_labels(["x"] * 3, ["y"] * 3, ["A", "A", "tie"])
    found = fewest_votes_to_flip(table, prior_sd=1.0)
    assert (found.challenger, found.num_votes, found.share, len(found.rows)) == (None, math.inf, math.inf, 0)


def fewest_by_trying_all(table: Comparisons, leader: str, most: int) -> int | None:
    """Return the size of the smallest removal that changes the leader, None above `most`."""
    for size in range(1, most + 1):
        for rows in itertools.combinations(range(len(table)), size):
            if leader_without(table, np.array(rows), 1.0) not in (None, leader):
                return size
    return None


def test_bound_of_three_systems_is_never_below_the_truth_and_mostly_equal_to_it() -> None:
    rng, equal, studied = np.random.default_rng(0), 0, 0
    while studied < 8:
        table = random_table(rng, num=11, systems=3)
        found = fewest_votes_to_flip(table, prior_sd=1.0)
        fewest = fewest_by_trying_all(table, found.leader, 2)
        if fewest is None:
            assert found.num_votes > 2
            continue
        studied += 1
        assert found.num_votes >= fewest
        assert leader_without(table, found.rows, 1.0) == found.challenger != found.leader
        equal += found.num_votes == fewest
    assert equal >= 6


def test_large_board_names_votes_that_change_its_leader() -> None:
    table = random_table(np.random.default_rng(1), num=600, systems=4)
    found = fewest_votes_to_flip(table)
    assert 0 < found.num_votes < 100 and not found.is_exact
    assert leader_without(table, found.rows, None) == found.challenger
    assert leader_without(table, found.rows[:-1], None) in (None, found.leader)


def test_a_removal_without_a_finite_fit_is_no_change() -> None:
    # Every system has one win over each other; without any of them some group only beats, or only loses to, the rest.
    table = Comparisons.from_labels(["a", "b", "c", "a"], ["b", "c", "a", "b"], ["A"] * 4)
    found = fewest_votes_to_flip(table)
    assert (found.leader, found.challenger) == ("a", None)
    with_prior = fewest_votes_to_flip(table, prior_sd=1.0)
    assert leader_without(table, with_prior.rows, 1.0) == with_prior.challenger is not None
