"""Settings of supervised fine-tuning and of window recovery; every default names its source."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
from rlhf_video.algorithms.reported_rewards import check_keys
from rlhf_video.attention import AttentionConfig
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig
from rlhf_video.runtime import cut_equally
from rlhf_video.settings import check_range
from rlhf_video.validation import GuardConfig

RECOVERY_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""What recovery adapts: the attention projections (Radial attention, arXiv:2506.19852, adapts the same)."""


@dataclass(frozen=True, kw_only=True)
class SftPromptsConfig:
    """Disjoint prompt files (.txt, one a line, or .jsonl with {"prompt": ...})."""

    validation: Path
    """Prompts of clips that are compared with the base while training; never trained on."""
    test: Path | None = None
    """Prompts of the one final comparison; None leaves it out. Nothing is ever tuned on them."""
    train: Path | None = None
    """Prompts that recovery lets the dense model generate clips for; fine-tuning takes its clips' own prompts."""


@dataclass(frozen=True, kw_only=True)
class ClipDataConfig:
    """Clips to learn from; each is encoded once, its latents are kept."""

    train: Path | None = None
    """manifest.json as `generate.py` writes it, or a .jsonl file with {"file": ..., "prompt": ...} a line, files named
    relative to it; clips must have the sampling size unless batch.token_budget is set. Required unless there is a
    section `recovery`."""
    validation: Path | None = None
    """Held-out clips, listed alike: their loss is measured at fixed noise, for base and adapter. None leaves it out."""
    validation_levels: int = 4
    """Noise levels at which each held-out clip is measured: midpoints of as many equal parts of the training levels."""
    latents: Path | None = None
    """Folder of encoded clips, named by content, autoencoder, size and precision: runs may share one, at the same time.
    None keeps them in `latents` of the run directory."""

    def __post_init__(self) -> None:
        """Check the range."""
        check_range("data.validation_levels", self.validation_levels, least=1)


@dataclass(frozen=True, kw_only=True)
class SftOptimConfig(OptimConfig):
    """AdamW on the adapter."""

    learning_rate: float = 1e-4
    """1e-4 for rank 64 (2e-5 moves all weights of Wan: sliding-tile attention, arXiv:2502.04507); 1e-3 for sprites."""
    weight_decay: float = 1e-2
    """AdamW's own (arXiv:1711.05101)."""
    epsilon: float = 1e-8
    """Adam's own (arXiv:1412.6980)."""
    max_grad_norm: float = 1.0
    """Gradient clip over all adapter parameters."""


@dataclass(frozen=True, kw_only=True)
class ClipBatchConfig:
    """The batch of one optimiser step, over all processes."""

    global_clips: int = 8
    """Clips per optimiser step; unused where token_budget is set."""
    accumulation: int = 1
    """Pieces that each process cuts its share into; less memory, the same gradient."""
    token_budget: int | None = None
    """Where set, clips may have any size and length that the model takes; those of one size form a bucket, and a step
    trains as many clips of one bucket as have this many transformer tokens together: Training with Token Length
    (EasyAnimate, arXiv:2405.18991). Best a multiple of processes x the largest clip's tokens: where processes
    do not divide a step's clips, some compute a clip that is not counted. `--dry-run` prints the sampling size's."""

    def micro_batches(self, share: Sequence[int]) -> list[list[int]]:
        """Cut one process's share of the global batch into `accumulation` equal pieces.

        Raises:
            ConfigError: The share cannot be cut equally.
        """
        batch = f"batch.global_clips={self.global_clips}"
        return cut_equally(list(share), self.accumulation, batch=batch, items="clips")


