"""Settings of reward backpropagation; every default names its source.

"Reference" below is EasyAnimate v3 (arXiv:2405.18991) and its published reward scripts unless another paper is named.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlhf_video.algorithms.config_sections import (
    CheckpointConfig,
    FinalTestConfig,
    OptimConfig,
    RewardTermConfig,
    SamplingConfig,
    ValidationConfig,
)
from rlhf_video.algorithms.gradient_estimators import EstimatorConfig
from rlhf_video.algorithms.reported_rewards import check_keys
from rlhf_video.attention import AttentionConfig
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig
from rlhf_video.runtime import cut_equally
from rlhf_video.settings import check_range
from rlhf_video.validation import GuardConfig, HeldOutStopConfig


@dataclass(frozen=True, kw_only=True)
class PromptsConfig:
    """Three disjoint prompt files (.txt, one a line, or .jsonl with {"prompt": ...})."""

    train: Path
    """Prompts that training samples from; 700 or more for a real model (reference: 701 of MovieGenVideoBench)."""
    validation: Path
    """Prompts for normalisation statistics, guards, early stop and the strength sweep; never trained on."""
    test: Path | None = None
    """Prompts of the one final comparison; None leaves it out. Nothing is ever tuned on them."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """Which pixels the trained rewards see, and how the gradient passes the edge of the range."""

    frames: Literal["whole", "first"] | tuple[int, ...] = "whole"
    """Latent frames decoded for the rewards: whole (chunk by chunk, at the memory of one), first (reference: with image
    rewards more frames cost motion), or a list of latent frame numbers."""
    clamp: Literal["hard", "straight_through"] = "hard"
    """hard: a pixel outside [0, 1] gets no gradient, as in every public script. straight_through: the value is clamped,
    the gradient passes, so burnt-out areas can recover."""
    cache_every: int = 1
    """Keep the decoder's cache at every n-th latent frame and recompute those between: less memory, one more decode."""
    cache_on_cpu: bool = False
    """Let kept caches wait in host memory."""


@dataclass(frozen=True, kw_only=True)
class PullConfig:
    """Velocity-space pull to the base model: what KL is to a language model, for a deterministic sampler."""

    weight: float = 0.0
    """Factor on the mean squared difference between the policy's and the base's velocity at each active step, on the
    same input. 0 costs nothing; above 0 costs one forward pass without gradient per active step, and one more
    forward and backward per active step but the first where the chain is not cut: the pull trains the parameters at the
    sampled states, its gradient does not go on to earlier steps."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("pull.weight", self.weight, least=0.0)


@dataclass(frozen=True, kw_only=True)
class DataAnchorConfig:
    """Plain flow-matching loss on given clips (forward KL; DDRL, arXiv:2512.04332): resists over-stylising."""

    weight: float = 0.0
    """Factor on the flow-matching loss; 0 turns it off."""
    manifest: Path | None = None
    """manifest.json as `generate.py` writes it (clips with their prompts); its clips must have the sampling size."""
    clips_per_step: int = 4
    """Clips per optimiser step, over all processes."""

    def __post_init__(self) -> None:
        """Check the ranges, and refuse an anchor without data."""
        check_range("data_anchor.weight", self.weight, least=0.0)
        check_range("data_anchor.clips_per_step", self.clips_per_step, least=1)
        if self.weight > 0 and self.manifest is None:
            raise ConfigError(
                "data_anchor.weight is above 0 but data_anchor.manifest is missing: name a manifest.json."
            )

    def check_share(self, num_processes: int) -> None:
        """Refuse clips that the processes cannot share equally.

        Raises:
            ConfigError: The anchor is on and `num_processes` does not divide `clips_per_step`.
        """
        if self.weight > 0 and self.clips_per_step % num_processes:
            raise ConfigError(
                f"data_anchor.clips_per_step={self.clips_per_step} cannot be shared equally by {num_processes} "
                f"processes: use a multiple of {num_processes}."
            )


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """The batch of one optimiser step, over all processes."""

    global_prompts: int = 8
    """Clips per optimiser step, one per prompt (reference: 8)."""
    accumulation: int = 1
    """Pieces that each process cuts its share into; less memory, the same gradient."""

    def micro_batches(self, share: Sequence[int]) -> list[list[int]]:
        """Cut one process's share of the global batch into `accumulation` equal pieces.

        Raises:
            ConfigError: The share cannot be cut equally.
        """
        batch = f"batch.global_prompts={self.global_prompts}"
        return cut_equally(list(share), self.accumulation, batch=batch, items="clips")


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Adapter-strength sweep on the validation prompts at the end."""

    scales: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
    """Strengths tried; the best held-out gain whose guards hold is recommended (reference: published adapters are best
    at 0.5 to 0.7). Empty leaves the sweep out and recommends 1."""

    def __post_init__(self) -> None:
        """Check the strengths now: they are used when training is over."""
        if not all(math.isfinite(scale) and scale >= 0 for scale in self.scales) or len(set(self.scales)) < len(
            self.scales
        ):
            raise ConfigError(
                f"sweep.scales={list(self.scales)} must be distinct numbers of 0 or more, for example [0.0, 0.5, 1.0]."
            )


