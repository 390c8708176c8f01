"""Squared errors of what a diffusion model predicts, and the closed forms that turn one into another.

Rectified flow: z = (1 - sigma) x + sigma e, the model predicts the velocity u = e - x. At fixed z an error d of u is
an error (1 - sigma) d of e.

Variance preserving (VP): z = a x + s e with a^2 = alpha_bar and s^2 = 1 - alpha_bar, the model predicts the noise e, or
v = a e - s x (Salimans & Ho 2022, arXiv:2202.00512). At fixed z an error d of e is an error d / a of v. A flow model is
a VP model of the same signal-to-noise ratio once z is divided by sqrt((1 - sigma)^2 + sigma^2).
"""

from typing import Literal

import torch
from torch import Tensor

PredictionError = Literal["velocity", "epsilon", "v_prediction"]
"""Which error: of the flow's velocity, of the noise, or of VP's v."""


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the squared difference in float32, unreduced: bf16 would lose the small differences that DPO compares."""
    return (predicted.float() - target.float()).square()


def flow_error_factor(error: PredictionError, sigma: Tensor) -> Tensor:
    """Return what a flow model's squared velocity error is multiplied by to be another squared error.

    velocity: 1; epsilon: (1 - sigma)^2; v_prediction: (1 - sigma)^2 + sigma^2, the v error of the VP model with the
    same signal-to-noise ratio (its alpha_bar is (1 - sigma)^2 divided by that factor).

    Args:
        error: The wanted error.
        sigma: Noise level in [0, 1], any shape.
    """
    if error == "velocity":
        return torch.ones_like(sigma)
    if error == "epsilon":
        return (1 - sigma) ** 2
    return (1 - sigma) ** 2 + sigma**2


def vp_error_factor(alpha_bar: Tensor) -> Tensor:
    """Return 1 / alpha_bar: what a VP model's squared noise error is multiplied by to be its squared v error.

    Args:
        alpha_bar: Share of signal variance in (0, 1], any shape.
    """
    return 1 / alpha_bar


def vp_target(error: Literal["epsilon", "v_prediction"], clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return what a VP model should predict.

    Args:
        error: "epsilon" for the noise, "v_prediction" for sqrt(alpha_bar) noise - sqrt(1 - alpha_bar) clean.
        clean: Clean latents, shape (batch, channels, latent_frames, latent_height, latent_width).
        noise: Standard normal noise of the same shape.
        alpha_bar: Share of signal variance in [0, 1], shape (batch,).
    """
    if error == "epsilon":
        return noise
    share = alpha_bar.view(-1, 1, 1, 1, 1)
    return share.sqrt() * noise - (1 - share).sqrt() * clean
