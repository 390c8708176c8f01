"""Gradient checkpointing with windows or causal contexts: a block is recomputed with what its forward pass saw.

A checkpointed block runs again in the backward pass, when other forward passes may have changed the grid. With the
same number of tokens nothing would fail: the gradients would be those of another attention, silently.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from rlhf_video.attention.context import SlottedProcessor
from rlhf_video.errors import ConfigError


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
        self.layers = list(_slotted_layers(block))
        self.states = [(processor.slot, processor.slot.state) for _, processor in self.layers]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if any(module.processor is not processor for module, processor in self.layers):
            raise ConfigError(
                "An attention plan, or causal attention, was taken off or replaced between a checkpointed forward pass "
                "and its backward pass, which would recompute other attention: run the backward pass first."
            )
        with _restored(self.states):
            return self.block(*args, **kwargs)


def _slotted_layers(block: nn.Module) -> Iterator[tuple[nn.Module, SlottedProcessor]]:
    for module in block.modules():
        processor = module.__dict__.get("processor")
        if isinstance(processor, SlottedProcessor):
            yield module, processor


@contextlib.contextmanager
def _restored(states: list[tuple[Any, Any]]) -> Iterator[None]:
    now = [slot.state for slot, _ in states]
    try:
        for slot, state in states:
            slot.state = state
        yield
    finally:
        for (slot, _), state in zip(states, now, strict=True):
            slot.state = state
