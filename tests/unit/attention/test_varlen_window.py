"""The `varlen` back-end hands torch's variable-length attention sequences that are exactly its windows.

The kernel needs CUDA (tests/gpu); here SDPA with the mask of the same sequences stands in for it, so that the order
of tokens, the lengths, the window and the gradients through the order are tested on every machine.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from rlhf_video.attention import Band, Grid, Local, Text, Tile, WindowSpec, windowed_attention
from rlhf_video.attention.backends import varlen_window
from rlhf_video.attention.problem import Problem
from rlhf_video.errors import ConfigError

GRID = Grid(4, 6, 8)
SPECS = [
    Band(chunk=0),
    Band(chunk=0, halo=0.02),
    Band(chunk=0, halo=0, orders=("fhw", "whf")),
    Local((2, 3, 4)),
    Local((2, 3, 4), shift=(1, 1, 2)),
    Local((0, 3, 0), shift=(0, 1, 0)),
]


def sdpa_of_sequences(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    key_ends: Tensor,
    longest: int,
    longest_key: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    assert ends.dtype == torch.int32 and ends is key_ends and longest == longest_key
    if not torch.compiler.is_compiling():
        assert ends[-1] == len(query) and longest == ends.diff().max()
    token = torch.arange(len(query))
    sequence = torch.searchsorted(ends[1:].long(), token, right=True)
    ahead = token - token[:, None]
    left, right = (len(query) if size == -1 else size for size in window_size)
    mask = (sequence == sequence[:, None]) & (-ahead <= left) & (ahead <= right)
    tensors = (tensor.transpose(0, 1) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(*tensors, attn_mask=mask, scale=scale).transpose(0, 1)


@pytest.fixture
def _cpu_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen_window, "_varlen_attn", lambda: sdpa_of_sequences)
    monkeypatch.setattr(varlen_window, "_unsuitable_machine", lambda query, problem: None)


def attend(spec: WindowSpec, backend: str, scale: float | None = None) -> list[Tensor]:
    torch.manual_seed(0)
    stored = torch.randn(3, 2, 8, GRID.num_tokens, 7, dtype=torch.float64)
    inputs = [tensor.transpose(1, 2).requires_grad_() for tensor in stored]  # (B, N, S, D), not contiguous
    out = windowed_attention(*inputs, GRID, spec, scale=scale, backend=backend)
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


@pytest.mark.usefixtures("_cpu_kernel")
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_sequences_are_the_mask_forward_and_backward(spec: WindowSpec) -> None:
    torch.testing.assert_close(attend(spec, "varlen"), attend(spec, "mask"), atol=1e-12, rtol=0)


@pytest.mark.usefixtures("_cpu_kernel")
def test_a_scale_reaches_the_kernel() -> None:
    found = attend(Band(chunk=0), "varlen", scale=0.1)
    torch.testing.assert_close(found, attend(Band(chunk=0), "mask", scale=0.1), atol=1e-12, rtol=0)


@pytest.mark.usefixtures("_cpu_kernel")
def test_it_compiles_without_a_graph_break() -> None:
    query = torch.randn(1, GRID.num_tokens, 6, 8)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(query: Tensor) -> Tensor:
        return windowed_attention(query, query, query, GRID, Band(chunk=0), backend="varlen")

    expected = windowed_attention(query, query, query, GRID, Band(chunk=0), backend="mask")
    torch.testing.assert_close(compiled(query), expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_cpu_kernel")
def test_tables_made_in_inference_mode_serve_training() -> None:
    varlen_window._sequences.cache_clear()
    with torch.inference_mode():
        query = torch.randn(1, GRID.num_tokens, 6, 8)
        windowed_attention(query, query, query, GRID, Band(chunk=0), backend="varlen")
    query = torch.randn(1, GRID.num_tokens, 6, 8, requires_grad=True)
    windowed_attention(query, query, query, GRID, Band(chunk=0), backend="varlen").sum().backward()
    assert query.grad is not None


@pytest.mark.usefixtures("_cpu_kernel")
@pytest.mark.parametrize(
    ("spec", "text", "reason"),
    [
        (Band(), None, "chunk=0 to slide token by token"),
        (Band(chunk=0, sink_frames=1), None, "no sink frames"),
        (Tile((1, 2, 2), (3, 3, 3)), None, "a tile window is not a sequence"),
        (Local((2, 3, 4)), Text(5, "last"), "no text tokens"),
    ],
)
def test_windows_that_are_no_sequences_are_refused(spec: WindowSpec, text: Text | None, reason: str) -> None:
    query = torch.randn(1, GRID.num_tokens + (text.length if text else 0), 6, 8)
    with pytest.raises(ConfigError, match=reason):
        windowed_attention(query, query, query, GRID, spec, text=text, backend="varlen")


def without_window(query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor) -> Tensor:
    raise AssertionError("only its signature is read: varlen_attn as it was before it had window_size and scale")


def refusal(
    monkeypatch: pytest.MonkeyPatch,
    kernel: Callable[..., Tensor] | None,
    *,
    device: str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    head_dim: int = 128,
    capability: tuple[int, int] = (9, 0),
    scale: float | None = None,
    spec: WindowSpec | None = None,
) -> str | None:
    monkeypatch.setattr(varlen_window, "_varlen_attn", lambda: kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with FakeTensorMode():
        query = torch.empty(1, GRID.num_tokens, 6, head_dim, device=device, dtype=dtype)
    problem = Problem(GRID, spec or Band(chunk=0), None, head_dim**-0.5 if scale is None else scale)
    return varlen_window.VarlenWindow().unsuitable(query, problem)


def test_a_gpu_with_torchs_kernel_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, sdpa_of_sequences) is None


def test_machines_without_the_kernel_are_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "runs on CUDA, the tensors are on cpu" in str(refusal(monkeypatch, sdpa_of_sequences, device="cpu"))
    assert "has no torch.nn.attention.varlen" in str(refusal(monkeypatch, None))
    assert "no window_size" in str(refusal(monkeypatch, without_window))
    assert "no scale" in str(refusal(monkeypatch, without_window, spec=Local((2, 3, 4)), scale=0.1))
    assert refusal(monkeypatch, without_window, spec=Local((2, 3, 4))) is None
    assert "torch.float32" in str(refusal(monkeypatch, sdpa_of_sequences, dtype=torch.float32))
    assert "heads of 100 channels" in str(refusal(monkeypatch, sdpa_of_sequences, head_dim=100))
    assert "heads of 512 channels" in str(refusal(monkeypatch, sdpa_of_sequences, head_dim=512))
    assert "capability 8.0" in str(refusal(monkeypatch, sdpa_of_sequences, capability=(7, 5)))


def test_torchs_own_function_takes_the_arguments_given_here(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = varlen_window._varlen_attn()
    assert refusal(monkeypatch, kernel, scale=0.1) is None


@pytest.mark.usefixtures("_cpu_kernel")
def test_autocast_gives_the_kernel_one_type() -> None:
    query = torch.randn(1, GRID.num_tokens, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = windowed_attention(query, query, query.bfloat16(), GRID, Band(chunk=0), backend="varlen")
        stock = functional.scaled_dot_product_attention(query, query, query)
    assert mixed.dtype == stock.dtype == torch.bfloat16
