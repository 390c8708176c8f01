"""One wrong guess of the clean clip, as an error of velocity, noise and v: the closed forms agree with arithmetic."""

import pytest
import torch
from torch import Tensor

from rlhf_video.diffusion.flow import interpolate, velocity_target
from rlhf_video.diffusion.prediction_errors import (
    PredictionError,
    flow_error_factor,
    squared_error,
    vp_error_factor,
    vp_target,
)


def noised() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return clean latents, noise, a guess of the clean latents, and the level of each of two clips."""
    clean, noise, guess = torch.randn(3, 2, 4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return clean, noise, guess, torch.tensor([0.3, 0.85], dtype=torch.float64)


def over(x: Tensor) -> Tensor:
    return x.view(-1, 1, 1, 1, 1)


@pytest.mark.parametrize("error", ["velocity", "epsilon", "v_prediction"])
def test_a_flow_models_errors_follow_from_its_velocity_error(error: PredictionError) -> None:
    clean, noise, guess, sigma = noised()
    noisy, level = interpolate(clean, noise, sigma), over(sigma)
    guessed_noise = (noisy - (1 - level) * guess) / level  # what goes with the guess of the clean latents
    velocity = squared_error(guessed_noise - guess, velocity_target(clean, noise))
    norm = ((1 - level) ** 2 + level**2).sqrt()
    as_vp = ((1 - level) * guessed_noise - level * guess) / norm
    alpha_bar = ((1 - sigma) / norm.view(-1)) ** 2
    expected = {
        "velocity": velocity,
        "epsilon": squared_error(guessed_noise, noise),
        "v_prediction": squared_error(as_vp, vp_target("v_prediction", clean, noise, alpha_bar)),
    }[error]
    torch.testing.assert_close(velocity * over(flow_error_factor(error, sigma)), expected, check_dtype=False)


def test_a_vp_models_v_error_is_its_noise_error_over_alpha_bar() -> None:
    clean, noise, guess, alpha_bar = noised()
    share = over(alpha_bar)
    guessed_noise = (share.sqrt() * clean + (1 - share).sqrt() * noise - share.sqrt() * guess) / (1 - share).sqrt()
    v = share.sqrt() * guessed_noise - (1 - share).sqrt() * guess
    v_error = squared_error(v, vp_target("v_prediction", clean, noise, alpha_bar))
    noise_error = squared_error(guessed_noise, vp_target("epsilon", clean, noise, alpha_bar))
    torch.testing.assert_close(noise_error * over(vp_error_factor(alpha_bar)), v_error, check_dtype=False)


def test_squares_are_taken_in_float32() -> None:
    predicted = torch.tensor([1.0, 1.0078125], dtype=torch.bfloat16)
    errors = squared_error(predicted, torch.zeros_like(predicted))
    assert errors.dtype == torch.float32
    assert errors.tolist() == [1.0, 1.0078125**2]
