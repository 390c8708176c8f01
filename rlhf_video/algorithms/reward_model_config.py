"""Settings of reward-model training; every default names its source."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rlhf_video.algorithms.config_sections import scheduled_rate
from rlhf_video.algorithms.preference_loss import PreferenceLossConfig
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig
from rlhf_video.preferences import OVERALL
from rlhf_video.runtime import cut_equally
from rlhf_video.settings import check_range


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Preference pairs, and how their prompts are dealt."""

    train: Path
    """Preference pairs (.jsonl, rlhf_video/preferences); its prompts are dealt by hash. Required."""
    validation: Path | None = None
    """Pairs of other prompts to measure accuracy on; null keeps `validation_share` of the prompts of `train`."""
    validation_share: float = 0.1
    """Share of the prompts of `train` that are only measured; unused where `validation` is given."""
    calibration_share: float = 0.1
    """Share of the prompts of `train` that only the calibration slope is fitted on; 0 leaves scores as they are."""
    check_hashes: bool = True
    """Compare every clip with its sha256 before training; missing clips are refused either way."""
    frames_per_clip: int | None = None
    """Random frames of a clip per training step, in order; null takes those that the reward asks for."""
    memory_gib: float = 1.0
    """Decoded clips kept in memory by each process, GiB."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("pairs.validation_share", self.validation_share, least=0.0, below=1.0)
        check_range("pairs.calibration_share", self.calibration_share, least=0.0, below=1.0)
        check_range("pairs.memory_gib", self.memory_gib, least=0.0)
        if self.frames_per_clip is not None:
            check_range("pairs.frames_per_clip", self.frames_per_clip, least=1)
        if self.validation is None and self.validation_share == 0:
            raise ConfigError("Nothing is left to validate on: name pairs.validation or raise pairs.validation_share.")
        if self.validation == self.train:
            raise ConfigError("pairs.validation is pairs.train: leave it out, and pairs.validation_share applies.")


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """AdamW, with a warm-up and a cosine or no decay."""

    learning_rate: float = 1e-5
    """Peak learning rate (PickScore fine-tuned CLIP-H at 3e-6 and HPSv2 at 3.3e-6; heads and LoRA bear 1e-4)."""
    weight_decay: float = 0.01
    """AdamW's own default."""
    beta1: float = 0.9
    """First-moment decay."""
    beta2: float = 0.999
    """Second-moment decay."""
    epsilon: float = 1e-8
    """AdamW's own default."""
    max_grad_norm: float = 1.0
    """Clip of the global gradient norm."""
    warmup: int = 0
    """Steps of linear warm-up."""
    decay: Literal["cosine", "none"] = "cosine"
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
class PairBatchConfig:
    """The batch of one optimiser step, over all processes."""

    global_pairs: int = 32
    """Pairs per optimiser step."""
    accumulation: int = 1
    """Pieces that each process cuts its share into; less memory, the same gradient."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("batch.global_pairs", self.global_pairs, least=1)
        check_range("batch.accumulation", self.accumulation, least=1)

    def micro_batches(self, share: range) -> list[range]:
        """Cut one process's share of the global batch into `accumulation` equal pieces.

        Raises:
            ConfigError: The share cannot be cut equally.
        """
        return cut_equally(share, self.accumulation, batch=f"batch.global_pairs={self.global_pairs}", items="pairs")


@dataclass(frozen=True, kw_only=True)
class PairValidationConfig:
    """When and how held-out pairs are scored, with the averaged weights."""

    every: int = 100
    """Optimiser steps between validations; the last step is always validated."""
    batch: int = 16
    """Clips per forward pass."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("validation.every", self.every, least=1)
        check_range("validation.batch", self.batch, least=1)


@dataclass(frozen=True, kw_only=True)
class RewardModelConfig:
    """Fit a reward on preference pairs."""

    reward: str
    """clip_preference, video_text, preference_head, or "package.module:Class" of a trainable reward. Required."""
    options: dict[str, object]
    """Arguments of its class; `model` names the folder that training starts from. Required."""
    pairs: PairsConfig
    """Preference pairs."""
    trains: Literal["head", "lora", "whole"] = "lora"
    """head: what reads the score off frozen features; lora: adapters in the towers, and the head; whole: everything."""
    questions: tuple[str, ...] = (OVERALL,)
    """Labels to learn. A reward with one score learns every question with it, another has one score per question."""
    loss: PreferenceLossConfig = field(default_factory=PreferenceLossConfig)
    """Likelihood of a label."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Adapter; targets null takes every Linear of the towers. It is merged into the published weights."""
    optim: FitConfig = field(default_factory=FitConfig)
    """Optimiser."""
    batch: PairBatchConfig = field(default_factory=PairBatchConfig)
    """Batch."""
    num_steps: int = 1000
    """Optimiser steps."""
    ema_decay: float = 0.0
    """Decay of the averaged weights that are validated and published; 0 publishes the last ones."""
    validation: PairValidationConfig = field(default_factory=PairValidationConfig)
    """Validation."""
    checkpoint_every: int = 100
    """Optimiser steps between checkpoints; the last step always writes one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Products of Linear layers in training; weights, everything between, and validation are float32 always."""
    seed: int = 0
    """Decides start of new weights, split, order and frames, on any number of processes."""
    licence: str = "apache-2.0"
    """Licence of the trained weights, as a Hub identifier, for the card; it must fit those of start and data."""
    output_dir: Path = Path("runs/reward_model")
    """Run directory; the reward appears in its folder `reward`."""

    def __post_init__(self) -> None:
        """Check what one section cannot see alone."""
        check_range("num_steps", self.num_steps, least=1)
        check_range("checkpoint_every", self.checkpoint_every, least=1)
        check_range("ema_decay", self.ema_decay, least=0.0, below=1.0)
        if not self.questions or len(set(self.questions)) < len(self.questions):
            raise ConfigError(f"questions={list(self.questions)} must name one or more distinct labels.")
        if "trainable" in self.options or "model" not in self.options:
            raise ConfigError("options must name the start folder as 'model', and leave 'trainable' to this program.")
