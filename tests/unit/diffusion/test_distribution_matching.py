"""DMD's gradient: zero where the scores agree, normalised clip by clip, and the derivative of its loss."""

import torch

from rlhf_video.diffusion.distribution_matching import matching_gradient, matching_loss

SHAPE = (3, 4, 2, 3, 3)


def draw(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_equal_scores_give_no_gradient() -> None:
    assert torch.equal(matching_gradient(draw(0), draw(1), draw(1)), torch.zeros(SHAPE))


def test_the_gradient_is_the_papers() -> None:
    sample, real, fake = draw(0), draw(1), draw(2)
    found = matching_gradient(sample, real, fake)
    for item in range(3):
        wanted = (fake[item] - real[item]) / (sample[item] - real[item]).abs().mean()
        torch.testing.assert_close(found[item], wanted)


def test_the_normaliser_does_not_depend_on_other_clips() -> None:
    sample, real, fake = draw(0), draw(1), draw(2)
    alone = matching_gradient(sample[:1], real[:1], fake[:1])
    assert torch.equal(matching_gradient(sample, real, fake)[:1], alone)


def test_the_losss_derivative_is_the_gradient_over_the_number_of_elements() -> None:
    sample = draw(0).requires_grad_()
    gradient = draw(1)
    matching_loss(sample, gradient).sum().backward()
    assert sample.grad is not None
    torch.testing.assert_close(sample.grad, gradient / sample[0].numel(), rtol=1e-5, atol=1e-8)


def test_a_sample_that_the_teacher_would_not_change_gives_zero_not_nan() -> None:
    sample = draw(0)
    assert torch.equal(matching_gradient(sample, sample, sample), torch.zeros(SHAPE))
    assert torch.isfinite(matching_gradient(sample, sample, draw(1))).all()
