"""The key-value cache: a value, with the sink for ever and the window behind it."""

import itertools
from dataclasses import replace

import pytest
import torch

from rlhf_video.attention.causal_cache import CacheFacts, KeyValue, KeyValueCache
from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.errors import ConfigError

FACTS = CacheFacts(rows=1, columns=2, batch=1, adapter="none")
LAYERS = 2
LAYOUTS = [
    CausalLayout(chunk_frames=2),
    CausalLayout(chunk_frames=2, window_frames=5),
    CausalLayout(chunk_frames=2, window_frames=6, sink_frames=2),
    CausalLayout(chunk_frames=2, window_frames=6, sink_frames=3),  # the sink cuts a chunk
    CausalLayout(chunk_frames=3, window_frames=4, sink_frames=1),
]


def chunk_of(frames: range) -> tuple[KeyValue, ...]:
    """Return keys and values that name their layer, frame and column, with a graph."""
    numbers = torch.tensor([[float(frame), float(column)] for frame in frames for column in range(2)])
    keys = numbers.view(1, -1, 1, 2).requires_grad_()
    return tuple((keys + 100 * layer, keys - 100 * layer) for layer in range(LAYERS))


def frames_in(cache: KeyValueCache) -> list[int]:
    """Return the frames whose keys a cache holds, in order; keys, values, layers and lengths agree."""
    kept = []
    for run, length in zip(cache.chunks, cache.lengths, strict=True):
        for layer, (keys, values) in enumerate(run):
            assert torch.equal(keys - 100 * layer, values + 100 * layer)
            assert keys.shape == (1, 2 * length, 1, 2)
            assert torch.equal(keys - 100 * layer, run[0][0])
        kept += [int(number) for number in run[0][0][0, ::2, 0, 0]]
    assert cache.num_frames == len(kept)
    return kept


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_frames", [12, 13])
def test_the_cache_holds_what_the_next_chunk_sees(layout: CausalLayout, num_frames: int) -> None:
    cache, seen = KeyValueCache(FACTS, layout), layout.visible(num_frames)
    chunks = layout.chunks(num_frames)
    for chunk, following in itertools.pairwise(chunks):
        length = following.stop - following.start
        cache = cache.extended(chunk_of(range(chunk.start, chunk.stop)), next_chunk=length)
        past = [frame for frame in range(following.start) if seen[following.start, frame]]
        assert frames_in(cache) == past
        assert cache.num_made == following.start
        assert layout.window_frames is None or cache.num_frames + length <= layout.window_frames


def test_the_sink_stays_bit_for_bit_however_far_the_window_rolls() -> None:
    layout = CausalLayout(chunk_frames=2, window_frames=6, sink_frames=3)
    generator = torch.Generator().manual_seed(0)
    made, cache = [], KeyValueCache(FACTS, layout)
    for _ in range(20):
        chunk = tuple(
            (torch.randn(1, 4, 1, 6, generator=generator), torch.randn(1, 4, 1, 6, generator=generator))
            for _ in range(LAYERS)
        )
        made.append(chunk)
        cache = cache.extended(chunk)
    assert cache.num_made == 40
    assert cache.num_frames == layout.num_past(2) == 4
    for layer in range(LAYERS):
        for side in range(2):
            sink = torch.cat([run[layer][side] for run in made[:2]], 1)[:, :6]
            kept = torch.cat([run[layer][side] for run in cache.chunks], 1)
            assert torch.equal(kept[:, :6], sink)
            assert torch.equal(kept[:, 6:], made[-1][layer][side][:, 2:])


def test_a_longer_cache_is_a_new_one_without_a_graph() -> None:
    layout = CausalLayout(chunk_frames=2, window_frames=4, sink_frames=1)
    first = KeyValueCache(FACTS, layout).extended(chunk_of(range(2)))
    before = frames_in(first)
    second = first.extended(chunk_of(range(2, 4))).extended(chunk_of(range(4, 6)))
    assert frames_in(first) == before == [0, 1]
    assert frames_in(second) == [0, 5]
    assert not any(tensor.requires_grad for run in second.chunks for pair in run for tensor in pair)


def test_a_cut_chunk_frees_the_rest_of_its_memory() -> None:
    layout = CausalLayout(chunk_frames=3, window_frames=4, sink_frames=1)
    cache = KeyValueCache(FACTS, layout).extended(chunk_of(range(3))).extended(chunk_of(range(3, 6)))
    assert frames_in(cache) == [0]
    kept = cache.chunks[0][0][0]
    assert kept.untyped_storage().nbytes() == kept.numel() * kept.element_size()


@pytest.mark.parametrize(("field", "value"), [("rows", 2), ("columns", 3), ("batch", 4), ("adapter", "default at 0.5")])
def test_a_cache_of_something_else_is_refused_by_name(field: str, value: object) -> None:
    FACTS.check(replace(FACTS))
    with pytest.raises(ConfigError, match=rf"computed with another {field}: start a new roll-out"):
        FACTS.check(replace(FACTS, **{field: value}))  # type: ignore[arg-type]
