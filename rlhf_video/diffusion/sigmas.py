"""Noise-level schedules, equal to those of diffusers' flow-match Euler scheduler."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rlhf_video.errors import ConfigError

NUM_TRAIN_TIMESTEPS = 1000
"""Wan's transformer reads `timestep = 1000 * sigma`."""


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1 by the resolution shift of SD3 (Esser et al. 2024, arXiv:2403.03206, section 5.3.2).

    Args:
        sigma: Noise levels in [0, 1], any shape.
        shift: Factor > 0; 1 changes nothing, Wan uses 3 at 480p and 5 at 720p.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_sigmas(num_steps: int, shift: float = 1.0) -> Tensor:
    """Return the decreasing noise levels of a sampler, bit-equal to `FlowMatchEulerDiscreteScheduler.set_timesteps`.

    The scheduler shifts twice: once when it derives its smallest level from 1000 training steps, once more on the
    evenly spaced levels between that and 1. Kept, because the published samples of Wan were made so.

    Args:
        num_steps: Number of sampler steps N, >= 1.
        shift: Resolution shift > 0.

    Returns:
        Levels, shape (N + 1,), float32 on the CPU, from 1 down to a final 0.

    Raises:
        ConfigError: num_steps or shift is not positive.
    """
    if num_steps < 1:
        raise ConfigError(f"num_steps={num_steps}: a sampler needs at least one step.")
    if shift <= 0:
        raise ConfigError(f"shift={shift}: the sigma shift must be positive; 1 means no shift.")
    training = torch.linspace(1, NUM_TRAIN_TIMESTEPS, NUM_TRAIN_TIMESTEPS).flip(0) / NUM_TRAIN_TIMESTEPS
    shifted = shift_sigma(training, shift)
    timesteps = np.linspace(
        shifted[0].item() * NUM_TRAIN_TIMESTEPS, shifted[-1].item() * NUM_TRAIN_TIMESTEPS, num_steps
    )
    levels = timesteps / NUM_TRAIN_TIMESTEPS
    levels = shift * levels / (1 + (shift - 1) * levels)
    return torch.cat([torch.from_numpy(levels).to(torch.float32), torch.zeros(1)])


def sigmas_from(level: float, sigmas: Tensor) -> Tensor:
    """Return the part of a schedule that denoises from a level: the level itself, then every lower one.

    Args:
        level: Noise level to start from, in (0, 1].
        sigmas: Decreasing levels ending in 0, shape (num_steps + 1,).

    Returns:
        Decreasing levels from `level` to 0, shape (k + 1,), 1 <= k <= num_steps + 1.
    """
    return torch.cat([sigmas.new_tensor([level]), sigmas[sigmas < level]])


def random_sigma(
    generator: torch.Generator,
    distribution: Literal["uniform", "logit_normal"] = "uniform",
    *,
    mean: float = 0.0,
    deviation: float = 1.0,
) -> Tensor:
    """Draw a noise level for training, before the shift.

    Args:
        generator: A CPU generator.
        distribution: Uniform in [0, 1), or logit-normal (Esser et al. 2024, arXiv:2403.03206, section 3.1).
        mean: Of the logit, for logit_normal.
        deviation: Of the logit, for logit_normal, > 0.

    Returns:
        Scalar in [0, 1].
    """
    if distribution == "uniform":
        return torch.rand((), generator=generator)
    return torch.sigmoid(mean + deviation * torch.randn((), generator=generator))


def sigma_quantiles(
    num_levels: int,
    distribution: Literal["uniform", "logit_normal"] = "uniform",
    *,
    mean: float = 0.0,
    deviation: float = 1.0,
) -> Tensor:
    """Return the midpoints of equally likely parts of what `random_sigma` draws, shape (num_levels,), ascending."""
    share = (torch.arange(num_levels) + 0.5) / num_levels
    if distribution == "uniform":
        return share
    return torch.sigmoid(mean + deviation * torch.special.ndtri(share))
