"""Settings of preference optimisation (Video-DPO); every default names its source."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlhf_video.algorithms.config_sections import (
    CheckpointConfig,
    FinalTestConfig,
    NoiseLevelConfig,
    OptimConfig,
    RewardTermConfig,
    SamplingConfig,
    ValidationConfig,
)
from rlhf_video.algorithms.dpo_loss import DpoLossConfig
from rlhf_video.algorithms.reported_rewards import check_keys
from rlhf_video.attention import AttentionConfig
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig
from rlhf_video.preferences import OVERALL
from rlhf_video.runtime import cut_equally
from rlhf_video.settings import check_range
from rlhf_video.validation import GuardConfig

MOST_DRAWS = 4
"""Draws of noise that one pair may have in one step: further ones cost as much as further pairs and teach less."""


@dataclass(frozen=True, kw_only=True)
class DpoPromptsConfig:
    """Prompt files (.txt, one a line, or .jsonl with {"prompt": ...}); none of them is among the trained pairs'."""

    validation: Path
    """Prompts of clips that are compared with the base while training."""
    test: Path | None = None
    """Prompts of the one final comparison; None leaves it out. Nothing is ever tuned on them."""


@dataclass(frozen=True, kw_only=True)
class DpoPairsConfig:
    """Preference pairs to learn from."""

    train: Path
    """.jsonl file of preference pairs, clips named relative to it."""
    validation: Path | None = None
    """Held-out pairs, written alike; None keeps `validation_share` of the training prompts back."""
    validation_share: float = 0.1
    """Share of the prompts of `train` that are held out where `validation` is None; 0 measures no held-out pair."""
    validation_draws: int = 8
    """Noise levels at which each held-out pair is measured: midpoints of as many equal parts of the training levels."""
    question: str = OVERALL
    """Whose answers are learned: "overall", or a dimension such as "motion_quality"."""
    ties: Literal["drop", "half"] = "drop"
    """What a tie is: nothing, or a label of 0.5, which pulls both clips' margins together."""
    use_segments: bool = True
    """Whether a pair that has labels of stretches learns from them, instead of from the whole clips' label."""
    check_hashes: bool = True
    """Whether every clip must still be the recorded file; reads each file once."""
    latents: Path | None = None
    """Folder of encoded clips, named by content, autoencoder, size and precision: runs may share one, at the same time.
    None keeps them in `latents` of the run directory."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("pairs.validation_share", self.validation_share, least=0.0, below=1.0)
        check_range("pairs.validation_draws", self.validation_draws, least=1)
        if not self.question.strip():
            raise ConfigError('pairs.question is empty: name a label of the pairs, for example "overall".')


@dataclass(frozen=True, kw_only=True)
class DpoReferenceConfig:
    """The frozen model that gains are measured against, and where training starts."""

    kind: Literal["adapter_off", "adapter", "merged"] = "adapter_off"
    """adapter_off: the base. adapter: the base with a frozen adapter. merged: `start_adapter` becomes part of the base,
    a fresh adapter is trained on top, and both are published as one."""
    start_adapter: Path | None = None
    """Adapter folder that training starts from, for example a fine-tuned one or an earlier round's; None starts at
    zero."""
    adapter: Path | None = None
    """Adapter folder of the reference for kind=adapter; None takes `start_adapter`."""
    fixed_draws: int | None = None
    """Draws of noise that a pair has in all, visited in turn; None draws anew at every visit."""
    cache: Path | None = None
    """Folder that keeps the reference's errors for later runs with the same data, model, seed and noise; needs
    `fixed_draws`. None computes them in every step."""

    def __post_init__(self) -> None:
        """Check what goes together."""
        if self.fixed_draws is not None:
            check_range("reference.fixed_draws", self.fixed_draws, least=1)
        if self.cache is not None and self.fixed_draws is None:
            raise ConfigError(
                "reference.cache keeps errors at noise that comes again: set reference.fixed_draws, for example 16."
            )
        if self.kind == "merged" and self.start_adapter is None:
            raise ConfigError("reference.kind=merged needs reference.start_adapter, the adapter to merge.")
        if self.kind == "adapter" and self.adapter is None and self.start_adapter is None:
            raise ConfigError(
                "reference.kind=adapter needs an adapter folder: set reference.adapter, or reference.start_adapter."
            )
        if self.kind != "adapter" and self.adapter is not None:
            raise ConfigError(f"reference.adapter belongs to reference.kind=adapter, not {self.kind}: leave it out.")


@dataclass(frozen=True, kw_only=True)
class DpoOptimConfig(OptimConfig):
    """AdamW on the adapter."""

    learning_rate: float = 1e-5
    """1e-5 for rank 64 at beta 500 (5e-6 to 5e-5; Flow-Factory: 1e-4 collapses)."""
    weight_decay: float = 1e-2
    """AdamW's own (arXiv:1711.05101)."""
    epsilon: float = 1e-8
    """Adam's own (arXiv:1412.6980)."""
    max_grad_norm: float = 1.0
    """Gradient clip over all adapter parameters."""
    warmup: int = 50
    """Optimiser steps of linear warm-up (Diffusion-DPO, arXiv:2311.12908: 500 of 2,000)."""


