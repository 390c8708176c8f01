"""Token-length buckets deal every clip once an epoch, within the budget, as a pure function of seed and step."""

import math

import pytest

from rlhf_video.data import TokenBuckets
from rlhf_video.errors import ConfigError

SHAPES = [(6, 4, 4)] * 5 + [(3, 4, 4)] * 7 + [(1, 8, 8)] * 3


def epoch(buckets: TokenBuckets, number: int) -> list[list[int]]:
    return [buckets.batch(number * buckets.num_batches + place) for place in range(buckets.num_batches)]


def test_small_clips_come_in_larger_batches() -> None:
    sizes = {SHAPES[batch[0]]: len(batch) for batch in epoch(TokenBuckets(SHAPES, 192, seed=0), 0)}
    assert sizes[6, 4, 4] <= 2
    assert sizes[3, 4, 4] >= 3
    assert sizes[1, 8, 8] == 3


def test_a_bucket_that_its_batches_do_not_divide_is_cut_evenly() -> None:
    buckets = TokenBuckets([(1, 1, 1)] * 10, 4, seed=0)
    assert sorted(map(len, epoch(buckets, 0))) == [3, 3, 4]


def test_a_batch_does_not_depend_on_which_batches_were_asked_for_before() -> None:
    straight = TokenBuckets(SHAPES, 192, seed=3)
    wanted = [straight.batch(step) for step in range(30)]
    resumed = TokenBuckets(SHAPES, 192, seed=3)
    assert [resumed.batch(step) for step in reversed(range(30))] == wanted[::-1]


def test_epochs_and_seeds_deal_in_different_orders() -> None:
    first, other = TokenBuckets(SHAPES, 192, seed=0), TokenBuckets(SHAPES, 192, seed=1)
    assert epoch(first, 0) != epoch(first, 1)
    assert epoch(first, 0) != epoch(other, 0)


def test_the_order_is_the_same_on_every_machine() -> None:
    dealt = epoch(TokenBuckets([(2, 1, 1)] * 3 + [(1, 1, 1)] * 4, 4, seed=7), 0)
    assert dealt == [[2], [6, 4, 3, 5], [1, 0]], "another order would break every resumed run"


def test_items_beyond_the_budget_are_named_with_the_budget_that_fits() -> None:
    with pytest.raises(ConfigError) as caught:
        TokenBuckets(SHAPES, 90, seed=0, names=[f"clip{n}" for n in range(len(SHAPES))])
    for word in ("batch.token_budget=90", "5 of 15 clips", "clip0 (6 x 4 x 4 = 96 tokens)", "clip4", "Set it to 96"):
        assert word in str(caught.value)
    assert "clip5" not in str(caught.value)


def test_a_long_list_of_items_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError, match="; and 480 more"):
        TokenBuckets([(2, 2, 2)] * 500, 7, seed=0)


def test_no_item_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no clip"):
        TokenBuckets([], 10, seed=0)


def test_the_description_names_each_shape_once() -> None:
    text = TokenBuckets(SHAPES, 192, seed=0).describe()
    assert text.startswith("3 bucket(s), 6 steps an epoch: 5 of 6 x 4 x 4 = 96 tokens, up to 2 a step; 3 of ")
    assert text.count("tokens") == 3


def test_a_pair_of_clips_costs_twice_its_tokens() -> None:
    buckets = TokenBuckets([(2, 6, 4, 4)] * 4, 2 * math.prod((6, 4, 4)), seed=0)
    assert buckets.num_batches == 4
