"""Gradient checkpointing with windows: a block is recomputed with the windows that its forward pass saw.

A checkpointed block runs again in the backward pass, when other forward passes may have changed the grid. With the
same number of tokens nothing would fail: the gradients would be those of another attention, silently.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from rlhf_video.attention.context import LayerSlot, LayerState
from rlhf_video.attention.processors import WindowedProcessor


class RememberingCheckpoint:
    """Any checkpoint function, made to remember the windows; what the function itself remembers stays as it is."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wrap a function.

        Args:
            function: Takes a block and its inputs, as diffusers' `enable_gradient_checkpointing` wants it.
        """
        self.function = function

    def __call__(self, block: nn.Module, *inputs: Any) -> Any:
        """Run a block under the function."""
        return self.function(_RememberedBlock(block), *inputs)


class _RememberedBlock(nn.Module):
    """A block that runs in the states which its attention layers have at this moment."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block  # a submodule: checkpoint functions look for adapters in it
        self.states = [(slot, slot.state) for slot in _slots(block)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with _restored(self.states):
            return self.block(*args, **kwargs)


def _slots(block: nn.Module) -> list[LayerSlot]:
    processors = (module.processor for module in block.modules() if "processor" in module.__dict__)
    return [processor.slot for processor in processors if isinstance(processor, WindowedProcessor)]


@contextlib.contextmanager
def _restored(states: list[tuple[LayerSlot, LayerState | None]]) -> Iterator[None]:
    now = [slot.state for slot, _ in states]
    try:
        for slot, state in states:
            slot.state = state
        yield
    finally:
        for (slot, _), state in zip(states, now, strict=True):
            slot.state = state
