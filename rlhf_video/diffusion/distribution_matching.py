"""Distribution matching distillation (DMD, Yin et al. 2023, arXiv:2311.18828; DMD2, arXiv:2405.14867).

The gradient of the divergence between what the student makes and what the teacher would make is the difference of two
scores at a noised sample: that of the student's own distribution (fake) and the teacher's (real).
"""

import torch
from torch import Tensor


def matching_gradient(sample: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return the normalised DMD gradient (fake - real) / mean|sample - real| (arXiv:2311.18828, equations 7 and 8).

    Args:
        sample: The student's clean latents, shape (batch, ...).
        real: The teacher's clean estimate from the noised sample.
        fake: The fake score's clean estimate from the same noised sample.

    Returns:
        Shape of `sample`, float32, each item normalised by itself alone; 0 where the teacher would change nothing.
    """
    sample, real, fake = sample.detach().float(), real.detach().float(), fake.detach().float()
    scale = (sample - real).abs().flatten(1).mean(1).view(-1, *[1] * (sample.ndim - 1))
    return (fake - real) / torch.where(scale == 0, torch.inf, scale)


def matching_loss(sample: Tensor, gradient: Tensor) -> Tensor:
    """Return each item's 1/2 mean square of sample minus (sample - gradient), whose derivative is gradient / numel.

    Args:
        sample: Clean latents with a graph, shape (batch, ...).
        gradient: From `matching_gradient`.

    Returns:
        Shape (batch,), float64 as in Self-Forcing's code: the difference of two near numbers.
    """
    target = (sample.detach().double() - gradient.double()).detach()
    return 0.5 * (sample.double() - target).square().flatten(1).mean(1)
