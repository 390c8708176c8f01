"""Teacher and student from one set of weights: dense without adapter, and windowed with it; and how windows spread."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rlhf_video.attention import AttentionPlan, Full
from rlhf_video.backbones import Conditioning, VideoBackbone, VideoShape
from rlhf_video.errors import ConfigError
from rlhf_video.lora import adapter_off


@dataclass(frozen=True)
class Pass:
    """One forward pass, seen from inside."""

    velocity: Tensor
    """Shape (batch, channels, Fl, Hl, Wl)."""
    attention: tuple[Tensor, ...]
    """Output of each self-attention layer for the video tokens, first layer first, each (batch, tokens, width)."""


def teacher_pass(
    backbone: VideoBackbone, latents: Tensor, sigma: Tensor, cond: Conditioning, *, keeps_attention: bool = True
) -> Pass:
    """Run the dense base: plan off, adapter off, no gradient; arguments as `student_pass`."""
    with torch.no_grad(), adapter_off(backbone), backbone.dense_attention():
        return student_pass(backbone, latents, sigma, cond, keeps_attention=keeps_attention)


def student_pass(
    backbone: VideoBackbone, latents: Tensor, sigma: Tensor, cond: Conditioning, *, keeps_attention: bool = True
) -> Pass:
    """Run the model as it is now; arguments as `VideoBackbone.velocity`, without guidance.

    Args:
        backbone: The model.
        latents: Noised latents.
        sigma: Their noise levels.
        cond: Encoded prompts.
        keeps_attention: Keep every layer's attention output; they take memory until the backward pass.
    """
    if not keeps_attention:
        return Pass(backbone.velocity(latents, sigma, cond), ())
    with _attention_outputs(backbone) as outputs:
        velocity = backbone.velocity(latents, sigma, cond)
    return Pass(velocity, tuple(outputs))


def attention_error(student: Pass, teacher: Pass) -> Tensor:
    """Return the mean over layers of attention outputs' squared error over the teacher's power, shape (batch,)."""
    layers = [
        (ours.float() - theirs.float()).square().flatten(1).mean(1)
        / theirs.float().square().flatten(1).mean(1).clamp(min=1e-12)
        for ours, theirs in zip(student.attention, teacher.attention, strict=True)
    ]
    return torch.stack(layers).mean(dim=0)


@contextlib.contextmanager
def _attention_outputs(backbone: VideoBackbone) -> Iterator[list[Tensor]]:
    """Collect the outputs of self-attention modules; a recomputation in the backward pass comes too late to add any."""
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])  # joint models: (video, text)

    hooks = [module.register_forward_hook(keep) for h in backbone.attention_handles for module in h.attention_modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


class AnnealedWindows:
    """Windows that spread from the middle layers outwards."""

    def __init__(self, backbone: VideoBackbone, shape: VideoShape, num_steps: int) -> None:
        """Take the plan that is on the backbone as the end of the schedule.

        Args:
            backbone: The model, under its plan.
            shape: Clip size.
            num_steps: Optimiser steps until all windows are on; 0 starts with all.

        Raises:
            ConfigError: The windows cover the clip: nothing is to recover.
        """
        grid, plan = backbone.token_grid(shape), backbone.attention_plan
        if plan is None or plan.density(grid) == 1.0:
            raise ConfigError(
                f"recovery: the windows of section `attention` cover the whole clip ({grid} tokens), so nothing is "
                "lost: lower attention.density, choose another preset, or use a larger clip."
            )
        self._backbone, self._plan, self._num_steps = backbone, plan, num_steps
        middle = (plan.num_layers - 1) / 2
        windowed = [layer for layer, window in enumerate(plan.layers) if not isinstance(window, Full)]
        self._order = sorted(windowed, key=lambda layer: (abs(layer - middle), layer))

    def count(self, step: int) -> int:
        """Return how many layers have windows at an optimiser step."""
        if step >= self._num_steps:
            return len(self._order)
        return math.ceil(len(self._order) * (step + 1) / (self._num_steps + 1))

    def plan(self, step: int) -> AttentionPlan:
        """Return the plan of an optimiser step."""
        on = set(self._order[: self.count(step)])
        layers = tuple(window if layer in on else Full() for layer, window in enumerate(self._plan.layers))
        return replace(self._plan, layers=layers)

    @contextlib.contextmanager
    def at(self, step: int) -> Iterator[None]:
        """Train under the plan of a step; validation, behind it, sees the whole plan."""
        try:
            self._use(self.plan(step))
            yield
        finally:
            self._use(self._plan)

    def _use(self, plan: AttentionPlan) -> None:
        for handle in self._backbone.attention_handles:
            handle.use(plan)
