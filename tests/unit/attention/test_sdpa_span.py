"""Span attention: equal to the mask in values and gradients, keeps four tensors, compiles to one operator."""

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rlhf_video.attention import Band, Full, Grid, Local, Text, Tile, WindowSpec, windowed_attention
from rlhf_video.attention.backends import sdpa_span, span_kernels
from rlhf_video.attention.backends.sdpa_span import SdpaSpan
from rlhf_video.attention.backends.span_layout import head_runs
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.windowed import BACKENDS
from rlhf_video.errors import ConfigError

GRID = Grid(4, 6, 8)
SPECS = [
    Local((2, 3, 4)),
    Local((0, 3, 0)),
    Local((2, 3, 4), shift=(1, 1, 2)),
    Band(),
    Band(orders=("whf",), chunk=0.5, halo=0.25),
    Band(chunk=1.0, halo=0.5, sink_frames=1),
    Band(orders=("fhw", "hwf"), chunk=0.5, halo=0.0, sink_frames=2),
    Tile((1, 2, 2), (3, 3, 3)),
    Tile((2, 3, 2), (1, 2, 3)),
]
TEXTS = [
    None,
    Text(5, "first"),
    Text(5, "last"),
    Text(5, "first", valid=(3, 3)),
    Text(5, "last", valid=(4, 1)),
    Text(5, "first", valid=(5, 2)),
]
Tensors = tuple[Tensor, Tensor, Tensor]


def inputs(spec_grid: Grid, text: Text | None, *, heads: int = 6, dim: int = 16, dtype: torch.dtype) -> Tensors:
    torch.manual_seed(0)
    num_tokens = spec_grid.num_tokens + (text.length if text is not None else 0)
    query, key, value = (torch.randn(2, num_tokens, heads, dim).to(dtype).requires_grad_() for _ in range(3))
    return query, key, value


def with_gradients(
    tensors: Tensors, grid: Grid, spec: WindowSpec, text: Text | None, backend: str, rounded: torch.dtype | None = None
) -> list[Tensor]:
    out = windowed_attention(*tensors, grid, spec, text=text, backend=backend)
    torch.manual_seed(1)
    upstream = torch.randn(out.shape).to(rounded or out.dtype).to(out.dtype)
    return [out, *torch.autograd.grad(out, tensors, upstream)]


def largest_error(given: list[Tensor], expected: list[Tensor]) -> float:
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(given, expected, strict=True))


