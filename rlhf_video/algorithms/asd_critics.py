"""The critics of distillation, beside the student on one base: fake score, and discriminator heads."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_video.algorithms.asd_config import AsdConfig
from rlhf_video.algorithms.discriminator import Discriminator, block_outputs
from rlhf_video.backbones import Conditioning
from rlhf_video.backbones.wan import WanBackbone
from rlhf_video.diffusion.adversarial import finite_difference_penalty, relativistic_discriminator_loss
from rlhf_video.diffusion.flow import expand_sigma, interpolate, velocity_error, velocity_target
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig, adapter_state, attach, load_adapter_state
from rlhf_video.lora.roles import FAKE, role
from rlhf_video.runtime import Distribution


class FakeScore:
    """An adapter that learns, by flow matching, the distribution of what the student makes."""

    def __init__(self, config: AsdConfig, backbone: WanBackbone, distribution: Distribution) -> None:
        """Attach it; it starts as the teacher.

        Args:
            config: The run.
            backbone: With the student attached.
            distribution: The processes.
        """
        self._backbone, self._distribution, self._config = backbone, distribution, config
        lora = LoraConfig(rank=config.fake.rank, alpha=float(config.fake.rank), targets=config.lora.targets)
        parameters = attach(backbone, lora, seed=config.seed + 1, name=FAKE)
        self.optimizer = _adamw(config, parameters, config.fake.learning_rate)
        distribution.prepare(backbone, self.optimizer)

    def estimate(self, noised: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Return the fake score's clean estimate, without gradient; arguments as `VideoBackbone.velocity`."""
        with torch.no_grad(), role(self._backbone, "fake"):
            return noised - expand_sigma(sigma, noised) * self._backbone.velocity(noised, sigma, cond)

    def errors(self, clean: Tensor, noise: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        """Return each clip's flow-matching error, with its graph; call `backward` on it outside."""
        with role(self._backbone, "fake"):
            velocity = self._backbone.velocity(interpolate(clean, noise, sigma), sigma, cond)
        return velocity_error(velocity, velocity_target(clean, noise))

    def step(self) -> Tensor:
        """Finish an update after its backward passes; return the gradient norm before clipping.

        Raises:
            ConfigError: The gradient is not finite.
        """
        return _step(self._config, self._distribution, self.optimizer, "fake")

    def state(self) -> dict[str, Any]:
        """Return adapter and optimiser for a checkpoint."""
        optimizer = self._distribution.optimizer_state(self.optimizer)
        return {"adapter": adapter_state(self._backbone, name=FAKE), "optimizer": optimizer}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        load_adapter_state(self._backbone, state["adapter"], name=FAKE)
        self._distribution.load_optimizer_state(self.optimizer, state["optimizer"])


class Adversary:
    """Discriminator heads on hidden states that they do not train."""

    def __init__(self, config: AsdConfig, backbone: WanBackbone, distribution: Distribution) -> None:
        """Make the heads.

        Args:
            config: The run.
            backbone: With all adapters attached.
            distribution: The processes.
        """
        self._config, self._backbone, self._distribution = config, backbone, distribution
        (self._transformer,) = backbone.transformers.values()
        model: Any = self._transformer
        self.heads = Discriminator(
            config.adversarial.discriminator,
            num_blocks=backbone.num_layers,
            width=int(model.config.num_attention_heads * model.config.attention_head_dim),
            num_logits=max(config.steps.trained),
            seed=config.seed,
        ).to(backbone.device)
        self.optimizer = _adamw(config, list(self.heads.parameters()), config.adversarial.learning_rate)
        distribution.prepare(backbone, self.optimizer)

    def logits(self, noised: Tensor, sigma: Tensor, cond: Conditioning, num_steps: int, *, grad: bool) -> Tensor:
        """Return the logit of a number of steps for noised latents, shape (batch,).

        Args:
            noised: Latents at level sigma.
            sigma: Shape (batch,).
            cond: Encoded prompts.
            num_steps: Which logit.
            grad: Whether the gradient for `noised` is wanted; the hidden states have none otherwise.
        """
        read_by = role(self._backbone, self._config.adversarial.features)
        with torch.set_grad_enabled(grad), read_by, block_outputs(self._transformer, self.heads.blocks) as features:
            self._backbone.velocity(noised, sigma, cond)
        logits: Tensor = self.heads(features)[:, num_steps - 1]
        return logits

    def losses(
        self,
        real: tuple[Tensor, Tensor],
        fake: tuple[Tensor, Tensor],
        perturbations: tuple[Tensor, Tensor],
        cond: Conditioning,
        num_steps: int,
    ) -> dict[str, Tensor]:
        """Return the discriminator's loss of each clip and what it is made of, each of shape (batch,).

        Args:
            real: Noised latents and their levels.
            fake: The same of the student's n-step samples.
            perturbations: Standard normal noise for the two penalties; unused where their factor is 0.
            cond: Encoded prompts.
            num_steps: n.

        Returns:
            "loss", "real" and "fake" logits, and "penalty" where there is one.
        """
        settings = self._config.adversarial
        found = [self.logits(noised, sigma, cond, num_steps, grad=False) for noised, sigma in (real, fake)]
        losses = {"real": found[0], "fake": found[1], "loss": relativistic_discriminator_loss(*found)}
        if settings.penalty > 0:
            deviation, penalties = settings.penalty_deviation, []
            for (noised, sigma), logits, noise in zip((real, fake), found, perturbations, strict=True):
                moved = self.logits(noised + deviation * noise, sigma, cond, num_steps, grad=False)
                penalties.append(finite_difference_penalty(logits, moved, deviation=deviation))
            losses["penalty"] = penalties[0] + penalties[1]
            losses["loss"] = losses["loss"] + settings.penalty * losses["penalty"]
        return losses

    def step(self) -> Tensor:
        """Finish an update after its backward passes; return the gradient norm before clipping.

        Raises:
            ConfigError: The gradient is not finite.
        """
        return _step(self._config, self._distribution, self.optimizer, "adversarial")

    def state(self) -> dict[str, Any]:
        """Return heads and optimiser for a checkpoint."""
        heads = {name: value.detach().cpu().clone() for name, value in self.heads.state_dict().items()}
        return {"heads": heads, "optimizer": self._distribution.optimizer_state(self.optimizer)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.heads.load_state_dict(state["heads"])
        self._distribution.load_optimizer_state(self.optimizer, state["optimizer"])


def _adamw(config: AsdConfig, parameters: Sequence[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    optim = config.optim
    betas = (optim.beta1, optim.beta2)
    return torch.optim.AdamW(parameters, lr=rate, betas=betas, eps=optim.epsilon, weight_decay=optim.weight_decay)


def _step(config: AsdConfig, distribution: Distribution, optimizer: torch.optim.Optimizer, section: str) -> Tensor:
    """Take a critic's step; one that is no number would silence the student's loss, so it ends the run."""
    norm = distribution.finish_step(optimizer, config.optim.max_grad_norm)
    if not torch.isfinite(norm):
        raise ConfigError(
            f"The gradient of the critic '{section}' is {float(norm)}: lower {section}.learning_rate, and start in "
            "another output_dir (the last checkpoint is intact)."
        )
    return norm
