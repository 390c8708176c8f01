"""Rankings do not depend on names, order or sides, and are refused exactly where no finite maximum exists."""

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlhf_video.errors import DataError
from rlhf_video.stats import Comparisons, RankingModel, clustered_covariance, fit_ranking
from rlhf_video.stats.comparison_graph import connected_parts, dominance_groups, is_separated_by_ties

Vote = tuple[int, int, int, int, float]
MODELS: tuple[RankingModel, ...] = ("bradley_terry", "davidson", "rao_kupper")
models = st.sampled_from(MODELS)
votes = st.tuples(
    st.integers(0, 3), st.integers(0, 3), st.sampled_from([1, 1, 0, -1]), st.integers(0, 4), st.floats(0.25, 4.0)
).filter(lambda vote: vote[0] != vote[1])


def table(rows: list[Vote]) -> Comparisons:
    first, second, outcome, prompt, weight = (np.array(column) for column in zip(*rows, strict=True))
    return Comparisons(
        systems=("a", "b", "c", "d"),
        first=first.astype(np.intp),
        second=second.astype(np.intp),
        outcome=outcome.astype(np.int8),
        weight=weight.astype(np.float64),
        prompt=prompt,
    )


@st.composite
def tables(draw: st.DrawFn) -> Comparisons:
    """Draw a table that connects all four systems, over two prompts or more, with a decided comparison."""
    rows = draw(st.lists(votes, min_size=2, max_size=20))
    chain = [(0, 1, 1, 0, 1.0), (1, 2, -1, 1, 1.0), (2, 3, 1, 0, 1.0)]
    return table(rows + chain)


def changed(comparisons: Comparisons, **columns: object) -> Comparisons:
    return Comparisons(**{**vars(comparisons), **columns})


def assert_same(one: Comparisons, other: Comparisons, model: RankingModel, sign: float = 1.0) -> None:
    fits = [fit_ranking(comparisons, model=model, prior_sd=1.0) for comparisons in (one, other)]
    np.testing.assert_allclose(fits[1].strengths, sign * fits[0].strengths, atol=1e-10)
    if fits[0].tie_parameter is not None:
        assert fits[1].tie_parameter == pytest.approx(fits[0].tie_parameter, rel=1e-9)
    covariances = [clustered_covariance(fit, "prompt").matrix for fit in fits]
    np.testing.assert_allclose(covariances[1][:4, :4], covariances[0][:4, :4], atol=1e-8)


@given(tables(), models, st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_sides_and_order_do_not_matter(comparisons: Comparisons, model: RankingModel, random: Random) -> None:
    swap = np.array([random.random() < 0.5 for _ in range(len(comparisons))])
    order = np.array(random.sample(range(len(comparisons)), len(comparisons)))
    swapped = changed(
        comparisons,
        first=np.where(swap, comparisons.second, comparisons.first),
        second=np.where(swap, comparisons.first, comparisons.second),
        outcome=np.where(swap, -comparisons.outcome, comparisons.outcome).astype(np.int8),
    )
    names = ("first", "second", "outcome", "weight", "prompt")
    assert_same(comparisons, changed(swapped, **{name: getattr(swapped, name)[order] for name in names}), model)


@given(tables(), models, st.permutations(range(4)))
@settings(max_examples=25, deadline=None)
def test_renamed_systems_keep_their_strengths(
    comparisons: Comparisons, model: RankingModel, renaming: list[int]
) -> None:
    number = np.array(renaming)
    renamed = changed(comparisons, first=number[comparisons.first], second=number[comparisons.second])
    one = fit_ranking(comparisons, model=model, prior_sd=1.0)
    other = fit_ranking(renamed, model=model, prior_sd=1.0)
    np.testing.assert_allclose(other.strengths[number], one.strengths, atol=1e-10)


@given(tables(), models)
@settings(max_examples=25, deadline=None)
def test_reversed_outcomes_reverse_the_ranking(comparisons: Comparisons, model: RankingModel) -> None:
    assert_same(comparisons, changed(comparisons, outcome=-comparisons.outcome), model, sign=-1.0)


@given(tables())
@settings(max_examples=25, deadline=None)
def test_one_more_win_never_brings_its_loser_closer(comparisons: Comparisons) -> None:
    weight = comparisons.weight.copy()
    row = int(np.flatnonzero(comparisons.outcome == 1)[0])
    weight[row] *= 2
    winner, loser = comparisons.first[row], comparisons.second[row]
    before = fit_ranking(comparisons, prior_sd=1.0).strengths
    after = fit_ranking(changed(comparisons, weight=weight), prior_sd=1.0).strengths
    assert after[winner] - after[loser] > before[winner] - before[loser]


@given(st.lists(votes, min_size=1, max_size=9), models)
@settings(max_examples=100, deadline=None)
def test_fit_is_refused_exactly_where_some_direction_never_lowers_the_likelihood(
    rows: list[Vote], model: RankingModel
) -> None:
    parts = connected_parts(table(rows))
    assume(len(parts) > 0)
    for part in parts:
        separated = has_direction(part, fits_ties=model != "bradley_terry")
        if model != "bradley_terry" and not part.outcome.any():
            continue  # only ties: its own error
        if separated:
            with pytest.raises(DataError, match="maximum likelihood is infinite"):
                fit_ranking(part, model=model)
            assert fit_ranking(part, model=model, prior_sd=1.0).separation is not None
        else:
            ranking = fit_ranking(part, model=model)
            assert np.isfinite(ranking.strengths).all() and ranking.separation is None


def has_direction(part: Comparisons, *, fits_ties: bool) -> bool:
    """Try all integer directions: those of difference constraints with integer bounds, if any, have integer entries.

    Strengths may move apart freely (a tie forbids it), or together with a tie parameter that grows by 1.
    """
    wins, ties = part.tally()
    num_systems = len(wins)
    for move in itertools.product(range(num_systems), repeat=num_systems):
        gap = np.subtract.outer(move, move)
        if gap.any() and (gap[wins > 0] >= 0).all() and (gap[ties > 0] == 0).all():
            return True
        if fits_ties and ties.any() and (gap[wins > 0] >= 1).all() and (np.abs(gap[ties > 0]) <= 1).all():
            return True
    return False


@given(st.lists(votes, min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_groups_are_ordered_by_dominance_and_parts_hold_every_vote(
    rows: list[Vote],
) -> None:
    comparisons = table(rows)
    wins, ties = comparisons.tally()
    groups = dominance_groups(wins, ties)
    assert sorted(np.concatenate(groups)) == [0, 1, 2, 3]
    for place, group in enumerate(groups):
        for later in groups[place + 1 :]:
            assert not wins[np.ix_(later, group)].any() and not ties[np.ix_(later, group)].any()
    parts = connected_parts(comparisons)
    assert sum(len(part) for part in parts) == len(comparisons)
    assert len({name for part in parts for name in part.systems}) == sum(len(part.systems) for part in parts)


def test_a_cycle_of_wins_outweighs_ties() -> None:
    wins, ties = np.zeros((2, 3, 3))
    ties[0, 1] = ties[1, 0] = 1
    wins[1, 2] = wins[2, 0] = 1  # 0 = 1 > 2 > 0: two wins, one tie
    assert not is_separated_by_ties(wins, ties)
    wins[2, 0], ties[2, 0], ties[0, 2] = 0, 1, 1  # one win, two ties
    assert is_separated_by_ties(wins, ties)
