"""Tiles and local windows in NATTEN's 3-D kernels (natten.org, MIT), an optional package.

NATTEN moves a window of `kernel_size` in steps of `stride` (generalised neighbourhood attention, arXiv:2504.16922):
along an axis of n tokens the queries of a step see the kernel's tokens from
clamp(step * stride + stride // 2 - kernel // 2, 0, n - kernel). With stride = tile and kernel = box * tile that is
step * tile - (box - 1) / 2 * tile, our clamped `Tile`, where the box is odd, whatever the tile; for an even box NATTEN
centres the kernel half a tile off, which no `Tile` is, unless the box spans the axis. An unshifted `Local` is
kernel = stride = window.
"""

import importlib
from functools import lru_cache
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from rlhf_video.attention.box_windows import Local, Tile
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.problem import Problem
from rlhf_video.attention.window_spec import WindowSpec

Triple = tuple[int, int, int]


class Kernel(NamedTuple):
    """NATTEN's arguments along frames, height and width."""

    kernel_size: Triple
    """Keys of a query along each axis."""
    stride: Triple
    """Queries along each axis that share their keys."""


class NattenTiles:
    """Computes tiles with odd boxes and unshifted local windows; "auto" never takes it."""

    name = "natten"
    has_backward = True

    def unsuitable(self, query: Tensor, problem: Problem) -> str | None:
        """Refuse windows that NATTEN does not have, and machines without it or its kernels."""
        if problem.text is not None:
            return "it is not used with text in the sequence: use sdpa_span or flex"
        if (why := _unsuitable_window(problem.spec, problem.grid)) is not None:
            return why
        natten = _natten()
        if isinstance(natten, str):
            return natten
        if query.dtype not in (torch.float32, torch.float16, torch.bfloat16) or query.shape[-1] % 8:
            return (
                "it computes float32, float16 and bfloat16 in heads of a multiple of 8 channels, not "
                f"{query.dtype} in heads of {query.shape[-1]}: use sdpa_span"
            )
        if query.device.type == "cuda" and not natten.HAS_LIBNATTEN:
            return (
                "this natten has no CUDA kernels (libnatten): install the wheel made for your torch and CUDA version, "
                "see natten.org/install, or use sdpa_span"
            )
        if query.device.type == "cpu" and problem.needs_backward:
            return "natten has no backward pass on the CPU: use torch.no_grad() or sdpa_span"
        if query.device.type == "cpu" and query.shape[-1] not in (8, 16, 32, 64, 128, 256, 512):
            return f"on the CPU natten takes heads of 8 to 512 channels, a power of two, not {query.shape[-1]}"
        if query.device.type not in ("cuda", "cpu"):
            return f"it runs on CUDA and, forward only, on the CPU, not on {query.device.type}: use sdpa_span"
        return None

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, problem: Problem) -> Tensor:
        """Return the output, (B, N, S, D)."""
        window = kernel(problem.spec, problem.grid)
        natten = _natten()
        assert isinstance(window, Kernel) and isinstance(natten, ModuleType)  # `unsuitable` has looked
        q_BFHWSD, k_BFHWSD, v_BFHWSD = (
            tensor.unflatten(1, problem.grid).contiguous() for tensor in (query, key, value)
        )
        out = natten.na3d(q_BFHWSD, k_BFHWSD, v_BFHWSD, *window, scale=problem.scale)
        return out.flatten(1, 3)


def kernel(spec: WindowSpec, grid: Grid) -> Kernel | str:
    """Return NATTEN's arguments for a window, or why it has none."""
    if isinstance(spec, Local) and not any(spec.shift):
        window = _whole(spec.window, grid)
        return Kernel(window, window)
    if isinstance(spec, Tile):
        tile = _whole(spec.tile, grid)
        count = [size // side for size, side in zip(grid, tile, strict=True)]
        if any(box % 2 == 0 and box < tiles for box, tiles in zip(spec.box, count, strict=True)):
            return (
                f"natten centres a box of an even number of tiles between tiles: box={list(spec.box)} must be odd or "
                f"span the axis ({' x '.join(map(str, count))} tiles), or use sdpa_span or flex"
            )
        frames, height, width = (side * min(box, n) for side, box, n in zip(tile, spec.box, count, strict=True))
        return Kernel((frames, height, width), tile)
    shifted = "shifted local" if isinstance(spec, Local) else spec.kind
    return f"natten has no {shifted} windows, only tiles and unshifted local ones: use sdpa_span or flex"


def _whole(sizes: Triple, grid: Grid) -> Triple:
    frames, height, width = (size or whole for size, whole in zip(sizes, grid, strict=True))
    return frames, height, width


def _unsuitable_window(spec: WindowSpec, grid: Grid) -> str | None:
    window = kernel(spec, grid)
    if isinstance(window, str):
        return window
    if min(window.kernel_size) < 2:
        return f"natten needs 2 keys or more along every axis, this window has {window.kernel_size}: use sdpa_span"
    return None


@lru_cache(maxsize=1)
def _natten() -> ModuleType | str:
    """Return the package, or why there is none."""
    try:
        return importlib.import_module("natten")
    except ModuleNotFoundError:
        return "natten is not installed: pip install natten (its wheels fit one torch and CUDA version each)"
    except (ImportError, OSError) as error:  # kernels built for another torch or CUDA version
        return f"natten does not load ({error}): reinstall the wheel made for torch {torch.__version__}"
