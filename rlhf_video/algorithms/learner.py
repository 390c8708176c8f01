"""The trainable side of a run: adapter, optimiser, average, and what a checkpoint holds of them."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from rlhf_video.algorithms.config_sections import OptimConfig
from rlhf_video.backbones import VideoBackbone
from rlhf_video.errors import ConfigError
from rlhf_video.lora import Ema, LoraConfig, attach
from rlhf_video.runtime import Distribution

AdapterState = dict[str, Tensor]


class LearnerConfig(Protocol):
    """What the learner reads of a method's config."""

    @property
    def lora(self) -> LoraConfig:
        """Adapter."""
        ...

    @property
    def optim(self) -> OptimConfig:
        """Optimiser."""
        ...

    @property
    def num_steps(self) -> int:
        """Optimiser steps of the run."""
        ...

    @property
    def ema_decay(self) -> float:
        """Decay of the average, in [0, 1)."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the adapter's start."""
        ...


class Learner:
    """Adapter, AdamW and exponential moving average, on one process or many."""

    def __init__(
        self,
        config: LearnerConfig,
        backbone: VideoBackbone,
        distribution: Distribution,
        *,
        advice: str = "Lower optim.learning_rate",
    ) -> None:
        """Attach a fresh adapter and prepare it for the processes of the run.

        Args:
            config: The run.
            backbone: The model; it has no adapter yet.
            distribution: The processes.
            advice: What to do when a gradient is not finite.
        """
        self.config, self.backbone, self.distribution = config, backbone, distribution
        self._advice = advice
        optim = config.optim
        optimizer = torch.optim.AdamW(
            attach(backbone, config.lora, seed=config.seed),
            lr=optim.learning_rate,
            betas=(optim.beta1, optim.beta2),
            eps=optim.epsilon,
            weight_decay=optim.weight_decay,
        )
        self.optimizer = distribution.prepare(backbone, optimizer)
        self.ema = self._fresh_ema()

    def _fresh_ema(self) -> Ema:
        return Ema(self.distribution.parameters(self.optimizer), self.config.ema_decay)

    def step(self, step: int) -> Tensor:
        """Finish an optimiser step after its backward passes; return the gradient norm before clipping.

        Raises:
            ConfigError: The gradient is not finite; the last checkpoint is intact.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optim.rate_at(step, self.config.num_steps)
        norm = self.distribution.finish_step(self.optimizer, self.config.optim.max_grad_norm)
        if not torch.isfinite(norm):
            raise ConfigError(
                f"The gradient of step {step} is {float(norm)}. {self._advice}, and start in another output_dir (the "
                "last checkpoint is intact)."
            )
        self.ema.update()
        return norm

    def published(self) -> AdapterState:
        """Return the averaged adapter, whole, on the CPU; call it on every process."""
        with self.ema.swapped():
            return self.distribution.full_adapter_state(self.backbone)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Make the adapter and its average what `published` returned."""
        self.distribution.load_adapter_state(self.backbone, state)
        self.ema = self._fresh_ema()

    def state(self) -> dict[str, object]:
        """Return adapter, average and optimiser for a checkpoint; call it on every process."""
        return {
            "adapter": self.distribution.full_adapter_state(self.backbone),
            "ema": self.published(),
            "optimizer": self.distribution.optimizer_state(self.optimizer),
        }

    def load_state(self, state: Mapping[str, object]) -> None:
        """Restore what `state` returned.

        Raises:
            ConfigError: The checkpoint belongs to another adapter or another kind of distribution.
        """
        # A fresh average starts at the parameters: so they are first the average, then themselves.
        self.distribution.load_adapter_state(self.backbone, cast(AdapterState, state["ema"]))
        self.ema = self._fresh_ema()
        self.distribution.load_adapter_state(self.backbone, cast(AdapterState, state["adapter"]))
        self.distribution.load_optimizer_state(self.optimizer, cast(dict[str, Any], state["optimizer"]))


class StepMetrics:
    """Means over all clips of an optimiser step, on all processes."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    def add(self, name: str, values: Tensor | float) -> None:
        """Count values; NaN (a masked clip) is left out."""
        numbers = torch.as_tensor(values, dtype=torch.float64).detach().flatten().cpu()
        numbers = numbers[~numbers.isnan()]
        self._sums[name] = self._sums.get(name, 0.0) + float(numbers.sum())
        self._counts[name] = self._counts.get(name, 0.0) + len(numbers)

    def means(self, distribution: Distribution) -> dict[str, float]:
        """Return the mean of every name, NaN where nothing was counted; call it on every process, same names."""
        device = distribution.accelerator.device
        table = torch.tensor([list(self._sums.values()), list(self._counts.values())], dtype=torch.float32)
        sums, counts = distribution.gather(table[None].to(device)).sum(dim=0).tolist()
        return {
            name: total / count if count else float("nan")
            for name, total, count in zip(self._sums, sums, counts, strict=True)
        }
