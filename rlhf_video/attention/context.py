"""What one forward pass tells the attention layers."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from rlhf_video.attention.grid import Grid
from rlhf_video.attention.problem import Text
from rlhf_video.attention.window_spec import WindowSpec


@dataclass(frozen=True)
class AttentionContext:
    """One forward pass: the shape of its clip, and which of its batch items the plan leaves alone.

    Plain numbers only: compiled blocks guard on them, and a new grid is compiled anew.
    """

    grid: Grid | None
    """Video tokens; None where the plan is off."""
    text: Text | None = None
    """Text tokens in the sequence, with the counts of real ones; None for cross-attention models."""
    dense_items: tuple[int, ...] = ()
    """Batch items that stay dense because of their noise level; never all of them (that is `DENSE`)."""

    @property
    def enabled(self) -> bool:
        """Whether windows are on."""
        return self.grid is not None


DENSE = AttentionContext(grid=None)
"""A forward pass without windows: the plan is disabled, or all items have a noise level that stays dense."""


class LayerState(NamedTuple):
    """What one layer does in the forward pass that is running."""

    spec: WindowSpec | None
    """The layer's window; None where it attends to everything."""
    context: AttentionContext


class LayerSlot:
    """Holds the state of one layer while the transformer runs; None outside of it."""

    def __init__(self, backend: str) -> None:
        """Make an empty slot.

        Args:
            backend: Name of the back-end, as in `windowed_attention`.
        """
        self.backend = backend
        self.state: LayerState | None = None


class SlottedProcessor:
    """An attention processor that reads what a forward pass is from a slot; recomputation restores the slot."""

    slot: Any
    """Has `state`: what the layer does in the forward pass that is running."""
