"""The `flex` back-end: orders of tokens and block masks equal the mask oracle; the CPU has no backward pass."""

import shutil

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from rlhf_video.attention import Band, Grid, Local, Text, Tile, WindowSpec, windowed, windowed_attention
from rlhf_video.attention.backends import block_masks
from rlhf_video.attention.backends.block_masks import BLOCK, flex_plan
from rlhf_video.attention.backends.flex_blocks import FlexBlocks
from rlhf_video.attention.problem import Problem
from rlhf_video.errors import ConfigError

GRID = Grid(4, 6, 8)
SPECS = [
    Local((2, 3, 4)),
    Local((0, 3, 0)),
    Local((2, 3, 4), shift=(1, 1, 2)),
    Local((4, 6, 8), shift=(2, 3, 4)),
    Band(),
    Band(orders=("fhw",), chunk=0.5, halo=0.25),
    Band(chunk=1.0, halo=0.5, sink_frames=1),
    Band(chunk=0, halo=0.5),
    Band(chunk=0, halo=0.3, sink_frames=1),
    Tile((1, 2, 2), (3, 3, 3)),
    Tile((2, 3, 2), (1, 2, 3)),
    Tile((1, 2, 2), (2, 9, 1)),
]
TEXTS = [None, Text(7, "first"), Text(7, "last", valid=(3, 7))]


def inputs(text: Text | None, grid: Grid = GRID, heads: int = 4, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    torch.manual_seed(0)
    num_tokens = grid.num_tokens + (text.length if text else 0)
    return [tensor.transpose(1, 2) for tensor in torch.randn(3, 2, heads, num_tokens, 16, dtype=dtype)]


@pytest.mark.parametrize("text", TEXTS, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_window_equals_the_mask(spec: WindowSpec, text: Text | None) -> None:
    tensors = inputs(text)
    found = windowed_attention(*tensors, GRID, spec, text=text, scale=0.3, backend="flex")
    expected = windowed_attention(*tensors, GRID, spec, text=text, scale=0.3, backend="mask")
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("text", TEXTS, ids=str)
@pytest.mark.parametrize("spec", [SPECS[2], SPECS[6], SPECS[7], SPECS[9]], ids=str)
def test_blocks_are_what_the_mask_says(spec: WindowSpec, text: Text | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    monkeypatch.setattr(block_masks, "MASK_ROWS", BLOCK)  # several strips, the last one ragged
    block_masks.flex_plan.cache_clear()
    plan = flex_plan(spec, GRID, text, 2, torch.device("cpu"))
    count = GRID.num_tokens + (text.length if text else 0)
    items = len(text.valid) if text and text.valid else 1
    expected = create_block_mask(plan.block_mask.mask_mod, items, 1, count, count, device="cpu")
    for name in ("kv_num_blocks", "full_kv_num_blocks", "q_num_blocks", "full_q_num_blocks"):
        assert torch.equal(getattr(plan.block_mask, name), getattr(expected, name)), name
    for name in ("kv_indices", "full_kv_indices", "q_indices", "full_q_indices"):
        assert torch.equal(getattr(plan.block_mask, name), getattr(expected, name)), name


def test_most_blocks_of_a_window_are_skipped_or_whole() -> None:
    grid = Grid(8, 16, 16)
    mask = flex_plan(Local((4, 8, 8)), grid, None, 1, torch.device("cpu")).block_mask
    assert mask.sparsity() == pytest.approx(100 * (1 - 1 / 8))
    assert mask.kv_num_blocks.sum() == 0, "boxes of 256 tokens need no mask inside a block"


def test_a_gradient_on_the_cpu_is_refused_and_not_lost() -> None:
    query, key, value = inputs(None)
    with pytest.raises(ConfigError, match=r"no backward pass on the CPU: use torch\.no_grad\(\)"):
        windowed_attention(query, key, value.requires_grad_(), GRID, Band(), backend="flex")
    with torch.no_grad():
        windowed_attention(query, key, value, GRID, Band(), backend="flex")


def test_auto_takes_the_same_back_end_with_and_without_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def spy(name: str) -> None:
        backend = type(windowed.BACKENDS[name])
        call = backend.__call__

        def record(self: object, *arguments: object) -> Tensor:
            used.append(name)
            return call(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(backend, "__call__", record)

    for name in windowed.BACKENDS:
        spy(name)
    tensors = inputs(None)
    sliding = Band(chunk=0)
    windowed_attention(*tensors, GRID, sliding)
    windowed_attention(*(tensor.requires_grad_() for tensor in tensors), GRID, sliding)
    assert used == ["mask", "mask"], "flex has no backward pass on the CPU, so auto never takes it there"


def test_larger_calls_on_the_cpu_need_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FlexBlocks(eager_tokens=100)
    problem = Problem(GRID, Band(), None, 1.0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert backend.unsuitable(inputs(None, dtype=torch.float32)[0], problem) is None
    assert "torch.float64" in str(backend.unsuitable(inputs(None)[0], problem))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "there is no C++ compiler: apt install g++" in str(backend.unsuitable(inputs(None)[0], problem))
    assert FlexBlocks().unsuitable(inputs(None)[0], problem) is None


def on(device: str, *, dtype: torch.dtype = torch.bfloat16, head_dim: int = 64) -> str | None:
    with FakeTensorMode():
        query = torch.empty(1, GRID.num_tokens, 6, head_dim, device=device, dtype=dtype)
    return FlexBlocks().unsuitable(query, Problem(GRID, Band(), None, 1.0, needs_backward=True))


def test_devices_types_and_heads_that_it_cannot_do_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert on("cuda") is None
    assert "torch.float64" in str(on("cuda", dtype=torch.float64))
    assert "heads of 8 channels" in str(on("cuda", head_dim=8))
    assert "not on meta" in str(on("meta"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install triton" in str(on("cuda"))


def test_tables_are_made_once_and_only_so_many_are_kept() -> None:
    block_masks.flex_plan.cache_clear()
    tensors = inputs(None)
    for _ in range(3):
        windowed_attention(*tensors, GRID, Band(), backend="flex")
    assert block_masks.flex_plan.cache_info().misses == 1
    assert block_masks.flex_plan.cache_info().maxsize is not None


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles a kernel for the CPU")
def test_the_compiled_kernel_equals_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(windowed.BACKENDS, "flex", FlexBlocks(eager_tokens=0))
    grid, text = Grid(4, 8, 8), Text(9, "first", valid=(3, 9))
    for spec in (Band(sink_frames=1), Tile((2, 4, 4), (1, 1, 2))):
        tensors = inputs(text, grid, dtype=torch.float32)
        found = windowed_attention(*tensors, grid, spec, text=text, backend="flex")
        expected = windowed_attention(*tensors, grid, spec, text=text, backend="mask")
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
