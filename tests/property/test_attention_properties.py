"""Windowed attention on grids and windows that nobody chose: always what the mask says, and never a lost token."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_video.attention import AXIS_ORDERS, Band, Grid, Local, Text, Tile, WindowSpec, windowed_attention

grids = st.builds(Grid, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


def divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


@st.composite
def windows(draw: st.DrawFn, grid: Grid) -> WindowSpec:
    kind = draw(st.sampled_from(["local", "band", "tile"]))
    if kind == "band":
        sink = draw(st.integers(0, min(1, grid.frames - 1)))
        chunk = draw(st.sampled_from(divisors((grid.frames - sink) * grid.frame_tokens)))
        orders = tuple(draw(st.lists(st.sampled_from(AXIS_ORDERS), min_size=1, max_size=6)))
        halo = draw(st.integers(0, grid.num_tokens)) / grid.frame_tokens
        return Band(orders, chunk=chunk / grid.frame_tokens, halo=halo, sink_frames=sink)
    boxes = tuple(draw(st.sampled_from([0, *divisors(size)])) for size in grid)
    if kind == "tile":
        return Tile(boxes, tuple(draw(st.integers(1, 3)) for _ in range(3)))
    return Local(boxes, shift=tuple(draw(st.integers(0, max(0, box - 1))) for box in boxes))


@st.composite
def texts(draw: st.DrawFn, batch: int) -> Text | None:
    length = draw(st.integers(0, 4))
    if length == 0:
        return None
    counts = st.lists(st.integers(1, length), min_size=batch, max_size=batch).map(tuple)
    return Text(length, draw(st.sampled_from(["first", "last"])), draw(st.none() | counts))


@given(data=st.data(), grid=grids, heads=st.sampled_from([1, 2, 3, 4, 6, 7, 12]), batch=st.integers(1, 2))
@settings(max_examples=100)
def test_spans_give_the_mask_s_values_and_gradients(data: st.DataObject, grid: Grid, heads: int, batch: int) -> None:
    spec, text = data.draw(windows(grid)), data.draw(texts(batch))
    num_tokens = grid.num_tokens + (text.length if text is not None else 0)
    generator = torch.Generator().manual_seed(0)
    query, key, value, upstream = torch.randn(4, batch, num_tokens, heads, 4, generator=generator, dtype=torch.float64)
    results = []
    for backend in ("sdpa_span", "mask"):
        tensors = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        out = windowed_attention(*tensors, grid, spec, text=text, backend=backend)
        results.append([out, *torch.autograd.grad(out, tensors, upstream)])
    for ours, oracle in zip(*results, strict=True):
        torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-12)


@given(data=st.data(), grid=grids)
def test_each_token_is_a_query_and_sees_a_key(data: st.DataObject, grid: Grid) -> None:
    spec = data.draw(windows(grid))
    ones = torch.ones(1, grid.num_tokens, 6, 2)
    out = windowed_attention(torch.zeros_like(ones), ones, ones, grid, spec, backend="sdpa_span")
    torch.testing.assert_close(out, ones, rtol=0, atol=1e-6)  # weights of each query add up to one


@given(data=st.data(), grid=grids)
def test_density_is_the_share_of_pairs_in_the_mask(data: st.DataObject, grid: Grid) -> None:
    spec = data.draw(windows(grid))
    assert abs(spec.density(grid) - spec.mask(grid).double().mean().item()) < 1e-9
