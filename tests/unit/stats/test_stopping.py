"""Pairs of systems are decided by a sequence each, with the chance of a wrong call shared between them."""

import numpy as np
import pytest

from rlhf_video.errors import DataError
from rlhf_video.stats import Comparisons, decided, deciding_lead, sequence_interval


def board(*, prompts: bool = True) -> Comparisons:
    """Return votes where a beats b 40 of 50 times, c meets a evenly, and b never meets c."""
    a_b = [1] * 40 + [-1] * 10
    a_c = [1, -1] * 20
    outcome = np.random.default_rng(0).permutation(a_b).tolist() + a_c
    return Comparisons(
        systems=("a", "b", "c"),
        first=np.zeros(90, dtype=np.intp),
        second=np.array([1] * 50 + [2] * 40),
        outcome=np.array(outcome, dtype=np.int8),
        weight=np.ones(90),
        prompt=np.arange(90) % 45 if prompts else None,
    )


def test_clear_pair_is_decided_and_the_others_are_open() -> None:
    by_pair = {(decision.first, decision.second): decision for decision in decided(board(), votes_per_prompt=None)}
    assert {pair: decision.winner for pair, decision in by_pair.items()} == {
        ("a", "b"): "a",
        ("a", "c"): None,
        ("b", "c"): None,
    }
    assert [decision.num_votes for decision in by_pair.values()] == [50, 40, 0]
    assert (by_pair["b", "c"].interval.low, by_pair["b", "c"].interval.high) == (-1, 1)


def test_level_is_shared_between_all_pairs() -> None:
    table = board()
    first = decided(table, votes_per_prompt=None, level=0.94)[0]
    assert first.interval == sequence_interval(table.outcome[:50], level=1 - 0.06 / 3)


def test_sides_and_names_do_not_matter() -> None:
    table = board()
    swap = np.arange(90) % 2 == 0
    swapped = Comparisons(
        systems=table.systems,
        first=np.where(swap, table.second, table.first),
        second=np.where(swap, table.first, table.second),
        outcome=np.where(swap, -table.outcome, table.outcome).astype(np.int8),
        weight=table.weight,
        prompt=table.prompt,
    )
    assert decided(swapped, votes_per_prompt=1) == decided(table, votes_per_prompt=1)


def test_prompts_are_the_values_when_asked_for() -> None:
    first = decided(board(), votes_per_prompt=2)[0]
    assert (first.interval.num_items, first.num_votes) == (5, 50)  # five prompts of the 45 came up twice
    with pytest.raises(DataError, match="no prompt column"):
        decided(board(prompts=False), votes_per_prompt=2)
    assert decided(board(prompts=False), votes_per_prompt=None)[0].winner == "a"


def test_pairs_are_decided_exactly_when_their_lead_suffices_at_the_shared_level() -> None:
    rng, calls = np.random.default_rng(1), []
    needed = deciding_lead(60, level=1 - 0.05 / 3)
    for gap in np.linspace(0, 0.9, 8):
        outcome = rng.choice([-1, 1], size=(60, 3), p=[(1 - gap) / 2, (1 + gap) / 2]).astype(np.int8)
        table = Comparisons(
            systems=("a", "b", "c"),
            first=np.tile([0, 0, 1], 60),
            second=np.tile([1, 2, 2], 60),
            outcome=outcome.ravel(),
            weight=np.ones(180),
        )
        ever = (np.abs(np.cumsum(outcome, axis=0)) >= needed[:, None]).any(axis=0)
        calls.append(ever)
        assert [decision.winner is not None for decision in decided(table, votes_per_prompt=None)] == list(ever)
    assert 0 < np.mean(calls) < 1


def test_any_wrong_call_among_all_pairs_is_rare() -> None:
    votes = np.random.default_rng(2).choice([-1, 1], size=(1000, 3, 400))
    needed = deciding_lead(400, level=1 - 0.05 / 3)
    assert (np.abs(np.cumsum(votes, axis=-1)) >= needed).any(axis=(1, 2)).mean() <= 0.05


def test_systems_without_a_vote_share_the_level() -> None:
    table = board()
    first = decided(table, votes_per_prompt=None, level=0.94, num_systems=5)[0]
    assert first.interval == sequence_interval(table.outcome[:50], level=1 - 0.06 / 10)
    assert decided(table, votes_per_prompt=None, num_systems=2) == decided(table, votes_per_prompt=None)


def test_equal_systems_are_told_apart_over_votes_that_share_prompts_but_not_over_prompts() -> None:
    """Prompts suit one system or the other (log-odds of sd 2): twelve votes on each are no twelve draws."""
    rng, num_prompts, num_studies = np.random.default_rng(3), 30, 100
    calls = {None: 0, 12: 0}
    for _ in range(num_studies):
        chance = 1 / (1 + np.exp(-rng.normal(0, 2, num_prompts)))
        prompts = rng.permutation(np.repeat(np.arange(num_prompts), 12))
        outcome = np.where(rng.random(len(prompts)) < chance[prompts], 1, -1).astype(np.int8)
        table = Comparisons(
            systems=("a", "b"),
            first=np.zeros(len(prompts), dtype=np.intp),
            second=np.ones(len(prompts), dtype=np.intp),
            outcome=outcome,
            weight=np.ones(len(prompts)),
            prompt=prompts,
        )
        for count in calls:
            calls[count] += decided(table, votes_per_prompt=count)[0].winner is not None
    assert calls[None] > 0.15 * num_studies
    assert calls[12] <= 0.05 * num_studies
