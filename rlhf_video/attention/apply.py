"""Attention plans on stock diffusers transformers: put on, switched off and on, taken off, with one handle.

    handle = apply_attention_plan(transformer, plan)
    student = transformer(...)                     # windows
    with torch.no_grad(), handle.disabled():
        teacher = transformer(...)                 # the same weights, dense: bit for bit the stock model
    handle.restore()

No module, parameter or buffer is added: state dicts, LoRA and saved files are those of the stock model.
A hook reads the clip's shape when a forward pass starts, and empties the layers when it ends: attention that runs
at another time (a recomputation that does not know its grid) is an error, never another window.
"""

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_video.attention.context import DENSE, AttentionContext, LayerState
from rlhf_video.attention.families import Family, Geometry, find_transformer
from rlhf_video.attention.grid import Grid
from rlhf_video.attention.plan import AttentionPlan
from rlhf_video.attention.problem import Text
from rlhf_video.attention.processors import stock_processor, windowed_processor
from rlhf_video.attention.recompute import RememberingCheckpoint
from rlhf_video.attention.window_spec import WindowSpec
from rlhf_video.attention.windowed import check_backend
from rlhf_video.diffusion.sigmas import NUM_TRAIN_TIMESTEPS
from rlhf_video.errors import ConfigError


def apply_attention_plan(transformer: nn.Module, plan: AttentionPlan, *, backend: str = "auto") -> "PlanHandle":
    """Give the self-attention layers of a transformer the windows of a plan.

    Works on the stock classes of `families.py`, before or after LoRA adapters, gradient checkpointing and
    `compile_repeated_blocks`. Layers that attend to everything stay on the model's own attention back-end.

    Args:
        transformer: The model, or a DDP, PEFT or compiled wrapper around it.
        plan: A window for each self-attention layer.
        backend: Name of the back-end of windowed layers, as in `windowed_attention`.

    Returns:
        The handle that switches and restores.

    Raises:
        ConfigError: The class is unknown, the plan is for another depth or head count, the back-end is unknown, a plan
            is applied already, a processor is not a stock one, or the model is sharded.
    """
    model, family = find_transformer(transformer)
    return PlanHandle(model, family, plan, backend)


def find_plan(transformer: nn.Module) -> "PlanHandle | None":
    """Return the handle of the plan on a transformer, also on a deep copy of one; None where there is no plan.

    Raises:
        ConfigError: The class is unknown.
    """
    hooks = find_transformer(transformer)[0]._forward_pre_hooks.values()
    owners = (hook.__self__ for hook in hooks if inspect.ismethod(hook))
    return next((owner for owner in owners if isinstance(owner, PlanHandle)), None)