@dataclass(frozen=True, kw_only=True)
class RecoveryConfig:
    """Distil the dense model into its own windowed form, on clips that it generates itself."""

    clips_per_prompt: int = 1
    """Clips that the dense base generates for each training prompt, once, before the first step."""
    states: Literal["renoised", "trajectory"] = "renoised"
    """What the model is compared on: generated clips noised anew at a random level, or the states that the sampler went
    through (all of them are kept on disk: num_steps times the space)."""
    attention_weight: float = 0.5
    """Factor on the mean over layers of the attention outputs' squared error, relative to the dense outputs' power
    (sliding-tile attention, arXiv:2502.04507: 0.5)."""
    flow_weight: float = 0.0
    """Factor on the flow-matching loss on the generated clips (sliding-tile attention has 1); needs states=renoised."""
    anneal_steps: int = 200
    """Optimiser steps over which windows spread from the middle layers outwards; 0 starts with all of them."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("recovery.clips_per_prompt", self.clips_per_prompt, least=1)
        check_range("recovery.attention_weight", self.attention_weight, least=0.0)
        check_range("recovery.flow_weight", self.flow_weight, least=0.0)
        check_range("recovery.anneal_steps", self.anneal_steps, least=0)
        if self.flow_weight > 0 and self.states == "trajectory":
            raise ConfigError(
                "recovery.flow_weight needs a clean clip and its noise: set recovery.states=renoised, or leave it 0."
            )


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Fine-tune a LoRA on given clips, or (section `recovery`) teach a model to work under windowed attention."""

    backbone: str
    """Model folder, for example "assets/sprite-wan" or a local copy of "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"."""
    prompts: SftPromptsConfig
    """Prompt files."""
    data: ClipDataConfig = field(default_factory=ClipDataConfig)
    """Clips."""
    recovery: RecoveryConfig | None = None
    """Where given, `attention` names windows and the dense base is the teacher; null fine-tunes on clips."""
    rewards: tuple[RewardTermConfig, ...] = ()
    """Rewards that are reported; none of them is trained on."""
    judge: RewardTermConfig | None = None
    """A further score that decides the report's verdict, for example a verifier that knows the truth."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Size of the clips, and the sampler of validation."""
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    """Attention plan of training and validation; the adapter's file keeps it."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapter."""
    noise_levels: NoiseLevelConfig = field(default_factory=NoiseLevelConfig)
    """Noise levels of training."""
    prompt_dropout: float = 0.1
    """Share of clips that train without their prompt, for guidance (arXiv:2207.12598, section 4: 0.1 or 0.2)."""
    ema_decay: float = 0.99
    """Decay of the averaged adapter that is validated and published; 0 publishes the last one."""
    optim: SftOptimConfig = field(default_factory=SftOptimConfig)
    """Optimiser."""
    batch: ClipBatchConfig = field(default_factory=ClipBatchConfig)
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
    """Type of the frozen weights. The adapter, latents, decoded pixels and rewards are float32 always."""
    gradient_checkpointing: bool = True
    """Recompute transformer blocks in the backward pass: one block's activations instead of all."""
    seed: int = 0
    """Decides adapter start, clip order, noise, noise levels and dropped prompts, on any number of processes."""
    licence: str = "apache-2.0"
    """Licence of the adapter, as a Hub identifier, for its card; it must fit those of the base and the clips."""
    output_dir: Path = Path("runs/sft")
    """Run directory."""

    def __post_init__(self) -> None:
        """Check what one section cannot see alone."""
        check_keys((*self.rewards, *([self.judge] if self.judge else [])))
        if not (self.rewards or self.judge or self.guards.enabled):
            raise ConfigError("Nothing would be reported: name rewards or a judge, or leave guards.enabled on.")
        if self.prompts.test is not None and self.prompts.test in (self.prompts.train, self.prompts.validation):
            raise ConfigError(
                f"prompts.test={self.prompts.test} is also a train or validation file: tests must be unseen."
            )
        self._check_kind()
        check_range("ema_decay", self.ema_decay, least=0.0, below=1.0)
        check_range("prompt_dropout", self.prompt_dropout, least=0.0, below=1.0)
        if self.batch.token_budget is not None:
            check_range("batch.token_budget", self.batch.token_budget, least=1)
        for name, value in (
            ("num_steps", self.num_steps),
            ("batch.global_clips", self.batch.global_clips),
            ("batch.accumulation", self.batch.accumulation),
            ("validation.every", self.validation.every),
            ("validation.clips_per_prompt", self.validation.clips_per_prompt),
            ("validation.batch", self.validation.batch),
            ("checkpoint.every", self.checkpoint.every),
            ("test.clips_per_prompt", self.test.clips_per_prompt),
        ):
            check_range(name, value, least=1)

    def resolved(self) -> "SftConfig":
        """Return the config with the targets that recovery adapts where `lora.targets` names none."""
        if self.recovery is None or self.lora.targets is not None:
            return self
        return replace(self, lora=replace(self.lora, targets=RECOVERY_TARGETS))

    def _check_kind(self) -> None:
        """Refuse a mixture of fine-tuning on clips and recovery."""
        if self.recovery is None:
            if self.data.train is None:
                raise ConfigError(
                    "data.train is missing: name a manifest.json of clips to learn from, or add a section `recovery`."
                )
            if self.prompts.train is not None:
                raise ConfigError("prompts.train is for recovery: fine-tuning takes the prompts of data.train's clips.")
            return
        if self.data.train is not None or self.data.validation is not None:
            raise ConfigError("recovery learns from clips that it generates: leave data.train and data.validation out.")
        if self.batch.token_budget is not None:
            raise ConfigError("recovery generates clips of one size: leave batch.token_budget out.")
        if self.prompts.train is None:
            raise ConfigError("recovery needs prompts.train: the dense model generates clips for them.")
        if self.attention.preset == "full" and self.attention.file is None:
            raise ConfigError(
                "recovery needs windows to recover from: set attention.preset (hybrid_middle, all_but_edges, "
                "local_shift, tile3) or attention.file."
            )
        if self.recovery.anneal_steps >= self.num_steps:
            raise ConfigError(
                f"recovery.anneal_steps={self.recovery.anneal_steps} leaves no step of num_steps={self.num_steps} "
                "under the whole plan: use about a fifth of them."
            )
