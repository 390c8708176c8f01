"""What attention_speed.py measures: geometries, the windows on each of them, and dense attention's kernels."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from rlhf_video.attention import AXIS_ORDERS, Band, Grid, Local, Text, Tile, WindowSpec, preset_plan
from rlhf_video.attention.grid import positions_in_order

SMALL = Grid(8, 32, 32)
"""The CPU's grid."""
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Geometry:
    """One attention call of a model: its tokens and heads, and the windows tried on it."""

    name: str
    grid: Grid
    num_heads: int
    head_dim: int
    windows: dict[str, WindowSpec]
    num_text: int = 0
    """Text tokens in the sequence, all real."""
    text_position: Literal["first", "last"] = "last"

    @property
    def text(self) -> Text | None:
        """The text as `windowed_attention` takes it."""
        return Text(self.num_text, self.text_position) if self.num_text else None

    @property
    def num_tokens(self) -> int:
        """Video and text."""
        return self.grid.num_tokens + self.num_text

    def density(self, spec: WindowSpec) -> float:
        """Return the share of all pairs that are computed; text attends to everything and is seen by everything."""
        pairs = spec.num_pairs(self.grid) + 2 * self.grid.num_tokens * self.num_text + self.num_text**2
        return pairs / self.num_tokens**2

    def dense_flops(self) -> int:
        """Return the floating-point operations of a dense forward pass; with backward it is 3.5 times that."""
        return 4 * self.num_tokens**2 * self.num_heads * self.head_dim

    def tensors(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return query, key, value and the output's gradient, (1, tokens, heads, head_dim), the same every time."""
        generator = torch.Generator(device).manual_seed(0)
        shape = (1, self.num_tokens, self.num_heads, self.head_dim)
        query, key, value, gradient = (
            torch.randn(shape, generator=generator, device=device, dtype=dtype) for _ in range(4)
        )
        return query, key, value, gradient

    def __str__(self) -> str:
        """Return name and numbers."""
        text = f" + {self.num_text} text" if self.num_text else ""
        return (
            f"{self.name}: {self.grid}{text} = {self.num_tokens:,} tokens, {self.num_heads} heads of {self.head_dim}, "
            "batch 1"
        )


def _small_windows() -> dict[str, WindowSpec]:
    """Return the windows of the CPU's grid, 8 x 32 x 32."""
    windows: dict[str, WindowSpec] = {f"local {size}x16x16": Local((size, 16, 16)) for size in (8, 4, 2)}
    windows["local 4x16x16, shifted by half"] = Local((4, 16, 16), shift=(2, 8, 8))
    for chunk, halo in ((0.5, 0.25), (0.5, 0.5), (1.0, 1.0)):
        windows[f"band {chunk:g} + {halo:g} frames, fhw"] = Band(("fhw",), chunk, halo)
        windows[f"band {chunk:g} + {halo:g} frames, six orders"] = Band(AXIS_ORDERS, chunk, halo)
    for tile, box in (((4, 8, 8), (1, 3, 3)), ((8, 8, 8), (1, 3, 3)), ((2, 8, 8), (3, 3, 3))):
        windows[f"tile {_sizes(tile, SMALL)}, box {_sizes(box, SMALL)}"] = Tile(tile, box)
    return windows


def _model_windows(grid: Grid, small: tuple[int, int, int]) -> dict[str, WindowSpec]:
    """Return the windows of a real model's grid: those of the presets, EasyAnimate's own, and a smaller local one."""
    plain, shifted = preset_plan("local_shift", num_layers=4, num_heads=1, grid=grid).layers[1:3]
    tile = preset_plan("tile3", num_layers=1, num_heads=1, grid=grid).layers[0]
    assert isinstance(plain, Local) and isinstance(tile, Tile)
    return {
        "band 1 + 0.5 frames, six orders (hybrid_middle)": Band(),
        "sliding band, 1 frame each way, six orders": Band(chunk=0, halo=1.0),
        f"local {_sizes(plain.window, grid)} (local_shift)": plain,
        f"local {_sizes(plain.window, grid)}, shifted by half (local_shift)": shifted,
        f"local {_sizes(small, grid)}": Local(small),
        f"tile {_sizes(tile.tile, grid)}, box {_sizes(tile.box, grid)} (tile3)": tile,
    }


def _sizes(sizes: tuple[int, int, int], grid: Grid) -> str:
    """Return three sizes as a text; 0 is the whole axis."""
    return "x".join(str(size or whole) for size, whole in zip(sizes, grid, strict=True))


def geometries() -> dict[str, Geometry]:
    """Return all geometries by name; their windows divide their grids."""
    wan_480p, wan_720p, hunyuan, cogvideox = Grid(21, 30, 52), Grid(21, 45, 80), Grid(33, 45, 80), Grid(13, 30, 45)
    at_480p, at_720p = _model_windows(wan_480p, (7, 15, 26)), _model_windows(wan_720p, (7, 15, 40))
    known = [
        Geometry("small", SMALL, 4, 64, _small_windows()),
        Geometry("wan-1.3b-480p", wan_480p, 12, 128, at_480p),
        Geometry("wan-1.3b-720p", wan_720p, 12, 128, at_720p),
        Geometry("wan-14b-480p", wan_480p, 40, 128, at_480p),
        Geometry("wan-14b-720p", wan_720p, 40, 128, at_720p),
        Geometry("hunyuan-720p", hunyuan, 24, 128, _model_windows(hunyuan, (11, 15, 40)), num_text=256),
        Geometry("cogvideox", cogvideox, 48, 64, _model_windows(cogvideox, (13, 10, 15)), 226, "first"),
    ]
    return {geometry.name: geometry for geometry in known}


def quick_geometry() -> Geometry:
    """Return a geometry of seconds, which proves that everything runs and says nothing about speed."""
    windows: dict[str, WindowSpec] = {
        "local": Local((0, 4, 4)),
        "band 1 + 0.5 frames, six orders": Band(),
        "tile": Tile((1, 4, 4), (3, 1, 2)),
    }
    return Geometry("quick", Grid(6, 8, 8), 4, 32, windows, num_text=16)


@dataclass(frozen=True)
class Dense:
    """One way to compute dense attention."""

    backend: SDPBackend | None = None
    """None is what torch chooses by itself."""
    heads_first: bool = False
    """Copy to (batch, heads, tokens, head_dim) before the call; the copies are timed with it."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return dense attention; tensors are (batch, tokens, heads, head_dim)."""
        chosen = contextlib.nullcontext() if self.backend is None else sdpa_kernel(self.backend)
        turned = (tensor.transpose(1, 2) for tensor in (query, key, value))
        with chosen:
            out = functional.scaled_dot_product_attention(
                *(tensor.contiguous() if self.heads_first else tensor for tensor in turned)
            )
        return out.transpose(1, 2)


def dense_kernels(device: torch.device) -> dict[str, Dense]:
    """Return the kernels to compare with, by name; "default" is what torch chooses."""
    kernels = {
        "default": Dense(),
        "flash": Dense(SDPBackend.FLASH_ATTENTION),
        "flash, heads copied to the front": Dense(SDPBackend.FLASH_ATTENTION, heads_first=True),
    }
    if device.type == "cuda":
        kernels["cudnn"] = Dense(SDPBackend.CUDNN_ATTENTION)
        kernels["memory-efficient"] = Dense(SDPBackend.EFFICIENT_ATTENTION)
    return kernels


@contextlib.contextmanager
def flash_attention_3() -> Iterator[str | None]:
    """Replace torch's flash kernel by FlashAttention-3 inside; yields why not where that cannot be done."""
    try:
        from torch.nn.attention import activate_flash_attention_impl, restore_flash_attention_impl
    except ImportError:
        yield f"torch {torch.__version__} has no torch.nn.attention.activate_flash_attention_impl"
        return
    try:
        activate_flash_attention_impl("FA3")
    except (ImportError, RuntimeError, ValueError) as error:
        yield f"FA3 cannot be activated: {str(error).splitlines()[0]}"
        return
    try:
        yield None
    finally:
        restore_flash_attention_impl()


def keys_of(geometry: Geometry, spec: WindowSpec, token: int, head: int) -> Tensor:
    """Return the sequence places of all keys that one video token of one head sees, straight from the window."""
    grid, order = geometry.grid, spec.order_of_head(head, geometry.num_heads)
    shift = geometry.num_text if geometry.text_position == "first" else 0
    first_text = 0 if shift else grid.num_tokens
    text = torch.arange(first_text, first_text + geometry.num_text)
    if isinstance(spec, Band) and spec.slides:
        place = positions_in_order(grid, spec.orders[order])
        video = ((place - place[token]).abs() <= spec.tokens(grid)[1]).nonzero()[:, 0]
        return torch.cat([video + shift, text])
    for spans in spec.spans(grid):
        group = (spans.queries[..., order] == token).any(1).nonzero()
        if len(group):
            return torch.cat([spans.keys[group[0, 0], :, order] + shift, text])
    raise AssertionError(f"no span of {spec} holds token {token}")


def distance_from_definition(
    out: Tensor, tensors: tuple[Tensor, Tensor, Tensor], geometry: Geometry, spec: WindowSpec
) -> float:
    """Return how far rows of the output are from attention over exactly the keys of the window, relative to its norm.

    Five tokens at equal distances are computed in float32, each for another head where there are enough.
    """
    query, key, value = tensors
    shift = geometry.num_text if geometry.text_position == "first" else 0
    worst = 0.0
    for number, token in enumerate(torch.linspace(0, geometry.grid.num_tokens - 1, 5).long().tolist()):
        head = number * (geometry.num_heads - 1) // 4
        keys = keys_of(geometry, spec, token, head).to(key.device)
        row = query[0, token + shift, head].float()
        weights = (key[0, keys, head].float() @ row * geometry.head_dim**-0.5).softmax(0)
        exact = weights @ value[0, keys, head].float()
        worst = max(worst, float((out[0, token + shift, head].float() - exact).norm() / exact.norm()))
    return worst
