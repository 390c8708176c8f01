"""Several roles on one resident base: teacher, student and fake score, one forward pass at a time.

Three copies of a video model do not fit where one does. The base with its adapters off is the teacher, the policy's
adapter is the student, and a further adapter is the fake score (variational score distillation, arXiv:2305.16213). What
goes wrong elsewhere: a backward pass that runs after another adapter was switched on finds no gradient, or, with
gradient checkpointing, the gradient of the wrong adapter, without an error. Here losses are computed on a detached
copy of the student's sample, and `splice` hands their gradient to the student: exact, and the critics' graphs are freed
before the student's backward pass begins.
"""

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from rlhf_video.errors import AdapterError
from rlhf_video.lora.adapter import ADAPTER_NAME, Adaptable, adapter_layers
from rlhf_video.lora.switches import running

Role = Literal["teacher", "student", "fake"]
"""The base without adapters, the policy that is published, and the score of what the policy makes."""

FAKE = "fake"
"""Name of the fake score's adapter for `attach`."""

_ADAPTERS: dict[Role, str | None] = {"teacher": None, "student": ADAPTER_NAME, "fake": FAKE}


@contextlib.contextmanager
def role(backbone: Adaptable, name: Role) -> Iterator[None]:
    """Run as one of the roles inside; what ran before comes back, after an exception too.

    Raises:
        AdapterError: The role's adapter is not attached.
    """
    with running(backbone, _ADAPTERS[name]):
        yield


def leaf(sample: Tensor) -> Tensor:
    """Return a detached copy of the student's sample that collects the gradient of losses."""
    return sample.detach().requires_grad_()


def splice(backbone: Adaptable, sample: Tensor, collected: Tensor) -> Tensor:
    """Return a scalar whose backward pass gives the student exactly the gradient that a leaf has collected.

    Args:
        backbone: The model, in the student's role.
        sample: The student's sample, with its graph.
        collected: `leaf(sample)` after the backward passes of all losses.

    Returns:
        The inner product of sample and gradient; its value means nothing.

    Raises:
        AdapterError: The leaf has no gradient, the sample no graph, or another role is active.
    """
    if collected.grad is None or not sample.requires_grad:
        raise AdapterError("splice needs a sample with its graph and a leaf whose losses were back-propagated.")
    if any(
        layer.disable_adapters or ADAPTER_NAME not in layer.active_adapters for _, layer in adapter_layers(backbone)
    ):
        raise AdapterError("The student's backward pass runs in the student's role: leave `with role(...)` first.")
    return torch.sum(sample * collected.grad)