@pytest.mark.parametrize("text", TEXTS, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_values_and_gradients_equal_the_mask(spec: WindowSpec, text: Text | None) -> None:
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        tensors = inputs(GRID, text, dtype=dtype)
        oracle = with_gradients(tensors, GRID, spec, text, "mask")
        assert largest_error(with_gradients(tensors, GRID, spec, text, "sdpa_span"), oracle) <= bound


@pytest.mark.parametrize("heads", [1, 3, 4, 6, 7, 12])
@pytest.mark.parametrize("text", [None, Text(5, "first", valid=(5, 2))], ids=str)
def test_any_number_of_heads_equals_the_mask(heads: int, text: Text | None) -> None:
    for spec in (Band(sink_frames=1), Tile((1, 2, 2), (3, 3, 3))):
        tensors = inputs(GRID, text, heads=heads, dtype=torch.float64)
        oracle = with_gradients(tensors, GRID, spec, text, "mask")
        assert largest_error(with_gradients(tensors, GRID, spec, text, "sdpa_span"), oracle) <= 1e-12


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_small_slices_change_nothing(spec: WindowSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, text = inputs(GRID, TEXTS[4], dtype=torch.float64), TEXTS[4]
    oracle = with_gradients(tensors, GRID, spec, text, "mask")
    for size in (1, 2**17):  # one group at a time, and a few
        monkeypatch.setattr(sdpa_span, "CPU_SLICE_BYTES", size)
        assert largest_error(with_gradients(tensors, GRID, spec, text, "sdpa_span"), oracle) <= 1e-12


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_kernel_without_a_saved_sum_equals_the_mask(spec: WindowSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "span_recompute", SdpaSpan("span_recompute", kernel="recompute"))
    tensors, text = inputs(GRID, TEXTS[4], dtype=torch.float64), TEXTS[4]
    oracle = with_gradients(tensors, GRID, spec, text, "mask")
    for max_scores in (1, 5000, 2**26):  # one head of one group at a time, a few, all
        monkeypatch.setattr(span_kernels, "MAX_SCORES", max_scores)
        assert largest_error(with_gradients(tensors, GRID, spec, text, "span_recompute"), oracle) <= 1e-12


def test_heads_of_one_order_are_moved_together() -> None:
    assert [head_runs(Band(), heads) for heads in (1, 3, 4, 6, 7, 12, 40)] == [1, 3, 4, 6, 7, 6, 40]
    assert head_runs(Local((2, 3, 4)), 12) == head_runs(Band(orders=("hfw",)), 7) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("text", [None, Text(5, "last", valid=(4, 1))], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_half_precision_loses_two_roundings(spec: WindowSpec, text: Text | None, dtype: torch.dtype) -> None:
    """One rounding has an r.m.s. error of 0.29 eps, two have 0.41; the kernels round once for themselves.

    Sums of key gradients in half precision would have 0.95 eps for tiles (27 additions).
    """
    half = inputs(GRID, text, dim=64, dtype=dtype)
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in half)
    given = with_gradients(half, GRID, spec, text, "sdpa_span")
    oracle = with_gradients(exact, GRID, spec, text, "mask", rounded=dtype)
    for ours, truth in zip(given, oracle, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - truth).norm() <= 0.5 * torch.finfo(dtype).eps * truth.norm()


def test_autocast_computes_in_its_type_and_differentiates_in_ours() -> None:
    tensors = inputs(GRID, None, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        given = with_gradients(tensors, GRID, Tile((1, 2, 2), (3, 3, 3)), None, "sdpa_span")
        dense = with_gradients(tensors, GRID, Full(), None, "sdpa_span")
    assert [tensor.dtype for tensor in given] == [tensor.dtype for tensor in dense]
    assert [tensor.dtype for tensor in given] == [torch.bfloat16, *[torch.float32] * 3]
    assert largest_error(given, with_gradients(tensors, GRID, Tile((1, 2, 2), (3, 3, 3)), None, "mask")) < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_views_with_any_strides_give_what_copies_give(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    fused = torch.randn(2, GRID.num_tokens, 6, 3 * 16, dtype=dtype).chunk(3, dim=-1)
    heads_first = [torch.randn(2, 6, GRID.num_tokens, 16, dtype=dtype).transpose(1, 2) for _ in range(3)]
    for views in (fused, heads_first):
        strided = tuple(view.detach().requires_grad_() for view in views)
        copies = tuple(view.contiguous().detach().requires_grad_() for view in views)
        assert not any(tensor.is_contiguous() for tensor in strided)
        for spec in (Local((2, 3, 4)), Band()):
            given = with_gradients(strided, GRID, spec, None, "sdpa_span")
            expected = with_gradients(copies, GRID, spec, None, "sdpa_span")
            assert all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))


def test_an_expanded_gradient_is_a_gradient() -> None:
    tensors = inputs(GRID, None, dtype=torch.float64)
    out = windowed_attention(*tensors, GRID, Band())
    of_sum = torch.autograd.grad(out.sum(), tensors, retain_graph=True)  # the gradient of a sum has strides of zero
    for one, two in zip(of_sum, torch.autograd.grad(out, tensors, torch.ones_like(out)), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("text", [None, Text(5, "first"), Text(5, "last", valid=(4, 1))], ids=str)
def test_a_window_that_covers_the_clip_is_dense_attention_bit_for_bit(text: Text | None) -> None:
    tensors = inputs(GRID, text, dtype=torch.float32)
    dense = with_gradients(tensors, GRID, Full(), text, "sdpa_span")
    for spec in (Local((4, 6, 8)), Local((0, 0, 0)), Band(halo=4.0), Tile((1, 2, 2), (9, 9, 9)), Band(sink_frames=3)):
        given = with_gradients(tensors, GRID, spec, text, "sdpa_span")
        assert all(torch.equal(a, b) for a, b in zip(given, dense, strict=True)), spec
    if text is None:
        stock = functional.scaled_dot_product_attention(*(tensor.transpose(1, 2) for tensor in tensors))
        assert torch.equal(dense[0], stock.transpose(1, 2))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (Local((1, 2, 2), shift=(0, 1, 1)), Text(2, "last", valid=(1,))),
        (Band(chunk=0.5, halo=0.25, sink_frames=1), None),
        (Tile((1, 1, 2), (1, 2, 1)), Text(1, "first")),
    ],
    ids=str,
)
def test_gradcheck(spec: WindowSpec, text: Text | None) -> None:
    grid = Grid(3, 2, 2)
    torch.manual_seed(0)
    shape = (1, grid.num_tokens + (text.length if text else 0), 2, 3)
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *qkv: windowed_attention(*qkv, grid, spec, text=text, scale=0.7), tensors)


