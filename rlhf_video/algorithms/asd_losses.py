"""The student's losses, each clip's, on a detached copy of its sample that collects their gradient."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rewards import registry
from rewards.base import require_differentiable
from rewards.composite import RewardTerm, WeightedReward
from rlhf_video.algorithms.asd_config import AsdConfig, RewardTermsConfig
from rlhf_video.algorithms.asd_critics import Adversary
from rlhf_video.algorithms.asd_draws import Batch, Draws
from rlhf_video.algorithms.reward_objective import RewardObjective
from rlhf_video.backbones import Conditioning
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.diffusion.adversarial import relativistic_student_loss
from rlhf_video.diffusion.distribution_matching import matching_gradient, matching_loss
from rlhf_video.diffusion.flow import expand_sigma, interpolate
from rlhf_video.lora.roles import role

if TYPE_CHECKING:
    from rlhf_video.algorithms.asd_setup import AsdParts


def matching_terms(
    config: AsdConfig, parts: "AsdParts", draws: Draws, batch: Batch, collected: Tensor, cond: Conditioning
) -> Tensor:
    """Return the weighted distribution-matching loss of each clip, shape (batch,)."""
    sigma = draws.levels(batch, "matching")
    noised = interpolate(collected.detach(), draws.noise(batch, "matching"), sigma)
    fake = parts.fake.estimate(noised, sigma, cond)
    with torch.no_grad(), role(parts.backbone, "teacher"):
        guidance = config.matching.usual_guidance
        real = noised - expand_sigma(sigma, noised) * parts.backbone.velocity(noised, sigma, cond, guidance=guidance)
    return config.matching.weight * matching_loss(collected, matching_gradient(collected, real, fake))


def student_adversarial_loss(
    config: AsdConfig,
    adversary: Adversary,
    inputs: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    cond: Conditioning,
    num_steps: int,
) -> Tensor:
    """Return the weighted adversarial loss of each clip, shape (batch,); the real side has no graph.

    Args:
        config: The run.
        adversary: Its heads get no gradient from this loss where only that of the latents is asked for.
        inputs: (noised latents, levels) of what plays real, and of the student's sample.
        cond: Encoded prompts.
        num_steps: n.
    """
    (noised_real, real_sigma), (noised, sigma) = inputs
    real_logits = adversary.logits(noised_real, real_sigma, cond, num_steps, grad=False).detach()
    logits = adversary.logits(noised, sigma, cond, num_steps, grad=True)
    return config.adversarial.weight * relativistic_student_loss(real_logits, logits)


class RewardLoss:
    """Zoo rewards as a loss on the student's samples."""

    def __init__(self, config: RewardTermsConfig, backbone: WanBackbone) -> None:
        """Build the rewards.

        Raises:
            RewardError: A name or an option is unknown, weights are missing, or a reward has no gradient.
        """
        terms = []
        for entry in config.terms:
            reward = registry.build(entry.name, **entry.options)
            require_differentiable(reward, key=entry.key, dimension=entry.dimension)
            terms.append(
                RewardTerm(
                    key=entry.key,
                    reward=reward,
                    weight=entry.weight,
                    dimension=entry.dimension,
                    normalisation=entry.normalisation,
                )
            )
        self._weight = config.weight
        self._objective = RewardObjective(backbone, WeightedReward(terms), config.decode)

    def loss(self, collected: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the weighted negative reward of each clip, shape (batch,), with its gradient for the latents."""
        found = self._objective.gradient(collected, prompts)
        inner = (collected * found.gradient).flatten(1).sum(1)
        values = found.output.values["total"].detach()
        # the value is the reward's, the derivative the decoder's and the reward's together
        return -self._weight * (values + inner - inner.detach())
