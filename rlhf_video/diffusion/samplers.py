"""Euler sampling of the probability-flow ODE, with a window of steps that keep their gradient.

A velocity function takes latents of shape (batch, channels, latent_frames, latent_height, latent_width) and a scalar
sigma, and returns the velocity of the same shape.
"""

import itertools
from collections.abc import Callable, Collection

import torch
from torch import Tensor

VelocityFunction = Callable[[Tensor, Tensor], Tensor]


def euler_step(latents: Tensor, velocity: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    """Return the latents at the next noise level, latents + (next_sigma - sigma) * velocity.

    The same arithmetic as `FlowMatchEulerDiscreteScheduler.step`, in the precision of `latents` (keep them float32).
    """
    return latents + (next_sigma - sigma) * velocity


def sample(velocity: VelocityFunction, noise: Tensor, sigmas: Tensor, *, grad_steps: Collection[int] = ()) -> Tensor:
    """Integrate from noise to clean latents.

    Args:
        velocity: The model, see the module text.
        noise: Standard normal latents, shape (batch, channels, latent_frames, latent_height, latent_width).
        sigmas: Decreasing levels ending in 0, shape (num_steps + 1,).
        grad_steps: Indices of the steps whose velocity is computed with gradient; the others are constants of the
            graph (the Jacobian of their network call is dropped, the straight path x + dt * v is kept).

    Returns:
        Clean latents, shape of `noise`.
    """
    latents = noise
    for step, (sigma, next_sigma) in enumerate(itertools.pairwise(sigmas)):
        with torch.set_grad_enabled(torch.is_grad_enabled() and step in grad_steps):
            predicted = velocity(latents, sigma)
        latents = euler_step(latents, predicted, sigma, next_sigma)
    return latents


@torch.no_grad()
def rollout(velocity: VelocityFunction, noise: Tensor, sigmas: Tensor) -> list[Tensor]:
    """Integrate without gradient and keep every latent on the way.

    Args:
        velocity: The model, see the module text.
        noise: Standard normal latents, shape (batch, channels, latent_frames, latent_height, latent_width).
        sigmas: Decreasing levels ending in 0, shape (num_steps + 1,).

    Returns:
        num_steps + 1 latents: the noise, the input of every later step, and last the clean latents.
    """
    trajectory = [noise]
    for sigma, next_sigma in itertools.pairwise(sigmas):
        latents = trajectory[-1]
        trajectory.append(euler_step(latents, velocity(latents, sigma), sigma, next_sigma))
    return trajectory
