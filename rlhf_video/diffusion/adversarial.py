"""Relativistic adversarial losses and their zero-centred penalties (R3GAN, Huang et al. 2024, arXiv:2501.05441)."""

from torch import Tensor
from torch.nn import functional


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return softplus(fake - real) of paired logits, unreduced: small where the real one scores higher."""
    return functional.softplus(fake - real)


def relativistic_student_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return softplus(real - fake) of paired logits, unreduced: small where the student's sample scores higher."""
    return functional.softplus(real - fake)


def finite_difference_penalty(logits: Tensor, perturbed: Tensor, *, deviation: float) -> Tensor:
    """Return the approximate R1 or R2 penalty, unreduced (APT, arXiv:2501.08316: without a second derivative).

    As the deviation goes to 0 it becomes, in expectation over the perturbation, the squared norm of the logit's
    gradient.

    Args:
        logits: At the samples.
        perturbed: At the samples plus normal noise of that deviation.
        deviation: Of the noise, > 0.
    """
    return ((perturbed - logits) / deviation).square()
