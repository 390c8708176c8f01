"""Two ways to the same gradient of a loss over pairs: both members at once, or one member's activations at a time.

A loss of pairs couples its members only through their errors: dL = dL/de(w) de(w) + dL/de(l) de(l). Once both errors
are known, the two factors are plain numbers, and the members can be back-propagated one after the other. That costs one
forward pass without gradient more, and halves the activations that are alive.

With F a forward and B a backward pass of one member: joint 2F + 2B, two passes 3F + 2B; a reference that is not cached
adds 2F to either.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from rlhf_video.algorithms.dpo_loss import PairErrors

Objective = Callable[[PairErrors], Tensor]
"""Errors of a micro-batch -> its scalar share of the step's loss."""


class Backward(Protocol):
    """`Distribution.backward`."""

    def __call__(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of a scalar; `last` where the optimiser step comes next."""
        ...


def joint_backward(
    chosen_error: Callable[[], Tensor],
    rejected_error: Callable[[], Tensor],
    objective: Objective,
    backward: Backward,
    *,
    last: bool,
) -> PairErrors:
    """Back-propagate a micro-batch of pairs in one backward pass, with the activations of both members alive.

    Args:
        chosen_error: Runs the model on the chosen clips and returns their errors, shape (rows, segments).
        rejected_error: The same for the rejected clips, at the same noise.
        objective: The loss of both errors.
        backward: Takes the loss; called once.
        last: Whether the optimiser step comes next.

    Returns:
        Both errors, detached.
    """
    errors = PairErrors(chosen_error(), rejected_error())
    backward(objective(errors), last=last)
    return PairErrors(*(error.detach() for error in errors))


def two_pass_backward(
    chosen_error: Callable[[], Tensor],
    rejected_error: Callable[[], Tensor],
    objective: Objective,
    backward: Backward,
    *,
    last: bool,
) -> PairErrors:
    """Back-propagate a micro-batch of pairs one member at a time: the gradient of `joint_backward`, half the memory.

    The callables must be deterministic (no dropout): the rejected clips are run twice. Arguments and result are those
    of `joint_backward`; `backward` is called twice, and only its second call can be the last.
    """
    with torch.no_grad():
        rejected_known = rejected_error()
    chosen = chosen_error()
    known = PairErrors(chosen.detach(), rejected_known)
    chosen_weight, rejected_weight = error_weights(objective, known)
    backward((chosen_weight * chosen).sum(), last=False)
    del chosen  # what its backward did not free would live through the next forward pass
    backward((rejected_weight * rejected_error()).sum(), last=last)
    return known


def error_weights(objective: Objective, errors: PairErrors) -> PairErrors:
    """Return the gradient of an objective with respect to both errors, detached; zeros where it does not use one."""
    leaves = [error.detach().requires_grad_() for error in errors]
    with torch.enable_grad():
        loss = objective(PairErrors(*leaves))
    return PairErrors(*torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))
