"""Token orders in which windows are contiguous: moving the rows of a tensor there and back, gradients included.

A row is one token of one head. The gradient of a permutation is its inverse, so that forward and backward are both
one gather, with no scatter that a GPU would have to order.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhf_video.attention.window_spec import WindowSpec


class Permutation(NamedTuple):
    """An order of all rows of a tensor (B, N, S, D), and the way back."""

    rows: Tensor
    """Row numbers token * S + head in the new order, int32; its shape (2-D) is the layout of the permuted rows."""
    inverse: Tensor
    """Place of each row in the flattened `rows`, shape (N * S,), int32."""


def per_head(tokens: Tensor, spec: WindowSpec, num_heads: int) -> Tensor:
    """Return the row numbers of all heads.

    Args:
        tokens: Token numbers in each of the window's axis orders, shape (N, orders).
        spec: Says which order a head uses.
        num_heads: S.

    Returns:
        Shape (N, S).
    """
    orders = torch.tensor([spec.order_of_head(head, num_heads) for head in range(num_heads)])
    return tokens[:, orders] * num_heads + torch.arange(num_heads)


def permutation(rows: Tensor, device: torch.device) -> Permutation:
    """Return the permutation that brings `rows` (2-D, each row number once) in order, on a device."""
    flat = rows.flatten()
    inverse = torch.empty_like(flat)
    inverse[flat] = torch.arange(len(flat))
    return Permutation(rows.to(device, torch.int32), inverse.to(device, torch.int32))


def permuted(tensor: Tensor, order: Permutation) -> Tensor:
    """Return the rows of (B, N, S, D) in another order, contiguous, shape (B, *order.rows.shape, D)."""
    batch, _, _, channels = tensor.shape
    rows = tensor.reshape(batch, -1, channels)
    return _Rows.apply(rows, order.rows.flatten(), order.inverse).view(batch, *order.rows.shape, channels)


def restored(tensor: Tensor, order: Permutation, num_heads: int) -> Tensor:
    """Undo `permuted`: return shape (B, N, S, D) from (B, *order.rows.shape, D)."""
    batch, channels = len(tensor), tensor.shape[-1]
    rows = tensor.reshape(batch, -1, channels)
    return _Rows.apply(rows, order.inverse, order.rows.flatten()).view(batch, -1, num_heads, channels)


class _Rows(torch.autograd.Function):
    """Gather rows; the gradient gathers them back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: Tensor, inverse: Tensor) -> Tensor:
        """Return rows of (B, R, D)."""
        ctx.rows, ctx.inverse = rows, inverse
        return tensor.index_select(1, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient, itself differentiable."""
        return _Rows.apply(gradient, ctx.inverse, ctx.rows), None, None
