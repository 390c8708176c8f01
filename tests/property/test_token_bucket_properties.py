"""Whatever the sizes: coverage, budget, one shape a batch, determinism; and shares that every process makes alike."""

import math

from hypothesis import given
from hypothesis import strategies as st

from rlhf_video.data import TokenBuckets
from rlhf_video.runtime import cut_padded

shapes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=40)


@given(shapes=shapes, extra=st.integers(0, 60), seed=st.integers(0, 2**31), epoch=st.integers(0, 5))
def test_every_epoch_holds_every_item_once_in_batches_of_one_shape_within_the_budget(
    shapes: list[tuple[int, int, int]], extra: int, seed: int, epoch: int
) -> None:
    budget = max(map(math.prod, shapes)) + extra
    buckets = TokenBuckets(shapes, budget, seed=seed)
    steps = range(epoch * buckets.num_batches, (epoch + 1) * buckets.num_batches)
    batches = [buckets.batch(step) for step in steps]
    assert sorted(index for batch in batches for index in batch) == list(range(len(shapes)))
    for batch in batches:
        assert len({shapes[index] for index in batch}) == 1
        assert sum(math.prod(shapes[index]) for index in batch) <= budget
    assert [TokenBuckets(shapes, budget, seed=seed).batch(step) for step in steps] == batches


@given(shapes=shapes, extra=st.integers(0, 60))
def test_no_two_batches_of_a_bucket_would_fit_into_one(shapes: list[tuple[int, int, int]], extra: int) -> None:
    budget = max(map(math.prod, shapes)) + extra
    buckets = TokenBuckets(shapes, budget, seed=0)
    for shape in set(shapes):
        sizes = [len(b) for b in map(buckets.batch, range(buckets.num_batches)) if shapes[b[0]] == shape]
        assert max(sizes) - min(sizes) <= 1
        assert (len(sizes) - 1) * (budget // math.prod(shape)) < sum(sizes), "as few batches as the budget allows"


@given(count=st.integers(1, 50), num_processes=st.integers(1, 6), pieces=st.integers(1, 6))
def test_every_process_makes_passes_of_the_same_sizes_and_each_item_counts_once(
    count: int, num_processes: int, pieces: int
) -> None:
    shares = [cut_padded(count, rank=r, num_processes=num_processes, pieces=pieces) for r in range(num_processes)]
    assert len({tuple(map(len, share)) for share in shares}) == 1
    assert 1 <= len(shares[0]) <= pieces
    assert all(piece for piece in shares[0])
    places = [place for share in shares for piece in share for place in piece]
    assert places == list(range(len(places))), "each place once, in rank order"
    assert count <= len(places) < count + num_processes
