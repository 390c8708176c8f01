"""What every window is: the keys that a video token sees, as a definition (mask) and as work (groups of queries).

Every window is made of groups of query tokens that share one set of keys: then attention is a batch of small dense
ones, with no mask, on any device. No grid is ever padded; what does not fit is an error that lists what does.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict
from typing import ClassVar, NamedTuple

from torch import Tensor

from rlhf_video.attention.grid import Grid
from rlhf_video.errors import ConfigError

MAX_MASK_TOKENS = 8192
"""Largest grid of which a boolean mask is made: 64 MiB for each axis order."""


class Spans(NamedTuple):
    """Groups of queries of one size, each with keys of one number; token numbers are frame-major."""

    queries: Tensor
    """Shape (groups, queries per group, orders)."""
    keys: Tensor
    """Shape (groups, keys per group, orders)."""


class WindowSpec(ABC):
    """Which keys each video token attends to."""

    kind: ClassVar[str]

    @property
    def num_orders(self) -> int:
        """Number of head groups that see different windows."""
        return 1

    @property
    def num_global_frames(self) -> int:
        """First frames that attend to everything and that everything attends to."""
        return 0

    @abstractmethod
    def check(self, grid: Grid) -> None:
        """Refuse a grid that the windows do not fit.

        Raises:
            ConfigError: Lists the valid choices.
        """

    @abstractmethod
    def spans(self, grid: Grid) -> Iterator[Spans]:
        """Yield the groups of queries with their keys; together they hold each query that is not global once.

        Global tokens (`num_global_frames`) are in neither. Raises as `check` does.
        """

    @abstractmethod
    def attends(self, grid: Grid) -> Tensor:
        """Return the definition, token by token, shape (orders, N, N): may query i (row) see key j (column)?"""

    def mask(self, grid: Grid) -> Tensor:
        """Return `attends` with the global frames in it: the oracle of all back-ends, for small grids.

        Raises:
            ConfigError: The window does not fit the grid, or the grid has more than `MAX_MASK_TOKENS` tokens.
        """
        self.check(grid)
        if grid.num_tokens > MAX_MASK_TOKENS:
            raise ConfigError(
                f"A boolean mask of {grid} = {grid.num_tokens} tokens would not fit: masks are for grids up to "
                f"{MAX_MASK_TOKENS} tokens, use backend='sdpa_span'."
            )
        allowed = self.attends(grid)
        num_global = self.num_global_frames * grid.frame_tokens
        allowed[:, :num_global] = True
        allowed[:, :, :num_global] = True
        return allowed

    def num_pairs(self, grid: Grid) -> int:
        """Return how many (query, key) pairs one head computes, mean over heads."""
        num_global = self.num_global_frames * grid.frame_tokens
        pairs = num_global * grid.num_tokens
        for spans in self.spans(grid):
            groups, queries = spans.queries.shape[:2]
            pairs += groups * queries * (spans.keys.shape[1] + num_global)
        return pairs

    def density(self, grid: Grid) -> float:
        """Return the share of all (query, key) pairs that are computed, in (0, 1]."""
        return self.num_pairs(grid) / grid.num_tokens**2

    def flops(self, grid: Grid, *, num_heads: int, head_dim: int) -> int:
        """Return floating-point operations of one forward pass for one clip; a backward pass takes 2.5 times that."""
        return 4 * self.num_pairs(grid) * num_heads * head_dim

    def covers(self, grid: Grid) -> bool:
        """Return whether every token sees the whole clip."""
        return self.num_pairs(grid) == grid.num_tokens**2

    def order_of_head(self, head: int, num_heads: int) -> int:
        """Return which of the orders a head uses: heads are cut into `num_orders` consecutive groups.

        With fewer heads than orders the heads take orders at equal distances: of six, 4 heads take the 1st, 2nd, 4th
        and 5th, 3 heads the 1st, 3rd and 5th (one for each slowest axis), 1 head the 1st.
        """
        return head * self.num_orders // num_heads

    def to_json(self) -> dict[str, object]:
        """Return plain values for a JSON file; `window_from_json` reads them."""
        values = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()  # type: ignore[call-overload]
        }
        return {"kind": self.kind, **values}