@dataclass(frozen=True, kw_only=True)
class PreferenceBatchConfig:
    """The batch of one optimiser step, over all processes."""

    global_pairs: int = 32
    """Pairs per optimiser step; unused where token_budget is set."""
    accumulation: int = 1
    """Pieces that each process cuts its share into; less memory, the same gradient."""
    token_budget: int | None = None
    """Where set, pairs may have any size and length that the model takes, both clips of a pair the same; pairs of one
    size form a bucket, and a step trains as many of one bucket as have this many transformer tokens together, both
    clips at every draw counted: Training with Token Length (EasyAnimate, arXiv:2405.18991)."""

    def micro_batches(self, share: Sequence[int]) -> list[list[int]]:
        """Cut one process's share of the global batch into `accumulation` equal pieces.

        Raises:
            ConfigError: The share cannot be cut equally.
        """
        batch = f"batch.global_pairs={self.global_pairs}"
        return cut_equally(list(share), self.accumulation, batch=batch, items="pairs")


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """Train a LoRA on preference pairs of clips."""

    backbone: str
    """Model folder, for example "assets/sprite-wan" or a local copy of "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"."""
    prompts: DpoPromptsConfig
    """Prompt files."""
    pairs: DpoPairsConfig
    """Preference pairs."""
    reference: DpoReferenceConfig = field(default_factory=DpoReferenceConfig)
    """Reference and start."""
    loss: DpoLossConfig = field(default_factory=DpoLossConfig)
    """Loss."""
    draws_per_pair: int = 2
    """Draws of (noise level, noise) that each pair has in each of its steps, 1 to 4; both clips share them."""
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)
    """Noise levels: the distribution that the model was trained with, shifted alike."""
    passes: Literal["joint", "two_pass"] = "joint"
    """joint keeps the activations of both clips; two_pass those of one, for one more forward pass, same gradient."""
    rewards: tuple[RewardTermConfig, ...] = ()
    """Rewards that are reported; none of them is trained on."""
    judge: RewardTermConfig | None = None
    """A further score that decides the report's verdict, for example a verifier that knows the truth."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Size of the clips and the sampler of validation; its shift is that of the noise levels too."""
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention plan of training and validation; the adapter's file keeps it."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapter."""
    ema_decay: float = 0.99
    """Decay of the averaged adapter that is validated and published; 0 publishes the last one."""
    optim: DpoOptimConfig = field(default_factory=DpoOptimConfig)
    """Optimiser."""
    batch: PreferenceBatchConfig = field(default_factory=PreferenceBatchConfig)
    """Batch."""
    num_steps: int = 1000
    """Optimiser steps."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation."""
    guards: GuardConfig = field(default_factory=GuardConfig)
    """Alarms: motion, saturation and diversity against the base."""
    test: FinalTestConfig = field(default_factory=FinalTestConfig)
    """Final comparison."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights. The adapter, latents, errors and rewards are float32 always."""
    gradient_checkpointing: bool = True
    """Recompute transformer blocks in the backward pass: one block's activations instead of all."""
    seed: int = 0
    """Decides adapter start, order of the pairs, noise and noise levels, on any number of processes."""
    licence: str = "apache-2.0"
    """Licence of the adapter, as a Hub identifier, for its card; it must fit those of the base and the clips."""
    output_dir: Path = Path("runs/dpo")
    """Run directory."""

    def __post_init__(self) -> None:
        """Check what one section cannot see alone."""
        check_keys((*self.rewards, *([self.judge] if self.judge else [])))
        if not (self.rewards or self.judge or self.guards.enabled):
            raise ConfigError("Nothing would be reported: name rewards or a judge, or leave guards.enabled on.")
        if self.loss.kind == "kto" and self.pairs.ties != "drop":
            raise ConfigError(
                f"pairs.ties={self.pairs.ties} makes a tie half a thumb up and half a thumb down for both clips, which "
                "teaches loss.kind=kto nothing: set pairs.ties=drop."
            )
        if self.pairs.validation is not None and self.pairs.validation == self.pairs.train:
            raise ConfigError(
                f"pairs.validation={self.pairs.validation} is also pairs.train: accuracy on trained pairs proves "
                "nothing; leave it out and set pairs.validation_share."
            )
        if not 1 <= self.draws_per_pair <= MOST_DRAWS:
            raise ConfigError(f"draws_per_pair={self.draws_per_pair} must be from 1 to {MOST_DRAWS}.")
        if self.batch.token_budget is not None:
            check_range("batch.token_budget", self.batch.token_budget, least=1)
        fixed = self.reference.fixed_draws
        if fixed is not None and fixed % self.draws_per_pair:
            raise ConfigError(
                f"reference.fixed_draws={fixed} must be a multiple of draws_per_pair={self.draws_per_pair}, for "
                f"example {max(fixed // self.draws_per_pair, 1) * self.draws_per_pair}."
            )
        check_range("ema_decay", self.ema_decay, least=0.0, below=1.0)
        for name, value in (
            ("num_steps", self.num_steps),
            ("batch.global_pairs", self.batch.global_pairs),
            ("batch.accumulation", self.batch.accumulation),
            ("validation.every", self.validation.every),
            ("validation.clips_per_prompt", self.validation.clips_per_prompt),
            ("validation.batch", self.validation.batch),
            ("checkpoint.every", self.checkpoint.every),
            ("test.clips_per_prompt", self.test.clips_per_prompt),
        ):
            check_range(name, value, least=1)
