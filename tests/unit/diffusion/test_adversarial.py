"""Relativistic losses and finite-difference penalties against their closed forms."""

import math

import pytest
import torch

from rlhf_video.diffusion.adversarial import (
    finite_difference_penalty,
    relativistic_discriminator_loss,
    relativistic_student_loss,
)


def test_equal_logits_cost_log_two_and_roles_are_mirrored() -> None:
    real, fake = torch.tensor([0.3, -1.0]), torch.tensor([0.3, 2.0])
    assert float(relativistic_discriminator_loss(real, fake)[0]) == pytest.approx(math.log(2))
    assert torch.equal(relativistic_discriminator_loss(real, fake), relativistic_student_loss(fake, real))
    assert relativistic_discriminator_loss(real, fake)[1] > relativistic_student_loss(real, fake)[1]


def test_a_constant_discriminator_has_no_penalty() -> None:
    assert finite_difference_penalty(torch.ones(3), torch.ones(3), deviation=0.05).tolist() == [0.0] * 3


def test_the_penalty_of_a_linear_discriminator_is_its_squared_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.tensor([1.0, -2.0, 0.5])
    points = torch.zeros(40_000, 3)
    moved = points + 1e-3 * torch.randn(points.shape, generator=generator)
    penalty = finite_difference_penalty(points @ weight, moved @ weight, deviation=1e-3)
    assert float(penalty.mean()) == pytest.approx(float(weight.square().sum()), rel=0.03)