class PlanHandle:
    """An attention plan on one transformer."""

    def __init__(self, transformer: Any, family: Family, plan: AttentionPlan, backend: str) -> None:
        """Put the plan on; use `apply_attention_plan`."""
        if find_plan(transformer) is not None:
            raise ConfigError(
                f"This {type(transformer).__name__} has an attention plan already: switch it with "
                "find_plan(transformer).use(plan), or .restore() it first."
            )
        self.attention_modules: list[Any] = family.attention_modules(transformer)
        """Self-attention modules, first layer first."""
        self._transformer, self._family = transformer, family
        self._signature = inspect.signature(type(transformer).forward)
        self._is_enabled = True
        check_backend(backend)
        self._check_unsharded()
        self.use(plan)
        processors = [windowed_processor(module.processor, backend) for module in self.attention_modules]
        self._processors: list[Any] = processors
        for module, processor in zip(self.attention_modules, processors, strict=True):
            module.set_processor(processor)
        self._hooks = (
            transformer.register_forward_pre_hook(self._begin, with_kwargs=True),
            transformer.register_forward_hook(self._end, always_call=True),
        )

    @property
    def plan(self) -> AttentionPlan:
        """The plan in force."""
        return self._plan

    def use(self, plan: AttentionPlan) -> None:
        """Switch to another plan of the same depth and head count; forward passes already made keep theirs.

        Raises:
            ConfigError: The plan is for another depth or head count.
        """
        plan.check(num_layers=len(self.attention_modules), num_heads=self.attention_modules[0].heads)
        self._plan = plan

    @contextlib.contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the stock model inside: dense, with the same weights; backward passes may come later."""
        before, self._is_enabled = self._is_enabled, False
        try:
            yield
        finally:
            self._is_enabled = before

    def restore(self) -> None:
        """Take the plan off: stock processors, no hooks. A second call does nothing."""
        for module, processor in zip(self.attention_modules, self._processors, strict=True):
            if module.processor is processor:
                module.set_processor(stock_processor(processor))
        for hook in self._hooks:
            hook.remove()
        checkpoint = self._transformer._gradient_checkpointing_func
        if isinstance(checkpoint, RememberingCheckpoint):
            self._transformer._gradient_checkpointing_func = checkpoint.function

    def _begin(self, transformer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Tell the layers what this forward pass is."""
        self._check_unchanged()
        self._remember_in_checkpoints()
        context: AttentionContext = DENSE
        windows: tuple[WindowSpec | None, ...] = (None,) * self._plan.num_layers
        if self._is_enabled:
            inputs = self._signature.bind(transformer, *args, **kwargs).arguments
            context = self._context(inputs)
        if context.grid is not None:
            windows = _windows_on(self._plan, context.grid)
        for processor, window in zip(self._processors, windows, strict=True):
            processor.slot.state = LayerState(window, context)

    def _end(self, *_: Any) -> None:
        for processor in self._processors:
            processor.slot.state = None

    def _context(self, inputs: Mapping[str, Any]) -> AttentionContext:
        if self._plan.is_full:
            return DENSE
        geometry = self._family.geometry(self._transformer, inputs)
        batch = inputs["hidden_states"].shape[0]
        timestep = inputs["timestep"] if self._plan.dense_sigmas is not None else None
        sigmas, valid = _read(geometry, timestep, batch)
        # rounded, because timesteps are 1000 * sigma in float32
        dense = tuple(item for item, sigma in enumerate(sigmas) if self._plan.is_dense_at(round(sigma, 6)))
        if len(dense) == batch:
            return DENSE
        text = Text(geometry.text_length, geometry.text_position, valid) if geometry.text_length else None
        return AttentionContext(geometry.grid, text, dense)

    def _check_unsharded(self) -> None:
        if self._transformer._parallel_config is not None:
            raise ConfigError(
                "Windows do not support context or tensor parallelism: sharding along a windowed axis, or over heads, "
                "would cut windows apart. Use data parallelism, or leave the plan out."
            )

    def _check_unchanged(self) -> None:
        self._check_unsharded()
        for layer, (module, processor) in enumerate(zip(self.attention_modules, self._processors, strict=True)):
            if module.processor is not processor:
                raise ConfigError(
                    f"The attention processor of layer {layer} was replaced by {type(module.processor).__name__} after "
                    "the attention plan was applied: restore() the plan first, change processors, then apply it again."
                )

    def _remember_in_checkpoints(self) -> None:
        """Make the checkpoint function in force recompute blocks with their own windows, whoever set it, whenever."""
        checkpoint = self._transformer._gradient_checkpointing_func
        if checkpoint is not None and not isinstance(checkpoint, RememberingCheckpoint):
            self._transformer._gradient_checkpointing_func = RememberingCheckpoint(checkpoint)


@functools.lru_cache(maxsize=64)
def _windows_on(plan: AttentionPlan, grid: Grid) -> tuple[WindowSpec | None, ...]:
    """Return each layer's window, None where it covers the clip.

    Raises:
        ConfigError: A window does not fit the grid.
    """
    plan.check(num_layers=plan.num_layers, num_heads=plan.num_heads, grid=grid)
    covers = {window: window.covers(grid) for window in set(plan.layers)}
    return tuple(None if covers[window] else _one_object(window) for window in plan.layers)


@functools.cache
def _one_object(window: WindowSpec) -> WindowSpec:
    """Return the first window that was equal to this one: compiled code tells windows apart by identity."""
    return window


def _read(geometry: Geometry, timestep: Tensor | None, batch: int) -> tuple[list[float], tuple[int, ...] | None]:
    """Return each item's noise level (none without timestep) and number of real text tokens, in one device transfer.

    Where an item's frames have different noise levels, as behind a clean first frame, the highest is the item's.

    Raises:
        ConfigError: Real text tokens stand behind padded ones.
    """
    rows: list[Tensor] = []
    if geometry.text_mask is not None:
        real = geometry.text_mask.bool()
        place = torch.arange(1, real.shape[1] + 1, device=real.device)
        rows += [real.sum(1), (real * place).amax(1)]
    if timestep is not None:
        rows.append(timestep.expand(batch) if timestep.numel() == 1 else timestep.reshape(batch, -1).amax(1))
    values = torch.stack([row.float() for row in rows]).tolist() if rows else []
    sigmas = [level / NUM_TRAIN_TIMESTEPS for level in values.pop()] if timestep is not None else []
    if geometry.text_mask is None:
        return sigmas, None
    for item, (count, last) in enumerate(zip(*values, strict=True)):
        if count != last:
            raise ConfigError(
                f"The text mask of batch item {item} keeps {count:g} tokens, the last of them is number {last:g}: "
                "padding must stand behind the text (padding_side='right')."
            )
    return sigmas, tuple(int(count) for count in values[0])
