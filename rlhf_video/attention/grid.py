"""The grid of video tokens, and the six orders in which its axes can be read."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

AxisOrder = Literal["fhw", "fwh", "hfw", "hwf", "wfh", "whf"]
AXIS_ORDERS: tuple[AxisOrder, ...] = get_args(AxisOrder)
"""Slowest axis first; "fhw" is frame-major, the order in which every supported model keeps its tokens."""


class Grid(NamedTuple):
    """How many tokens a clip has along each axis, after the transformer's patches."""

    frames: int
    height: int
    width: int

    @property
    def frame_tokens(self) -> int:
        """Tokens of one frame."""
        return self.height * self.width

    @property
    def num_tokens(self) -> int:
        """Tokens of the clip."""
        return self.frames * self.frame_tokens

    def __str__(self) -> str:
        """Return "frames x height x width"."""
        return " x ".join(map(str, self))


def tokens_in_order(grid: Grid, order: AxisOrder) -> Tensor:
    """Return the frame-major numbers of all tokens, read in another axis order, shape (N,)."""
    return torch.arange(grid.num_tokens).view(*grid).permute(*("fhw".index(axis) for axis in order)).flatten()


def positions_in_order(grid: Grid, order: AxisOrder) -> Tensor:
    """Return each frame-major token's place in another axis order, shape (N,); inverse of `tokens_in_order`."""
    return tokens_in_order(grid, order).argsort()
