"""Every attention back-end on CUDA, forward and backward, against the mask oracle in float64.

A back-end may be off by three times what masked dense attention in the same type is off, the bound of flash
attention's own tests; a wrong window is off by hundreds of times that.
"""

import pytest
import torch
from torch import Tensor

from rlhf_video.attention import Band, Grid, Local, Text, Tile, WindowSpec, windowed_attention
from rlhf_video.attention.availability import backend_reasons
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.windowed import BACKENDS

pytestmark = pytest.mark.gpu

GRID = Grid(4, 12, 16)
SPECS = [
    Local((2, 6, 8)),
    Local((0, 6, 0)),
    Local((2, 6, 8), shift=(1, 3, 4)),
    Band(),
    Band(orders=("fhw",), chunk=0.5, halo=0.25),
    Band(sink_frames=1),
    Band(chunk=0),
    Band(chunk=0, halo=0.02),
    Band(chunk=0, sink_frames=1),
    Tile((1, 4, 4), (3, 3, 3)),
    Tile((2, 3, 8), (1, 2, 1)),
]
TEXTS = [None, Text(77, "first"), Text(77, "last", valid=(5, 77))]
NAMES = [name for name in BACKENDS if name != "mask"]
TYPES = [torch.float16, torch.bfloat16, torch.float32]


def attend(
    inputs: list[Tensor], spec: WindowSpec, text: Text | None, backend: str, dtype: torch.dtype, grid: Grid = GRID
) -> list[Tensor]:
    leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    out = windowed_attention(*leaves, grid, spec, text=text, backend=backend)
    weight = torch.linspace(-1, 1, out.shape[-1], device=out.device, dtype=dtype)
    return [tensor.double() for tensor in (out, *torch.autograd.grad((out * weight).sum(), leaves))]


def assert_as_exact_as_dense(
    spec: WindowSpec, text: Text | None, backend: str, dtype: torch.dtype, grid: Grid = GRID
) -> None:
    torch.manual_seed(0)
    num_tokens = grid.num_tokens + (text.length if text else 0)
    # Rounded first, so that every type computes with the same numbers.
    inputs = [tensor.to(dtype).double() for tensor in torch.randn(3, 2, num_tokens, 6, 64, device="cuda")]
    exact = attend(inputs, spec, text, "mask", torch.float64, grid)
    dense = attend(inputs, spec, text, "mask", dtype, grid)
    found = attend(inputs, spec, text, backend, dtype, grid)
    for name, ours, theirs, truth in zip(("out", "dq", "dk", "dv"), found, dense, exact, strict=True):
        bound = 3 * (theirs - truth).abs().max() + 1e-5
        assert (ours - truth).abs().max() <= bound, f"{name} of {spec}"


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("text", TEXTS, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_windows_are_as_exact_as_dense_attention(
    spec: WindowSpec, text: Text | None, backend: str, dtype: torch.dtype
) -> None:
    query = torch.empty(2, 1, 6, 64, device="cuda", dtype=dtype)
    reason = BACKENDS[backend].unsuitable(query, Problem(GRID, spec, text, 64**-0.5, needs_backward=True))
    if reason is not None:
        pytest.skip(f"{backend}: {reason}")
    assert_as_exact_as_dense(spec, text, backend, dtype)


def test_torchs_own_back_ends_are_there() -> None:
    reasons = backend_reasons(torch.device("cuda"))
    assert {name for name, reason in reasons.items() if reason is None} >= {"varlen", "flex", "mask"}, reasons


@pytest.mark.parametrize("backend", ["varlen", "flex"])
def test_two_grids_of_one_token_count_take_turns(backend: str) -> None:
    for grid in (GRID, Grid(4, 16, 12), GRID):
        assert_as_exact_as_dense(Local((2, 4, 4), shift=(1, 0, 2)), None, backend, torch.bfloat16, grid)


@pytest.mark.parametrize("backend", ["varlen", "flex"])
def test_roll_out_and_training_give_the_same_output(backend: str) -> None:
    inputs = [*torch.randn(3, 1, GRID.num_tokens, 6, 64, device="cuda", dtype=torch.bfloat16)]
    with torch.inference_mode():
        rolled = windowed_attention(*inputs, GRID, Band(chunk=0), backend=backend)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    trained = windowed_attention(*leaves, GRID, Band(chunk=0), backend=backend)
    trained.sum().backward()
    assert torch.equal(rolled, trained)


def test_flex_takes_more_shapes_than_the_compiler_keeps_by_default() -> None:
    for frames in range(2, 11):
        grid = Grid(frames, 8, 8)
        assert_as_exact_as_dense(Local((1, 8, 8)), None, "flex", torch.bfloat16, grid)


def test_varlen_compiles_without_a_graph_break() -> None:
    def attention(query: Tensor) -> Tensor:
        return windowed_attention(query, query, query, GRID, Band(chunk=0), backend="varlen")

    query = torch.randn(1, GRID.num_tokens, 6, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    weight = torch.linspace(-1, 1, 64, device="cuda", dtype=torch.bfloat16)
    eager, compiled = attention(query), torch.compile(attention, fullgraph=True)(query)
    torch.testing.assert_close(compiled, eager)
    (expected,) = torch.autograd.grad((eager * weight).sum(), query)
    (found,) = torch.autograd.grad((compiled * weight).sum(), query)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)


def test_autocast_lets_varlen_take_float32() -> None:
    query = torch.randn(1, GRID.num_tokens, 6, 64, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        out = windowed_attention(query, query, query.bfloat16(), GRID, Band(chunk=0), backend="varlen")
    assert out.dtype == torch.bfloat16
