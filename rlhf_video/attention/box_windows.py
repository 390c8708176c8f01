"""Windows that are boxes of the grid: local (Swin) and tile (sliding tile attention)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from rlhf_video.attention.grid import Grid
from rlhf_video.attention.window_spec import Spans, WindowSpec
from rlhf_video.errors import ConfigError


@dataclass(frozen=True)
class Local(WindowSpec):
    """Boxes of the grid that see themselves; shifted boxes are cut at the border of the clip, never wrapped around."""

    kind: ClassVar[str] = "local"
    window: tuple[int, int, int]
    """Tokens along frames, height and width; 0 takes the whole axis."""
    shift: tuple[int, int, int] = (0, 0, 0)
    """Where the first border lies along each axis, in tokens, less than the window; the boxes before it are smaller."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: A window or a shift is negative, or a shift is not less than its window.
        """
        _check_triple("window", self.window, least=0)
        _check_triple("shift", self.shift, least=0)
        object.__setattr__(self, "window", tuple(self.window))
        object.__setattr__(self, "shift", tuple(self.shift))
        for window, shift in zip(self.window, self.shift, strict=True):
            if shift and shift >= window:
                raise ConfigError(
                    f"shift={list(self.shift)} must be less than window={list(self.window)} along every axis, and 0 "
                    "where the window is the whole axis: half the window is usual."
                )

    def check(self, grid: Grid) -> None:
        """Refuse a grid that the window does not divide."""
        _check_divides("window", self.window, grid)

    def spans(self, grid: Grid) -> Iterator[Spans]:
        """Yield the boxes, those of one size together."""
        self.check(grid)
        tokens = torch.arange(grid.num_tokens).view(*grid)
        regions = [
            _regions(size, window or size, shift)
            for size, window, shift in zip(grid, self.window, self.shift, strict=True)
        ]
        for frames, frame_box in regions[0]:
            for rows, row_box in regions[1]:
                for columns, column_box in regions[2]:
                    boxes = _boxes(tokens[frames, rows, columns], (frame_box, row_box, column_box))[..., None]
                    yield Spans(boxes, boxes)

    def attends(self, grid: Grid) -> Tensor:
        """Return where query and key lie between the same borders along every axis."""
        allowed = torch.ones(grid.num_tokens, grid.num_tokens, dtype=torch.bool)
        for place, window, shift in zip(_places(grid), self.window, self.shift, strict=True):
            if window:
                box = torch.div(place - shift, window, rounding_mode="floor")
                allowed &= box[:, None] == box[None]
        return allowed[None]


@dataclass(frozen=True)
class Tile(WindowSpec):
    """Tiles of the grid that see a box of tiles around themselves, moved inwards at the border."""

    kind: ClassVar[str] = "tile"
    tile: tuple[int, int, int]
    """Tokens of a tile along frames, height and width; 0 takes the whole axis."""
    box: tuple[int, int, int]
    """Tiles that a tile sees along each axis, itself included; more than there are means all."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: A tile is negative, or a box is empty.
        """
        _check_triple("tile", self.tile, least=0)
        _check_triple("box", self.box, least=1)
        object.__setattr__(self, "tile", tuple(self.tile))
        object.__setattr__(self, "box", tuple(self.box))

    def check(self, grid: Grid) -> None:
        """Refuse a grid that the tile does not divide."""
        _check_divides("tile", self.tile, grid)

    def _sizes(self, grid: Grid) -> tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]:
        """Return tile, number of tiles and box along each axis."""
        tile = tuple(tile or size for tile, size in zip(self.tile, grid, strict=True))
        count = tuple(size // tile for size, tile in zip(grid, tile, strict=True))
        box = tuple(min(box, count) for box, count in zip(self.box, count, strict=True))
        return cast("tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]", (tile, count, box))

    def spans(self, grid: Grid) -> Iterator[Spans]:
        """Yield all tiles at once."""
        self.check(grid)
        tile, count, box = self._sizes(grid)
        tiles = _boxes(torch.arange(grid.num_tokens).view(*grid), tile).view(*count, -1)
        first = [_first_of_box(torch.arange(n), n, b) for n, b in zip(count, box, strict=True)]
        frames, rows, columns = (
            (start[:, None] + torch.arange(b)) for start, b in zip(first, box, strict=True)
        )  # (tiles along the axis, box)
        keys = tiles[
            frames[:, None, None, :, None, None], rows[None, :, None, None, :, None], columns[None, None, :, None, None]
        ]
        yield Spans(tiles.flatten(0, 2)[..., None], keys.flatten(0, 2).flatten(1)[..., None])

    def attends(self, grid: Grid) -> Tensor:
        """Return where the key's tile lies in the box of the query's tile along every axis."""
        allowed = torch.ones(grid.num_tokens, grid.num_tokens, dtype=torch.bool)
        for place, tile, count, box in zip(_places(grid), *self._sizes(grid), strict=True):
            own = place // tile
            first = _first_of_box(own, count, box)[:, None]
            allowed &= (own[None] >= first) & (own[None] < first + box)
        return allowed[None]


def _check_triple(name: str, values: tuple[int, int, int], *, least: int) -> None:
    if len(values) != 3 or not all(isinstance(value, int) and value >= least for value in values):
        raise ConfigError(
            f"{name}={list(values)} must be three whole numbers of {least} or more: frames, height, width."
        )


def _check_divides(name: str, sizes: tuple[int, int, int], grid: Grid) -> None:
    for axis, size, whole in zip(("frames", "height", "width"), sizes, grid, strict=True):
        if size and whole % size:
            fits = ", ".join(str(divisor) for divisor in range(1, whole + 1) if whole % divisor == 0)
            raise ConfigError(
                f"{name}={list(sizes)} does not fit the grid {grid}: its {axis} are {whole} tokens, not a multiple of "
                f"{size}. Sizes that fit: {fits} (0 is the whole axis)."
            )


def _places(grid: Grid) -> Iterator[Tensor]:
    """Yield each token's frame, row and column, each of shape (N,)."""
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    yield from (axis.flatten() for axis in axes)


def _regions(size: int, window: int, shift: int) -> list[tuple[slice, int]]:
    """Return the runs of an axis whose boxes have one size, with that size."""
    if not shift:
        return [(slice(0, size), window)]
    last = size - (window - shift)  # the last border
    runs = [(slice(0, shift), shift), (slice(shift, last), window), (slice(last, size), window - shift)]
    return [(run, box) for run, box in runs if run.stop > run.start]


def _boxes(tokens: Tensor, box: tuple[int, int, int]) -> Tensor:
    """Cut (frames, height, width) into boxes that divide it; return shape (boxes, tokens of a box)."""
    frames, rows, columns = (size // side for size, side in zip(tokens.shape, box, strict=True))
    cut = tokens.reshape(frames, box[0], rows, box[1], columns, box[2])
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(frames * rows * columns, -1)


def _first_of_box(tile: Tensor, count: int, box: int) -> Tensor:
    """Return the first tile of each tile's box along one axis."""
    return (tile - (box - 1) // 2).clamp(0, count - box)
