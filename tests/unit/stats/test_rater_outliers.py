"""Raters who vote like the others are seldom flagged, however often one looks; raters with a plan soon are."""

import numpy as np
import pytest

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats import Comparisons, find_outliers

TRUTH = np.array([-0.9, -0.3, 0.3, 0.9])


def board(rng: np.random.Generator, *, raters: int, per_rater: int, tie_rate: float) -> Comparisons:
    num = raters * per_rater
    first = rng.integers(4, size=num)
    second = (first + rng.integers(1, 4, size=num)) % 4
    win = 1 / (1 + np.exp(TRUTH[second] - TRUTH[first]))
    outcome = np.where(rng.random(num) < tie_rate, 0, np.where(rng.random(num) < win, 1, -1)).astype(np.int8)
    rater = rng.permutation(np.repeat(np.arange(raters), per_rater))
    names = ("s0", "s1", "s2", "s3")
    return Comparisons(systems=names, first=first, second=second, outcome=outcome, weight=np.ones(num), rater=rater)


def share_flagged_by_fastchat(table: Comparisons, *, alpha: float) -> float:
    """Return how many raters 1 / (2 p) flags, p among the decided votes of the pair, as FastChat computes it."""
    low, high = np.minimum(table.first, table.second), np.maximum(table.first, table.second)
    vote = np.where(table.first == low, table.outcome, -table.outcome)
    wins, losses = np.zeros((2, 4, 4))
    np.add.at(wins, (low, high), vote == 1)
    np.add.at(losses, (low, high), vote == -1)
    share = wins[low, high] / (wins + losses)[low, high]
    assert table.rater is not None
    flagged = 0
    for rater in np.unique(table.rater):
        rows = table.rater == rater
        p_upper = np.where(vote[rows] == 1, 1.0, 1 - share[rows])
        p_lower = np.where(vote[rows] == -1, 1.0, share[rows])
        products = np.cumprod(0.5 / np.stack((p_upper, p_lower)), axis=1)
        flagged += (products > 1 / alpha).any()
    return flagged / len(np.unique(table.rater))


def test_false_alarms_stay_below_alpha_where_ties_mislead_the_original() -> None:
    rng, alpha = np.random.default_rng(0), 0.05
    tables = [board(rng, raters=60, per_rater=60, tie_rate=0.5) for _ in range(10)]
    flags = [suspicion.is_flagged for table in tables for suspicion in find_outliers(table, alpha=alpha)]
    assert len(flags) == 600
    assert np.mean(flags) <= alpha
    assert np.mean([share_flagged_by_fastchat(table, alpha=alpha) for table in tables]) > 2 * alpha


def with_plan(table: Comparisons, plan: str) -> Comparisons:
    """Return the votes with the first five raters voting by a plan."""
    outcome = table.outcome.copy()
    rogue = np.asarray(table.rater) < 5
    if plan == "for s0":
        outcome[rogue & (table.first == 0)], outcome[rogue & (table.second == 0)] = 1, -1
    elif plan == "against s3":
        outcome[rogue & (table.first == 3)], outcome[rogue & (table.second == 3)] = -1, 1
    else:
        outcome[rogue] = -outcome[rogue]
    return Comparisons(**{**vars(table), "outcome": outcome})


@pytest.mark.parametrize("plan", ["for s0", "against s3", "against the others"])
def test_raters_with_a_plan_are_flagged_and_the_plan_is_named(plan: str) -> None:
    table = with_plan(board(np.random.default_rng(1), raters=50, per_rater=80, tie_rate=0.1), plan)
    found = find_outliers(table, alpha=0.01)
    worst = found[:5]
    assert {suspicion.rater for suspicion in worst} == set(range(5))
    assert all(suspicion.is_flagged and suspicion.evidence >= 100 for suspicion in worst)
    assert sum(suspicion.suspicion == plan for suspicion in worst) >= 4
    assert all(suspicion.flagged_at is not None and suspicion.flagged_at < 80 for suspicion in worst)


def test_side_and_order_of_systems_do_not_matter() -> None:
    table = board(np.random.default_rng(2), raters=10, per_rater=30, tie_rate=0.2)
    swapped = Comparisons(
        **{**vars(table), "first": table.second, "second": table.first, "outcome": (-table.outcome).astype(np.int8)}
    )
    assert find_outliers(swapped) == find_outliers(table)


def test_raters_with_few_votes_are_left_out() -> None:
    table = board(np.random.default_rng(3), raters=3, per_rater=4, tie_rate=0.2)
    assert find_outliers(table) == []
    assert len(find_outliers(table, min_votes=4)) == 3
    with pytest.raises(ConfigError, match="alpha"):
        find_outliers(table, alpha=0)
    with pytest.raises(DataError, match="no rater column"):
        find_outliers(Comparisons(**{**vars(table), "rater": None}))
