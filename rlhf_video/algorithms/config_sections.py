"""Sections that the configs of several methods share; every default names its source.

"Reference" below is EasyAnimate v3 (arXiv:2405.18991) and its published reward scripts unless another paper is named.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from rewards.composite import Normalisation
from rlhf_video.settings import check_range


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How clips are sampled, in training and in validation alike."""

    num_frames: int = 81
    """Pixel frames, 4k + 1 for Wan. 81 is Wan 2.1's native length."""
    height: int = 256
    """Pixels. 256 x 256 transfers to larger sizes (reference: published adapters were trained so)."""
    width: int = 256
    """Pixels."""
    num_steps: int = 30
    """Denoising steps (reference: Wan 2.1 scripts, 30)."""
    guidance: float = 6.0
    """Classifier-free guidance scale (reference: 6.0); 1 runs no unconditional pass."""
    shift: float | None = None
    """Sigma shift; None takes the backbone's own."""
    text_length: int | None = None
    """Tokens that prompts are padded to; None takes the backbone's own."""
    negative_prompt: str = ""
    """What guidance moves away from (reference: the empty prompt)."""


@dataclass(frozen=True, kw_only=True)
class RewardTermConfig:
    """One reward by name."""

    name: str
    """Registry name (`rlhf-video rewards` lists them) or "package.module:Class"."""
    weight: float = 1.0
    """Share in the trained sum, after normalisation by the base mean and deviation; unused where not trained."""
    dimension: str | None = None
    """Which of the reward's dimensions; None takes the first when training, all when only reporting."""
    label: str | None = None
    """Name in metrics and tables; None takes `name`. Needed when one class is used twice."""
    options: dict[str, object] = field(default_factory=dict)
    """Arguments of the reward's class, for example {model: assets/sprite-clip}."""
    normalisation: Normalisation | None = None
    """Fixed statistics {mean, std, provenance} of a trained reward; None measures them on the base model's clips."""

    @property
    def key(self) -> str:
        """Name in metrics and tables."""
        return self.label or self.name.rsplit(":", 1)[-1]


class RateSchedule(Protocol):
    """Fields that decide the learning rate."""

    @property
    def learning_rate(self) -> float:
        """Peak."""
        ...

    @property
    def warmup(self) -> int:
        """Optimiser steps of linear warm-up."""
        ...

    @property
    def decay(self) -> Literal["cosine", "none"]:
        """What follows the warm-up."""
        ...


def scheduled_rate(schedule: RateSchedule, step: int, num_steps: int) -> float:
    """Return the learning rate of optimiser step 0, 1, ...; a pure function, so resuming needs no state."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / num_steps) if schedule.decay == "cosine" else 1.0
    return schedule.learning_rate * min(1.0, (step + 1) / max(schedule.warmup, 1)) * cosine


def may_change(fields: Sequence[str], schedule: RateSchedule) -> tuple[str, ...]:
    """Return the config fields that a resumed run may change: a rate that falls over the run fixes its length."""
    return tuple(field for field in fields if field != "num_steps" or schedule.decay == "none")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW on the adapter."""

    learning_rate: float = 1e-5
    """Reference: 1e-5 for rank 128; 5e-6 is safer on large models."""
    weight_decay: float = 3e-2
    """Reference: 3e-2."""
    beta1: float = 0.9
    """First-moment decay."""
    beta2: float = 0.999
    """Second-moment decay (reference: 0.999)."""
    epsilon: float = 1e-10
    """Reference: 1e-10, as reward gradients are small."""
    max_grad_norm: float = 0.3
    """Gradient clip over all adapter parameters (reference: 0.3)."""
    warmup: int = 0
    """Optimiser steps of linear warm-up."""
    decay: Literal["cosine", "none"] = "none"
    """Whether the rate falls to 0 along a half cosine over `num_steps`."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("optim.learning_rate", self.learning_rate, above=0.0)
        check_range("optim.weight_decay", self.weight_decay, least=0.0)
        check_range("optim.beta1", self.beta1, least=0.0, below=1.0)
        check_range("optim.beta2", self.beta2, least=0.0, below=1.0)
        check_range("optim.epsilon", self.epsilon, above=0.0)
        check_range("optim.max_grad_norm", self.max_grad_norm, above=0.0)
        check_range("optim.warmup", self.warmup, least=0)

    def rate_at(self, step: int, num_steps: int) -> float:
        """Return the learning rate of optimiser step 0, 1, ...; see `scheduled_rate`."""
        return scheduled_rate(self, step, num_steps)


@dataclass(frozen=True, kw_only=True)
class NoiseLevelConfig:
    """How noise levels are drawn; both kinds pass through the sampler's shift afterwards."""

    distribution: Literal["uniform", "logit_normal"] = "uniform"
    """uniform: as rectified flow. logit_normal: more levels in the middle, where the velocity is hardest to tell (Esser
    et al. 2024, arXiv:2403.03206, section 3.1)."""
    mean: float = 0.0
    """Of the logit, for logit_normal; above 0 prefers noisy levels."""
    deviation: float = 1.0
    """Of the logit, for logit_normal."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("noise_levels.mean", self.mean)
        check_range("noise_levels.deviation", self.deviation, above=0.0)


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Same prompts and noise for base and adapter (with EMA weights), intervals clustered by prompt."""

    every: int = 100
    """Optimiser steps between validations; the last step is always validated (reference: 100)."""
    num_prompts: int | None = None
    """First prompts of the validation file to use; None uses all."""
    clips_per_prompt: int = 2
    """Clips per prompt; 2 or more let the diversity guard work."""
    batch: int = 8
    """Clips per forward pass."""


@dataclass(frozen=True, kw_only=True)
class FinalTestConfig:
    """The one comparison on the test prompts, at the recommended strength."""

    clips_per_prompt: int = 4
    """Clips per prompt."""
    num_prompts: int | None = None
    """First prompts of the test file to use; None uses all."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state is written."""

    every: int = 50
    """Optimiser steps between checkpoints; the last step always writes one (reference: 100)."""
