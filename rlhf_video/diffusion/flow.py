"""Rectified flow: the straight line from clean latents to noise (Liu et al. 2022, arXiv:2209.03003).

`sigma` is 0 for clean latents and 1 for pure noise; the velocity points from clean to noise, as in Wan and in
diffusers' `FlowMatchEulerDiscreteScheduler`.
"""

from torch import Tensor


def expand_sigma(sigma: Tensor, latents: Tensor) -> Tensor:
    """Return sigma in a shape that broadcasts against latents.

    Args:
        sigma: Noise level in [0, 1]; scalar, (batch,) or (batch, latent_frames).
        latents: Latents, shape (batch, channels, latent_frames, latent_height, latent_width).

    Raises:
        ValueError: sigma has more than two dimensions.
    """
    if sigma.ndim == 0:
        return sigma
    if sigma.ndim == 1:
        return sigma.view(-1, 1, 1, 1, 1)
    if sigma.ndim == 2:
        return sigma.view(sigma.shape[0], 1, sigma.shape[1], 1, 1)
    raise ValueError(f"sigma has shape {tuple(sigma.shape)}: use a scalar, (batch,) or (batch, latent_frames).")


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Return the noised latents (1 - sigma) * clean + sigma * noise.

    Args:
        clean: Clean latents, shape (batch, channels, latent_frames, latent_height, latent_width).
        noise: Standard normal noise of the same shape.
        sigma: Noise level in [0, 1]; scalar, (batch,) or (batch, latent_frames).
    """
    level = expand_sigma(sigma, clean)
    return (1 - level) * clean + level * noise


def velocity_target(clean: Tensor, noise: Tensor) -> Tensor:
    """Return the velocity noise - clean that the model learns; the same at every sigma."""
    return noise - clean


def velocity_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error of each clip's velocity in float32, shape (batch,).

    With `velocity_target` as the target it is the flow-matching loss (Lipman et al. 2022, arXiv:2210.02747).
    """
    return (predicted.float() - target.float()).square().flatten(1).mean(dim=1)
