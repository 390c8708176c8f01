"""Rows of preference optimisation: a pair at one draw of noise, and the error of one of its clips under a model.

A draw is a noise level and noise, fixed by the run's seed, the pair's own key and the draw's number alone: the same in
every step, batch and process, so a reference's error at it can be kept. Both clips of a pair share it bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from rlhf_video.algorithms.config_sections import NoiseLevelConfig
from rlhf_video.algorithms.dpo_loss import DpoLossConfig, PairErrors, segment_errors
from rlhf_video.backbones import Conditioning, VideoBackbone
from rlhf_video.diffusion.flow import interpolate, velocity_target
from rlhf_video.diffusion.prediction_errors import flow_error_factor, squared_error
from rlhf_video.diffusion.sigmas import random_sigma, shift_sigma
from rlhf_video.runtime import generator_for

Member = Literal["chosen", "rejected"]
MEMBERS: tuple[Member, Member] = ("chosen", "rejected")
Draw = Callable[[str, int, Sequence[int]], tuple[Tensor, Tensor]]
"""(pair's key, number of the draw, latent shape of a clip) -> (noise level (), noise of that shape), on the CPU."""


def training_draw(config: NoiseLevelConfig, *, seed: int, shift: float) -> Draw:
    """Return how training draws: levels as the model's own training, shifted as its sampler.

    Args:
        config: Distribution of the levels.
        seed: The run's seed.
        shift: Sigma shift.
    """

    def draw(key: str, number: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        generator = generator_for(seed, "pair draw", key, number)
        level = random_sigma(generator, config.distribution, mean=config.mean, deviation=config.deviation)
        return shift_sigma(level, shift), torch.randn(tuple(shape), generator=generator)

    return draw


def measured_draw(levels: Tensor, *, seed: int) -> Draw:
    """Return how held-out pairs are measured: draw number i has the level `levels[i]` for every pair."""

    def draw(key: str, number: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        generator = generator_for(seed, "held-out pair draw", key, number)
        return levels[number], torch.randn(tuple(shape), generator=generator)

    return draw


@dataclass(frozen=True)
class Group:
    """Rows that fit one forward pass: latents of one shape, one expert."""

    places: list[int]
    """Where the rows stand among all of the batch."""
    chosen: Tensor
    """Clean latents of the chosen clips, shape (rows, channels, Fl, Hl, Wl)."""
    rejected: Tensor
    """The same of the rejected ones."""
    noise: Tensor
    """Shared by both members, of the same shape."""
    sigma: Tensor
    """Shared noise levels, shape (rows,)."""
    cond: Conditioning
    segments: Tensor
    """Share of each latent frame in each segment, shape (rows, segments, Fl)."""


@dataclass(frozen=True)
class Rows:
    """Pairs at draws of noise, of one micro-batch."""

    pairs: Tensor
    """Index of the pair of each row, shape (rows,)."""
    draws: Tensor
    """Number of the draw of each row, shape (rows,)."""
    sigma: Tensor
    """Noise levels, shape (rows,)."""
    preference: Tensor
    """Probability that "chosen" is better, NaN where nobody said, shape (rows, segments)."""
    both_bad: Tensor
    """Whether both clips are bad, as kto reads it; bool, shape (rows, segments), never where there is a preference."""
    weight: Tensor
    """How often a row counts, mean 1 over the pairs of the run, shape (rows,)."""
    groups: tuple[Group, ...]

    def without_latents(self) -> "Rows":
        """Return what is known of the rows without what takes memory."""
        return replace(self, groups=())

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.pairs)


def member_error(backbone: VideoBackbone, rows: Rows, member: Member, config: DpoLossConfig) -> Tensor:
    """Return a model's error on one member of every row, shape (rows, segments), with a gradient where one is recorded.

    Args:
        backbone: The model, its adapter as it should be.
        rows: The pairs.
        member: Which clip of each.
        config: Which error, and how it is reduced.
    """
    parts = []
    for group in rows.groups:
        clean = group.chosen if member == "chosen" else group.rejected
        velocity = backbone.velocity(interpolate(clean, group.noise, group.sigma), group.sigma, group.cond)
        squared = squared_error(velocity, velocity_target(clean, group.noise))
        errors = segment_errors(squared, group.segments, config.reduction)
        parts.append(errors * flow_error_factor(config.error, group.sigma)[:, None])
    places = torch.tensor([place for group in rows.groups for place in group.places])
    return torch.cat(parts)[places.argsort().to(parts[0].device)]


@torch.no_grad()
def pair_errors(backbone: VideoBackbone, rows: Rows, config: DpoLossConfig) -> PairErrors:
    """Return a model's errors on both members of every row, without gradient."""
    chosen, rejected = (member_error(backbone, rows, member, config) for member in MEMBERS)
    return PairErrors(chosen, rejected)
