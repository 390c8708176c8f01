"""The `natten` back-end asks NATTEN for exactly the windows that the mask defines, and refuses the others.

NATTEN is not part of this environment, so its documented window (generalised neighbourhood attention,
arXiv:2504.16922: the position of a strided window along an axis) stands in for it as a mask. Where NATTEN is
installed, its own `na3d` is tested as well; both gave the same results with natten 0.21.7 on the CPU.
"""

import importlib.util
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rlhf_video.attention import Band, Full, Grid, Local, Text, Tile, WindowSpec, windowed_attention
from rlhf_video.attention.backends import natten_tiles
from rlhf_video.errors import ConfigError

GRID = Grid(4, 6, 10)
FITTING = [
    Local((2, 3, 5)),
    Local((0, 2, 2)),
    Tile((2, 3, 2), (1, 1, 3)),  # an odd box, tiles of even and odd size, both borders
    Tile((2, 1, 2), (1, 3, 3)),
    Tile((1, 1, 1), (3, 5, 3)),
    Tile((2, 2, 0), (2, 3, 1)),  # an even box that spans its axis
    Tile((1, 2, 5), (9, 3, 1)),
]
EVEN = [Tile((2, 3, 2), (1, 1, 2)), Tile((1, 2, 1), (3, 2, 3)), Tile((1, 1, 1), (2, 3, 3)), Tile((1, 1, 2), (3, 3, 4))]


def documented_na3d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernel_size: tuple[int, int, int],
    stride: tuple[int, int, int],
    *,
    scale: float,
) -> Tensor:
    grid = query.shape[1:4]
    inside = torch.ones(1, 1, dtype=torch.bool)
    for size, kernel, step in zip(grid, kernel_size, stride, strict=True):
        place = torch.arange(size)
        leader = (place // step * step + step // 2).clamp(max=size - 1)  # the right one of an even step's two centres
        first = (leader - kernel // 2).clamp(0, size - kernel)[:, None]
        inside = torch.kron(inside, (place >= first) & (place < first + kernel))
    tensors = (tensor.flatten(1, 3).transpose(1, 2) for tensor in (query, key, value))
    out = functional.scaled_dot_product_attention(*tensors, attn_mask=inside, scale=scale)
    return out.transpose(1, 2).unflatten(1, grid)


def documented() -> ModuleType:
    module = ModuleType("natten")
    module.na3d = documented_na3d  # type: ignore[attr-defined]
    module.HAS_LIBNATTEN = False  # type: ignore[attr-defined]
    return module


@pytest.fixture(params=["documented", *(["installed"] if importlib.util.find_spec("natten") else [])])
def _natten(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "documented":
        monkeypatch.setattr(natten_tiles, "_natten", documented)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 2, GRID.num_tokens, 2, 16, dtype=dtype).unbind()


@pytest.mark.usefixtures("_natten")
@pytest.mark.parametrize("spec", FITTING, ids=str)
def test_natten_computes_the_mask(spec: WindowSpec) -> None:
    query, key, value = inputs()
    expected = windowed_attention(query, key, value, GRID, spec, scale=0.3, backend="mask")
    found = windowed_attention(query, key, value, GRID, spec, scale=0.3, backend="natten")
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_natten")
@pytest.mark.parametrize("spec", EVEN, ids=str)
def test_an_even_box_would_be_another_window_and_is_refused(spec: Tile) -> None:
    query, key, value = inputs()
    kernel_size = tuple(side * box for side, box in zip(spec.tile, spec.box, strict=True))
    natten = natten_tiles._natten()
    assert isinstance(natten, ModuleType)
    shaped = (tensor.unflatten(1, GRID) for tensor in (query, key, value))
    found = natten.na3d(*shaped, kernel_size, spec.tile, scale=0.3).flatten(1, 3)
    expected = windowed_attention(query, key, value, GRID, spec, scale=0.3, backend="mask")
    assert (found - expected).abs().max() > 0.1
    with pytest.raises(ConfigError, match="even number of tiles"):
        windowed_attention(query, key, value, GRID, spec, backend="natten")


@pytest.mark.usefixtures("_natten")
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (Band(), "no band windows"),
        (Local((2, 3, 5), shift=(1, 0, 0)), "no shifted local windows"),
        (Local((1, 3, 5)), "2 keys or more along every axis"),
        (Tile((1, 3, 5), (1, 1, 1)), "2 keys or more along every axis"),
    ],
)
def test_windows_that_natten_has_not_are_refused(spec: WindowSpec, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        windowed_attention(*inputs(), GRID, spec, backend="natten")


@pytest.mark.usefixtures("_natten")
def test_text_float64_odd_heads_and_a_gradient_on_the_cpu_are_refused() -> None:
    spec = Local((2, 3, 5))
    query, key, value = torch.randn(3, 1, GRID.num_tokens + 3, 2, 16)
    with pytest.raises(ConfigError, match="text in the sequence"):
        windowed_attention(query, key, value, GRID, spec, text=Text(3, "last"), backend="natten")
    with pytest.raises(ConfigError, match=r"not torch\.float64"):
        windowed_attention(*inputs(torch.float64), GRID, spec, backend="natten")
    with pytest.raises(ConfigError, match="power of two, not 24"):
        windowed_attention(*torch.randn(3, 1, GRID.num_tokens, 2, 24), GRID, spec, backend="natten")
    query, key, value = inputs()
    with pytest.raises(ConfigError, match="no backward pass on the CPU"):
        windowed_attention(query, key, value.requires_grad_(), GRID, spec, backend="natten")


def test_a_window_that_covers_the_grid_needs_no_natten() -> None:
    query, key, value = inputs()
    found = windowed_attention(query, key, value, GRID, Full(), backend="natten")
    assert torch.equal(found, windowed_attention(query, key, value, GRID, Full()))


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    natten_tiles._natten.cache_clear()
    monkeypatch.setitem(sys.modules, "natten", None)
    with pytest.raises(ConfigError, match="natten is not installed: pip install natten"):
        windowed_attention(*inputs(), GRID, Local((2, 3, 5)), backend="natten")
    natten_tiles._natten.cache_clear()


def test_kernels_for_another_torch_are_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise OSError("undefined symbol")

    natten_tiles._natten.cache_clear()
    monkeypatch.setattr("importlib.import_module", broken)
    assert "undefined symbol" in str(natten_tiles._natten())
    natten_tiles._natten.cache_clear()
