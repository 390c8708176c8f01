import pytest
import torch
from torch import Tensor

from rlhf_video.diffusion.flow import expand_sigma, interpolate, velocity_target
from rlhf_video.diffusion.samplers import rollout, sample
from rlhf_video.diffusion.sigmas import flow_sigmas

SHAPE = (2, 3, 4, 2, 2)


@pytest.mark.parametrize("sigma_shape", [(), (2,), (2, 4)])
def test_clean_latents_follow_from_the_true_velocity(sigma_shape: tuple[int, ...]) -> None:
    clean, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    sigma = torch.rand(sigma_shape)
    recovered = interpolate(clean, noise, sigma) - expand_sigma(sigma, clean) * velocity_target(clean, noise)
    torch.testing.assert_close(recovered, clean, rtol=0, atol=1e-5)


def test_ends_of_the_line_are_clean_and_noise() -> None:
    clean, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    assert torch.equal(interpolate(clean, noise, torch.tensor(0.0)), clean)
    assert torch.equal(interpolate(clean, noise, torch.tensor(1.0)), noise)


def test_per_frame_sigma_noises_each_frame_alone() -> None:
    clean, noise = torch.zeros(SHAPE), torch.ones(SHAPE)
    sigma = torch.tensor([[0.0, 0.25, 0.5, 1.0]]).repeat(2, 1)
    assert torch.equal(interpolate(clean, noise, sigma)[0, 0, :, 0, 0], sigma[0])


def test_sigma_of_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="use a scalar"):
        interpolate(torch.zeros(SHAPE), torch.zeros(SHAPE), torch.zeros(2, 4, 1))


def test_sampling_a_straight_flow_is_exact_in_any_number_of_steps() -> None:
    clean, noise = torch.randn(SHAPE), torch.randn(SHAPE)
    for num_steps in (1, 7):
        result = sample(lambda x, sigma: noise - clean, noise, flow_sigmas(num_steps, 3.0))
        torch.testing.assert_close(result, clean, rtol=0, atol=1e-5)


def test_rollout_ends_where_sample_ends_and_keeps_every_input() -> None:
    noise = torch.randn(SHAPE)
    seen: list[Tensor] = []

    def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
        seen.append(latents)
        return torch.tanh(latents) * sigma

    sigmas = flow_sigmas(5)
    trajectory = rollout(velocity, noise, sigmas)
    assert len(trajectory) == 6
    assert all(a is b for a, b in zip(seen, trajectory, strict=False))
    assert torch.equal(trajectory[-1], sample(velocity, noise, sigmas))
    assert not trajectory[-1].requires_grad


def test_gradient_comes_only_through_the_chosen_steps() -> None:
    weights = torch.ones(4, requires_grad=True)
    sigmas = flow_sigmas(4)
    index = {round(float(sigma), 5): step for step, sigma in enumerate(sigmas[:-1])}

    def velocity(latents: Tensor, sigma: Tensor) -> Tensor:
        return latents * weights[index[round(float(sigma), 5)]]

    sample(velocity, torch.ones(SHAPE), sigmas, grad_steps=(1, 3)).sum().backward()
    assert weights.grad is not None
    assert (weights.grad != 0).tolist() == [False, True, False, True]
    assert not sample(velocity, torch.ones(SHAPE), sigmas).requires_grad
