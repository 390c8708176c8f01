"""Span attention on a GPU: each CUDA kernel against the mask on the CPU in float64."""

import pytest
import torch
from torch import Tensor

from rlhf_video.attention import Band, Full, Grid, Local, Text, Tile, WindowSpec, windowed_attention
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.windowed import BACKENDS

pytestmark = pytest.mark.gpu
GRID = Grid(4, 8, 16)
SPECS = [Local((2, 4, 8)), Local((2, 4, 8), shift=(1, 2, 4)), Band(sink_frames=1), Tile((1, 4, 4), (3, 3, 3))]
TEXTS = [None, Text(20, "last", valid=(20, 3))]


def with_gradients(numbers: Tensor, spec: WindowSpec, text: Text | None, backend: str) -> list[Tensor]:
    *tensors, upstream = (tensor.detach().requires_grad_() for tensor in numbers)
    out = windowed_attention(*tensors, GRID, spec, text=text, backend=backend)
    return [out, *torch.autograd.grad(out, tensors, upstream)]


def random_numbers(text: Text | None, dtype: torch.dtype, head_dim: int) -> Tensor:
    num_tokens = GRID.num_tokens + (text.length if text is not None else 0)
    return torch.randn(4, 2, num_tokens, 6, head_dim, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("backend", ["sdpa_span", "sdpa_span_cudnn"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("text", TEXTS, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_half_precision_equals_the_mask(spec: WindowSpec, text: Text | None, dtype: torch.dtype, backend: str) -> None:
    numbers = random_numbers(text, dtype, 128)
    query = numbers[0].cuda()
    if (why := BACKENDS[backend].unsuitable(query, Problem(GRID, spec, text, 1.0))) is not None:
        pytest.skip(why)
    oracle = with_gradients(numbers.double(), spec, text, "mask")
    for ours, truth in zip(with_gradients(numbers.cuda(), spec, text, backend), oracle, strict=True):
        error = (ours.cpu().double() - truth).norm() / truth.norm()
        assert error <= 2 * torch.finfo(dtype).eps  # weights and their gradients are rounded inside these kernels


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("text", TEXTS, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_full_precision_equals_the_mask(
    spec: WindowSpec, text: Text | None, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    numbers = random_numbers(text, dtype, 20)
    oracle = with_gradients(numbers.double(), spec, text, "mask")
    for ours, truth in zip(with_gradients(numbers.cuda(), spec, text, "sdpa_span"), oracle, strict=True):
        torch.testing.assert_close(ours.cpu().double(), truth, rtol=0, atol=bound)


def test_a_head_dimension_that_flash_refuses_is_computed() -> None:
    numbers = random_numbers(None, torch.bfloat16, 36)
    oracle = with_gradients(numbers.double(), Band(), None, "mask")
    for ours, truth in zip(with_gradients(numbers.cuda(), Band(), None, "sdpa_span"), oracle, strict=True):
        assert (ours.cpu().double() - truth).norm() <= 2 * torch.finfo(torch.bfloat16).eps * truth.norm()


def test_a_window_that_covers_the_clip_is_dense_attention_bit_for_bit() -> None:
    numbers = random_numbers(TEXTS[0], torch.bfloat16, 64).cuda()
    dense, covering = (with_gradients(numbers, spec, None, "sdpa_span")[0] for spec in (Full(), Local((0, 0, 0))))
    assert torch.equal(dense, covering)


def test_compiled_code_gives_the_same() -> None:
    function = torch.compile(windowed_attention, fullgraph=True, backend="aot_eager")
    for backend in ("sdpa_span", "sdpa_span_cudnn"):
        query, key, value, _ = random_numbers(None, torch.bfloat16, 64).cuda()
        if BACKENDS[backend].unsuitable(query, Problem(GRID, Band(), None, 1.0)) is None:
            plain = windowed_attention(query, key, value, GRID, Band(), backend=backend)
            assert torch.equal(function(query, key, value, GRID, Band(), backend=backend), plain)