@dataclass(frozen=True, kw_only=True)
class RewardBpConfig:
    """Reward backpropagation: fine-tune a LoRA by the gradient of rewards through the last sampling steps."""

    backbone: str
    """Model folder, for example "assets/sprite-wan" or a local copy of "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"."""
    prompts: PromptsConfig
    """Prompt files."""
    rewards: tuple[RewardTermConfig, ...]
    """Trained rewards, differentiable. Two kinds beat one (reference, HPS + MPS); a video reward keeps motion."""
    held_out: tuple[RewardTermConfig, ...] = ()
    """Rewards that are reported and that stop the run, never trained."""
    judge: RewardTermConfig | None = None
    """A further score that only reports, for example a verifier that knows the truth."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Sampler."""
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention plan of roll-out, training, validation and the base alike; the adapter's file keeps it."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapter."""
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    """How the gradient is estimated."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """What the rewards see."""
    pull: PullConfig = field(default_factory=PullConfig)
    """Pull to the base."""
    data_anchor: DataAnchorConfig = field(default_factory=DataAnchorConfig)
    """Loss on given clips."""
    ema_decay: float = 0.95
    """Decay of the averaged adapter that is validated and published; 0 publishes the last one. Reference: none."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """Batch."""
    num_steps: int = 1000
    """Optimiser steps (reference: 1 500 to 16 000)."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation."""
    guards: GuardConfig = field(default_factory=GuardConfig)
    """Alarms against reward hacking."""
    held_out_stop: HeldOutStopConfig = field(default_factory=HeldOutStopConfig)
    """Early stop when held-out falls while trained rises."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """Strength sweep."""
    test: FinalTestConfig = field(default_factory=FinalTestConfig)
    """Final comparison."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights. The adapter, the sampler's state, decoded pixels and rewards are float32 always."""
    gradient_checkpointing: bool = True
    """Recompute transformer blocks in the backward pass: one block's activations instead of all."""
    seed: int = 0
    """Decides adapter start, prompt order, active steps and noise, on any number of processes."""
    licence: str = "apache-2.0"
    """Licence of the adapter, as a Hub identifier, for its card; it must fit those of the base and the rewards."""
    output_dir: Path = Path("runs/reward_bp")
    """Run directory."""

    def __post_init__(self) -> None:
        """Check what one section cannot see alone."""
        if not self.rewards:
            raise ConfigError("rewards is empty: name at least one differentiable reward to train on.")
        terms = [*self.rewards, *self.held_out, *([self.judge] if self.judge else [])]
        check_keys(tuple(terms))
        if self.prompts.test in (self.prompts.train, self.prompts.validation):
            raise ConfigError(
                f"prompts.test={self.prompts.test} is also a train or validation file: tests must be unseen."
            )
        check_range("ema_decay", self.ema_decay, least=0.0, below=1.0)
        for name, value in (
            ("num_steps", self.num_steps),
            ("batch.global_prompts", self.batch.global_prompts),
            ("batch.accumulation", self.batch.accumulation),
            ("validation.every", self.validation.every),
            ("validation.clips_per_prompt", self.validation.clips_per_prompt),
            ("validation.batch", self.validation.batch),
            ("checkpoint.every", self.checkpoint.every),
            ("decode.cache_every", self.decode.cache_every),
            ("test.clips_per_prompt", self.test.clips_per_prompt),
        ):
            check_range(name, value, least=1)
