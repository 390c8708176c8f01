"""Windows along one axis order after another: EasyAnimate's (arXiv:2405.18991, hybrid window attention)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rlhf_video.attention.grid import AXIS_ORDERS, AxisOrder, Grid, positions_in_order, tokens_in_order
from rlhf_video.attention.window_spec import Spans, WindowSpec
from rlhf_video.errors import ConfigError


@dataclass(frozen=True)
class Band(WindowSpec):
    """A sliding window in one dimension over tokens read in an axis order, another order for each group of heads.

    Chunks of queries share their keys: the chunk and `halo` tokens on both sides, moved inwards at the clip's ends.
    EasyAnimate slides token by token, one frame to both sides; `chunk=1, halo=0.5` has the same density.
    """

    kind: ClassVar[str] = "band"
    orders: tuple[AxisOrder, ...] = AXIS_ORDERS
    """Axis order of each group of heads (EasyAnimate: all six)."""
    chunk: float = 1.0
    """Queries that share their keys, in frames (height x width tokens); 0 lets the window slide token by token, which
    only the back-ends `varlen`, `flex` and `mask` can do."""
    halo: float = 0.5
    """Further keys on each side, in frames, rounded to whole tokens."""
    sink_frames: int = 0
    """First frames that attend to everything and that everything attends to (attention sinks, arXiv:2309.17453)."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: An order is unknown, or a number is negative or not finite.
        """
        if not self.orders or not set(self.orders) <= set(AXIS_ORDERS):
            raise ConfigError(f"orders={list(self.orders)} must name some of {', '.join(AXIS_ORDERS)}.")
        for name in ("chunk", "halo", "sink_frames"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name}={value} must be a number of frames of 0 or more.")
        if self.sink_frames != int(self.sink_frames):
            raise ConfigError(f"sink_frames={self.sink_frames} must be a whole number of frames.")
        object.__setattr__(self, "sink_frames", int(self.sink_frames))  # JSON writers turn 1 into 1.0
        object.__setattr__(self, "orders", tuple(self.orders))

    @property
    def num_orders(self) -> int:
        """Number of axis orders."""
        return len(self.orders)

    @property
    def num_global_frames(self) -> int:
        """The sink frames."""
        return self.sink_frames

    @property
    def slides(self) -> bool:
        """Whether the window moves token by token."""
        return self.chunk == 0

    def banded(self, grid: Grid) -> Grid:
        """Return the grid behind the sink frames, on which the band is defined."""
        return grid._replace(frames=grid.frames - self.sink_frames)

    def tokens(self, grid: Grid) -> tuple[int, int, int]:
        """Return (queries of a chunk, halo, keys of a chunk) in tokens; a sliding window has chunks of 1.

        Raises:
            ConfigError: The chunk does not divide the tokens.
        """
        self.check(grid)
        count = self.banded(grid).num_tokens
        halo = round(self.halo * grid.frame_tokens)
        chunk = 1 if self.slides else round(self.chunk * grid.frame_tokens)
        return chunk, halo, min(chunk + 2 * halo, count)

    def check(self, grid: Grid) -> None:
        """Refuse a grid whose tokens cannot be cut into equal chunks, or that is all sink."""
        count = self.banded(grid).num_tokens
        if count <= 0:
            raise ConfigError(f"sink_frames={self.sink_frames} leaves nothing of the grid {grid}: use fewer.")
        if self.slides:
            return
        chunk = self.chunk * grid.frame_tokens
        if abs(chunk - round(chunk)) > 1e-6 or not 1 <= round(chunk) <= count or count % round(chunk):
            fits = [size for size in range(1, count + 1) if count % size == 0]
            near = sorted(sorted(fits, key=lambda size: abs(size - chunk))[:6])
            choices = ", ".join(f"{size / grid.frame_tokens:g} ({size} tokens)" for size in near)
            raise ConfigError(
                f"chunk={self.chunk:g} frames = {chunk:g} tokens does not divide the {count} tokens of the grid {grid}"
                f"{' behind the sink' if self.sink_frames else ''}. Nearest that fit: {choices}."
            )

    def spans(self, grid: Grid) -> Iterator[Spans]:
        """Yield all chunks at once.

        Raises:
            ConfigError: The window slides token by token: its tokens share no keys.
        """
        chunk, halo, num_keys = self.tokens(grid)
        banded, first = self.banded(grid), self.sink_frames * grid.frame_tokens
        ordered = torch.stack([tokens_in_order(banded, order) for order in self.orders], dim=-1) + first
        start = torch.arange(0, banded.num_tokens, chunk)
        first_key = (start - halo).clamp(0, banded.num_tokens - num_keys)
        yield Spans(ordered[start[:, None] + torch.arange(chunk)], ordered[first_key[:, None] + torch.arange(num_keys)])

    def num_pairs(self, grid: Grid) -> int:
        """Return the pairs of one head; a sliding window is cut off at the ends of the clip."""
        if not self.slides:
            return super().num_pairs(grid)
        count, num_global = self.banded(grid).num_tokens, self.sink_frames * grid.frame_tokens
        halo = min(self.tokens(grid)[1], count - 1)
        inside = count * (2 * halo + 1) - halo * (halo + 1)
        return inside + count * num_global + num_global * grid.num_tokens

    def attends(self, grid: Grid) -> Tensor:
        """Return, for each order, where the key's position is near enough to the query's (or to its chunk's)."""
        chunk, halo, num_keys = self.tokens(grid)
        banded, first = self.banded(grid), self.sink_frames * grid.frame_tokens
        allowed = torch.zeros(self.num_orders, grid.num_tokens, grid.num_tokens, dtype=torch.bool)
        for index, order in enumerate(self.orders):
            place = positions_in_order(banded, order)
            query, key = place[:, None], place[None]
            if self.slides:
                near = (query - key).abs() <= halo
            else:
                start = (query // chunk * chunk - halo).clamp(0, banded.num_tokens - num_keys)
                near = (key >= start) & (key < start + num_keys)
            allowed[index, first:, first:] = near
        return allowed
