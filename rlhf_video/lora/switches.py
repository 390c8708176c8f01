"""Adapter off, adapter weaker, another adapter, and gradient checkpointing that remembers what the forward pass saw.

PEFT's own switches toggle `requires_grad` and are read again when a checkpointed block is recomputed: a backward
pass after a switch then silently yields no gradient, or a wrong one. Here a switch never touches `requires_grad`,
and a checkpointed block is recomputed in the state it was computed in.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.utils.checkpoint import checkpoint

from rlhf_video.errors import AdapterError
from rlhf_video.lora.adapter import ADAPTER_NAME, Adaptable, adapter_layers

_State = tuple[bool, float, tuple[str, ...]]
"""Whether adapters are off, the policy's strength, and which adapters run."""


def _get(layer: LoraLayer) -> _State:
    return layer.disable_adapters, layer.scaling.get(ADAPTER_NAME, 1.0), tuple(layer.active_adapters)


def _set(layer: LoraLayer, state: _State) -> None:
    # Not `layer.enable_adapters(False)` or `set_adapter`: they drop requires_grad, and a later backward finds no leaf.
    layer._disable_adapters, scale, active = state
    layer._active_adapter = list(active)
    if ADAPTER_NAME in layer.scaling:
        layer.scaling[ADAPTER_NAME] = scale


@contextlib.contextmanager
def adapter_off(backbone: Adaptable) -> Iterator[None]:
    """Run the frozen base: inside, every adapter layer is skipped.

    Backward never happens inside an adapter switch, so gradients must be off: use
    `with torch.no_grad(), adapter_off(backbone): ...`.

    Raises:
        AdapterError: Gradients are being recorded.
    """
    if torch.is_grad_enabled():
        raise AdapterError(
            "adapter_off needs torch.no_grad(): backward never happens inside an adapter switch. Write "
            "`with torch.no_grad(), adapter_off(backbone): ...`."
        )
    layers = [layer for _, layer in adapter_layers(backbone)]
    states = [_get(layer) for layer in layers]
    try:
        for layer, (_, scale, active) in zip(layers, states, strict=True):
            _set(layer, (True, scale, active))
        yield
    finally:
        for layer, state in zip(layers, states, strict=True):
            _set(layer, state)


@contextlib.contextmanager
def adapter_scale(backbone: Adaptable, scale: float) -> Iterator[None]:
    """Run with the adapter's update multiplied by a factor: 0 is the base, 1 the adapter as trained.

    Args:
        backbone: The model; one without an adapter is left as it is.
        scale: Factor, usually in [0, 1.25].
    """
    layers = [layer for _, layer in adapter_layers(backbone)]
    states = [_get(layer) for layer in layers]
    try:
        for layer, (off, full, active) in zip(layers, states, strict=True):
            _set(layer, (off, full * scale, active))
        yield
    finally:
        for layer, state in zip(layers, states, strict=True):
            _set(layer, state)


@contextlib.contextmanager
def running(backbone: Adaptable, name: str | None) -> Iterator[None]:
    """Run with one adapter of several, whose gradients stay what they are; None runs the frozen base.

    Unlike `adapter_off`, gradients may be recorded: for the inputs of the base, or for the adapter that runs. A block
    that `checkpoint_with_adapters` recomputes sees this switch, so the backward pass may come later.

    Args:
        backbone: The model; both adapters are attached.
        name: As given to `attach`.

    Raises:
        AdapterError: No adapter of that name is attached.
    """
    layers = [layer for _, layer in adapter_layers(backbone)]
    if name is not None and not any(name in layer.lora_A for layer in layers):
        raise AdapterError(f"No adapter '{name}' is attached to this backbone: attach it first.")
    states = [_get(layer) for layer in layers]
    try:
        for layer, (_, scale, active) in zip(layers, states, strict=True):
            _set(layer, (name is None, scale, active if name is None else (name,)))
        yield
    finally:
        for layer, state in zip(layers, states, strict=True):
            _set(layer, state)


class _Restored:
    """Runs in states of before; entered once for each backward pass over one graph."""

    def __init__(self, states: list[tuple[LoraLayer, _State]]) -> None:
        self._states = states
        self._outside: list[list[_State]] = []

    def __enter__(self) -> None:
        self._outside.append([_get(layer) for layer, _ in self._states])
        for layer, state in self._states:
            _set(layer, state)

    def __exit__(self, *_: object) -> None:
        for (layer, _), state in zip(self._states, self._outside.pop(), strict=True):
            _set(layer, state)


def checkpoint_with_adapters(module: nn.Module, *inputs: Any) -> Any:
    """Checkpoint one transformer block; its recomputation sees the adapter switches of its forward pass.

    Args:
        module: The block.
        inputs: Its positional inputs.

    Returns:
        The block's output.
    """
    states = [(layer, _get(layer)) for layer in module.modules() if isinstance(layer, LoraLayer)]
    return checkpoint(
        module,
        *inputs,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _Restored(states)),
    )