def test_a_second_derivative_is_refused() -> None:
    tensors = inputs(GRID, None, dtype=torch.float64)
    out = windowed_attention(*tensors, GRID, Local((2, 3, 4)))
    (gradient,) = torch.autograd.grad(out.square().sum(), tensors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def test_a_forward_derivative_is_refused() -> None:
    query, key, value = (tensor.detach() for tensor in inputs(GRID, None, dtype=torch.float64))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(query, torch.ones_like(query))
        with pytest.raises(ConfigError, match="forward-mode"):
            windowed_attention(dual, key, value, GRID, Local((2, 3, 4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("text", [None, Text(5, "last", valid=(4, 1))], ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_backward_keeps_four_tensors_and_a_sum(spec: WindowSpec, text: Text | None, dtype: torch.dtype) -> None:
    tensors, kept = inputs(GRID, text, dim=64, dtype=dtype), {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        windowed_attention(*tensors, GRID, spec, text=text, backend="sdpa_span")
    assert 4.0 < sum(kept.values()) / tensors[0].untyped_storage().nbytes() <= 4.1


def compiled(backend: object = "aot_eager") -> Callable[..., Tensor]:
    torch.compiler.reset()
    return torch.compile(windowed_attention, fullgraph=True, backend=backend)


@pytest.mark.parametrize(
    ("spec", "text"), [(Band(), None), (Tile((1, 2, 2), (3, 3, 3)), Text(5, "last", valid=(4, 1)))]
)
def test_compiled_code_gives_the_same_on_two_grids(spec: WindowSpec, text: Text | None) -> None:
    function = compiled()
    for grid in (Grid(4, 6, 8), Grid(8, 4, 6)):  # the same number of tokens
        tensors = inputs(grid, text, dtype=torch.float32)
        out = function(*tensors, grid, spec, text=text)
        plain = windowed_attention(*tensors, grid, spec, text=text)
        assert torch.equal(out, plain)
        gradients = torch.autograd.grad(out.square().sum(), tensors)
        for one, two in zip(gradients, torch.autograd.grad(plain.square().sum(), tensors), strict=True):
            assert torch.equal(one, two)


def test_compiled_code_sees_one_operator() -> None:
    called = []

    def recorded(module: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        called.extend(str(node.target) for node in module.graph.nodes if node.op not in ("placeholder", "output"))
        return module.forward

    tensors = inputs(GRID, None, dtype=torch.float32)
    compiled(recorded)(*tensors, GRID, Band())
    assert [name for name in called if "getitem" not in name] == ["rlhf_video.span_attention.default"]


@pytest.mark.parametrize("sizes", [[*GRID], [*GRID, 5, 1, 4, 1]])
def test_both_operators_pass_the_checks_of_torch(sizes: list[int]) -> None:
    text = Text(5, "first", valid=(4, 1)) if len(sizes) > 3 else None
    tensors = inputs(GRID, text, dtype=torch.float32)
    settings = sdpa_span._describe(Band()), sizes, "auto", 0.25
    torch.library.opcheck(torch.ops.rlhf_video.span_attention.default, (*tensors, *settings))
    out, lse = (tensor.detach() for tensor in torch.ops.rlhf_video.span_attention(*tensors, *settings))
    detached = [tensor.detach() for tensor in tensors]
    backward = torch.ops.rlhf_video.span_attention_backward.default
    torch.library.opcheck(backward, (torch.randn_like(out), *detached, out, lse, *settings))


def test_tables_made_in_inference_mode_serve_training() -> None:
    grid = Grid(2, 6, 10)  # of no other test
    tensors = inputs(grid, None, dtype=torch.float64)
    with torch.inference_mode():
        windowed_attention(*(tensor.detach() for tensor in tensors), grid, Band())
    oracle = with_gradients(tensors, grid, Band(), None, "mask")
    assert largest_error(with_gradients(tensors, grid, Band(), None, "sdpa_span"), oracle) <= 1e-12


def test_a_sliding_window_is_left_to_other_back_ends() -> None:
    tensors = inputs(GRID, None, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"chunk=0 slides .* use a chunk .* varlen, flex, mask"):
        windowed_attention(*tensors, GRID, Band(chunk=0), backend="sdpa_span")
    assert windowed_attention(*tensors, GRID, Band(chunk=0)).shape == tensors[0].shape  # "auto" finds one


def test_cudnn_is_refused_where_there_is_none() -> None:
    query = torch.randn(1, GRID.num_tokens, 2, 16)
    why = BACKENDS["sdpa_span_cudnn"].unsuitable(query, Problem(GRID, Band(), None, 1.0))
    assert why is not None
    assert "cuDNN" in why or "NVIDIA" in why


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "reason"),
    [
        ("cpu", torch.bfloat16, 64, "on cpu"),
        ("cuda", torch.float32, 64, "not in float32"),
        ("cuda", torch.bfloat16, 36, "multiple of 8"),
        ("cuda", torch.float16, 512, "at most 256"),
        ("cuda", torch.float16, 256, None),
    ],
)
def test_the_flash_kernel_says_what_it_refuses(
    device: str, dtype: torch.dtype, head_dim: int, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(span_kernels, "_capability", lambda _: (9, 0))
    asked = span_kernels.Inputs(torch.device(device), dtype, head_dim)
    why = span_kernels.KERNELS["flash"].unsuitable(asked)
    assert why is reason is None or reason in str(why)
    monkeypatch.setattr(span_kernels, "_capability", lambda _: (7, 5))
    assert span_kernels.KERNELS["flash"].unsuitable(asked) is not None


@pytest.mark.parametrize("name", ["flash", "cudnn"])
def test_cuda_kernels_are_called_as_this_torch_declares_them(name: str) -> None:
    kernel = span_kernels.KERNELS[name]
    query = torch.empty(5, 8, 6, 64, dtype=torch.bfloat16, device="meta").transpose(1, 2)
    key, value = torch.empty(2, 5, 12, 6, 64, dtype=torch.bfloat16, device="meta").transpose(2, 3)
    out, lse = kernel.forward(query, key, value, 0.125)
    assert out.shape == query.shape
    assert lse.shape == query.shape[:3]
    assert lse.dtype == torch.float32
    gradients = kernel.backward(torch.empty_like(out), query, key, value, out, lse, 0.125)
    assert [gradient.shape for gradient in gradients] == [query.shape, key.shape, value.shape]


@pytest.mark.parametrize("spec", [Local((2, 16, 16)), Band(chunk=0.5, halo=0.25)], ids=str)
@pytest.mark.parametrize("backward", [False, True])
def test_half_of_the_saved_work_is_saved_time(spec: WindowSpec, backward: bool) -> None:
    """Guards benchmarks/attention.md, where eta is 0.8 and more: its ratio on a quarter of the tokens, with slack."""
    grid = Grid(4, 32, 32)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, grid.num_tokens, 2, 64, requires_grad=backward) for _ in range(3))

    def seconds(window: WindowSpec) -> float:
        start = time.process_time()
        out = windowed_attention(query, key, value, grid, window, backend="sdpa_span")
        if backward:
            torch.autograd.grad(out, (query, key, value), out)
        return time.process_time() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = [(seconds(Full()), seconds(spec)) for _ in range(4)]
    finally:
        torch.set_num_threads(threads)
    dense, windowed = (min(times) for times in zip(*pairs, strict=True))
    eta = dense / windowed * spec.density(grid)
    assert eta >= 0.5, f"{dense * 1e3:.0f} ms dense, {windowed * 1e3:.0f} ms windowed: eta {eta:.2f}"
