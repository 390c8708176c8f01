"""Settings of causal few-step distillation: warm-up, distribution matching, and adversarial self-distillation.

"SF" below is Self-Forcing (arXiv:2506.08009) and its code, "ASD" adversarial self-distillation (arXiv:2511.01419).
"""

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
from rlhf_video.algorithms.discriminator import DiscriminatorConfig
from rlhf_video.algorithms.reported_rewards import check_keys
from rlhf_video.algorithms.reward_bp_config import DecodeConfig, PromptsConfig
from rlhf_video.algorithms.sft_config import ClipBatchConfig
from rlhf_video.attention import AttentionConfig
from rlhf_video.attention.causal_layout import CausalLayout
from rlhf_video.backbones.causal_rollout import RolloutConfig
from rlhf_video.diffusion.step_plan import StepPlan, StepSchedule
from rlhf_video.errors import ConfigError
from rlhf_video.lora import LoraConfig
from rlhf_video.settings import check_range
from rlhf_video.validation import GuardConfig


@dataclass(frozen=True, kw_only=True)
class StepsConfig:
    """How many calls a chunk gets."""

    trained: tuple[int, ...] = (1, 2, 3, 4)
    """Numbers of steps n; each optimiser step draws one of them, the same for all processes (ASD: 1 to 4)."""
    first_chunk: int | None = 4
    """Least steps of the first chunk, in training and in inference (First-Frame Enhancement, ASD section 3.3; training
    with it is One-Forcing's finding, arXiv:2605.23458); null treats all chunks alike."""
    schedule: StepSchedule = "skip"
    """skip: n levels spread over the whole range; prefix: the first n of the longest list (SF's random exit)."""
    exit: Literal["last", "random"] = "last"
    """Which call of a chunk is trained: the last of n, or a random one, the same for all chunks and processes (SF). A
    random one ends the chunk, the first one too: the sample is then not what n steps give."""
    validated: int = 2
    """Number of steps that validation and the guards look at."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not self.trained or min(self.trained) < 1 or len(set(self.trained)) != len(self.trained):
            raise ConfigError(f"steps.trained={list(self.trained)}: name different numbers of at least 1.")
        if self.validated not in self.trained:
            raise ConfigError(f"steps.validated={self.validated} is not one of steps.trained={list(self.trained)}.")
        if self.first_chunk is not None:
            check_range("steps.first_chunk", self.first_chunk, least=1)

    def plan(self, num_steps: int, *, shift: float, enhanced: bool = True) -> StepPlan:
        """Return the noise levels for a number of steps.

        Args:
            num_steps: Calls of a chunk.
            shift: Sigma shift.
            enhanced: Whether the first chunk gets its extra steps.
        """
        return StepPlan.of(
            num_steps,
            shift=shift,
            first_chunk_steps=self.first_chunk if enhanced else None,
            schedule=self.schedule,
            longest=self.longest,
        )

    @property
    def longest(self) -> int:
        """Calls of the list that "prefix" cuts short: one list for all chunks, with first-chunk help and without."""
        return max(*self.trained, self.first_chunk or 1)


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """Make the bidirectional base causal before distillation: the student learns the teacher's own sampling paths."""

    kind: Literal["trajectory", "teacher_forcing"] = "trajectory"
    """trajectory: from any state of the teacher's ODE to its end, few-step from the start (CausVid's ODE
    initialisation, arXiv:2412.07772, section 4.3). teacher_forcing: flow matching on the teacher's clips."""
    clips_per_prompt: int = 1
    """Clips that the teacher generates for each training prompt, once, before the first step; all their states are kept
    for "trajectory"."""
    first_state_share: float = 0.35
    """Share of chunks that start from pure noise, where one-step students live; the others from a random state."""
    context_noise: float = 0.0
    """Highest noise level of the clean chunks that later ones see: a student's own past is not perfect."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("warmup.clips_per_prompt", self.clips_per_prompt, least=1)
        check_range("warmup.first_state_share", self.first_state_share, least=0.0)
        if self.first_state_share > 1 or not 0 <= self.context_noise < 1:
            raise ConfigError("warmup.first_state_share lies in [0, 1], warmup.context_noise in [0, 1).")


@dataclass(frozen=True, kw_only=True)
class ContinuationConfig:
    """Learn to go on beyond the run's own length, on given longer clips (`continuation.py`)."""

    clips: Path
    """manifest.json as `generate.py` writes it, or a .jsonl file with {"file": ..., "prompt": ...} a line."""
    num_frames: int
    """Pixel frames of these clips; more than sampling.num_frames."""
    weight: float = 1.0
    """Factor on the loss."""
    first_state_share: float = 0.4
    """Share of chunks that start from pure noise, where few-step students live."""
    own_past_share: float = 0.5
    """Share of chunks whose past is the student's own estimate (scheduled sampling, arXiv:1506.03099)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("continuation.weight", self.weight, above=0.0)
        check_range("continuation.first_state_share", self.first_state_share, least=0.0)
        check_range("continuation.own_past_share", self.own_past_share, least=0.0)
        if self.first_state_share > 1 or self.own_past_share > 1:
            raise ConfigError("continuation.first_state_share and own_past_share lie in [0, 1].")


@dataclass(frozen=True, kw_only=True)
class MatchingConfig:
    """Distribution matching: the anchor that keeps the student with the teacher."""

    weight: float = 1.0
    """Factor on the loss."""
    guidance: float = 4.0
    """Guidance scale of the teacher (SF: 3.0 in its own convention, which is 4.0 in the usual one)."""
    convention: Literal["unconditional", "conditional"] = "unconditional"
    """unconditional: u + g (c - u), the usual one; conditional: c + g (c - u), SF's."""
    min_sigma: float = 0.02
    """Least noise level, after the shift (SF: 20 of 1000)."""
    max_sigma: float = 0.98
    """Highest noise level, after the shift (SF: 980 of 1000)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("matching.weight", self.weight, least=0.0)
        if not 0 <= self.min_sigma < self.max_sigma <= 1:
            raise ConfigError(
                f"matching.min_sigma={self.min_sigma} and max_sigma={self.max_sigma} must rise within [0, 1]."
            )

    @property
    def usual_guidance(self) -> float:
        """The scale in the convention of `VideoBackbone.velocity`."""
        return self.guidance + (self.convention == "conditional")


@dataclass(frozen=True, kw_only=True)
class FakeScoreConfig:
    """The fake score: an adapter on the same base that learns what the student makes."""

    rank: int = 128
    """Rank (LongLive 1.0: 256 for generator and critic, 2.0: 128)."""
    learning_rate: float = 2e-6
    """Rate (LongLive: a fifth of the generator's)."""
    updates: int = 5
    """Updates for each of the student's (SF: 5)."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("fake.rank", self.rank, least=1)
        check_range("fake.learning_rate", self.learning_rate, above=0.0)
        check_range("fake.updates", self.updates, least=1)


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """The adversarial term; weight 0 is plain self-forcing with distribution matching, bit for bit."""

    weight: float = 0.0
    """Factor (ASD's table: 10, then 20, then 30 are better than 0; it depends on how losses are reduced: watch
    grad/adversarial_ratio, 0.1 to 1 is usual)."""
    real: Literal["student", "teacher", "data"] = "student"
    """What the n-step sample is told apart from: the student's own n+1 steps (ASD), clips of the teacher, or given
    clips (One-Forcing, FastGen), for every n."""
    clips: Path | None = None
    """The given clips of real=data: manifest.json, or a .jsonl file; they have the sampling size, and the run
    samples their prompts in place of prompts.train."""
    features: Literal["teacher", "fake"] = "teacher"
    """Whose hidden states the discriminator reads; the frozen teacher's do not move under it."""
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    """Heads."""
    learning_rate: float = 1e-5
    """Rate of the heads (One-Forcing: 1e-5)."""
    penalty: float = 20.0
    """Factor on the approximate R1 and R2 penalties (AAD-1: 20; ASD: 600)."""
    penalty_deviation: float = 0.05
    """Perturbation of the penalties (ASD: 0.05)."""
    shares_level: bool = True
    """Whether both inputs are noised to one level; ASD draws two, SF and FastGen share."""
    shares_noise: bool = False
    """Whether both inputs get one noise."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_range("adversarial.weight", self.weight, least=0.0)
        check_range("adversarial.learning_rate", self.learning_rate, above=0.0)
        check_range("adversarial.penalty", self.penalty, least=0.0)
        check_range("adversarial.penalty_deviation", self.penalty_deviation, above=0.0)
        if (self.real == "data") != (self.clips is not None):
            raise ConfigError("adversarial.clips goes with adversarial.real=data: name both, or neither.")


@dataclass(frozen=True, kw_only=True)
class RewardTermsConfig:
    """Reward backpropagation on the few-step student; distillation stays the regulariser."""

    weight: float = 0.0
    """Factor on the negative mean reward; 0 trains on none."""
    terms: tuple[RewardTermConfig, ...] = ()
    """Differentiable rewards; each needs its normalisation {mean, std}."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Which latent frames are decoded for them."""

    def __post_init__(self) -> None:
        """Refuse a weight without rewards, or terms without statistics."""
        check_range("reward.weight", self.weight, least=0.0)
        if self.weight > 0 and not self.terms:
            raise ConfigError("reward.weight is above 0 but reward.terms names no reward.")
        if missing := [term.key for term in self.terms if term.normalisation is None]:
            raise ConfigError(
                f"reward.terms: {', '.join(missing)} lack normalisation {{mean, std, provenance}}: train_reward_bp.py "
                "measures and prints it."
            )


@dataclass(frozen=True, kw_only=True)
class DistillOptimConfig(OptimConfig):
    """AdamW on the student's adapter."""

    learning_rate: float = 1e-5
    """LoRA runs use 5 to 10 times the 2e-6 of full tuning (LongLive 1.0: 1e-5)."""
    beta1: float = 0.0
    """SF: 0, as GANs; the critics have the same."""
    weight_decay: float = 0.01
    """SF: 0.01."""
    epsilon: float = 1e-8
    """Adam's own (arXiv:1412.6980)."""
    max_grad_norm: float = 10.0
    """SF: 10."""


@dataclass(frozen=True, kw_only=True)
class AsdConfig:
    """Distil a bidirectional video model into a causal few-step one: one base, every role an adapter."""

    backbone: str
    """Model folder, for example "assets/sprite-wan" or a local copy of "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"."""
    prompts: PromptsConfig
    """Prompt files; no clips are needed."""
    init: Path | None = None
    """Adapter folder that the student starts from, of this rank or a smaller one: a causal warm-up, or another stage.
    Null starts from the base, which is not causal: only a warm-up should."""
    causal: CausalLayout = field(default_factory=lambda: CausalLayout(chunk_frames=3))
    """Chunks, window and sink of the student, in latent frames."""
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """How chunks are denoised and remembered."""
    steps: StepsConfig = field(default_factory=StepsConfig)
    """How many calls a chunk gets."""
    warmup: WarmupConfig | None = None
    """Where given, the run is the causal warm-up; null distils."""
    continuation: ContinuationConfig | None = None
    """Where given, warm-up and distillation alike learn to go on beyond the length of `sampling`; null does not."""
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    """Distribution matching."""
    fake: FakeScoreConfig = field(default_factory=FakeScoreConfig)
    """Fake score."""
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    """Adversarial term."""
    reward: RewardTermsConfig = field(default_factory=RewardTermsConfig)
    """Rewards that are trained on beside distillation."""
    rewards: tuple[RewardTermConfig, ...] = ()
    """Rewards that are reported; none of them is trained on."""
    judge: RewardTermConfig | None = None
    """A further score that decides the report's verdict, for example a verifier that knows the truth."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Size of the clips, and the sampler of the teacher; its shift is the student's too."""
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    """Windows of the student inside its causal attention; the teacher is dense."""
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(rank=128, alpha=128.0))
    """Student's adapter; causality and few steps need a high rank (LongLive: 128 to 256)."""
    ema_decay: float = 0.99
    """Decay of the averaged adapter that is validated and published (SF: 0.99 from step 200)."""
    optim: DistillOptimConfig = field(default_factory=DistillOptimConfig)
    """Optimiser."""
    batch: ClipBatchConfig = field(default_factory=ClipBatchConfig)
    """Batch; `token_budget` has no meaning here."""
    num_steps: int = 600
    """Optimiser steps of the student (SF: 600)."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation."""
    guards: GuardConfig = field(default_factory=GuardConfig)
    """Alarms: motion, saturation and diversity against the teacher."""
    test: FinalTestConfig = field(default_factory=FinalTestConfig)
    """Final comparison."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen weights. Adapters, latents, decoded pixels and rewards are float32 always."""
    gradient_checkpointing: bool = True
    """Recompute transformer blocks in the backward pass: one block's activations instead of all."""
    seed: int = 0
    """Decides adapter start, prompt order, noise, levels and numbers of steps, on any number of processes."""
    licence: str = "apache-2.0"
    """Licence of the adapter, as a Hub identifier, for its card; it must fit that of the base."""
    output_dir: Path = Path("runs/asd")
    """Run directory."""

    def __post_init__(self) -> None:
        """Check what one section cannot see alone."""
        check_keys((*self.rewards, *([self.judge] if self.judge else [])))
        if not (self.rewards or self.judge or self.guards.enabled):
            raise ConfigError("Nothing would be reported: name rewards or a judge, or leave guards.enabled on.")
        if self.batch.token_budget is not None:
            raise ConfigError("batch.token_budget: distillation makes clips of one size, set batch.global_clips.")
        if self.warmup is None and self.matching.weight == 0 and self.adversarial.weight == 0:
            raise ConfigError("Nothing would be learned: matching.weight and adversarial.weight are 0.")
        self._check_adversary()
        if self.rollout.context_noise and not self.rollout.recache:
            raise ConfigError(
                f"rollout.context_noise={self.rollout.context_noise} is for the call that reads a finished chunk into "
                "the cache, and rollout.recache is false: leave one of the two out."
            )
        if self.continuation is not None and not self.rollout.recache:
            raise ConfigError(
                "continuation reads finished chunks into the cache, and rollout.recache is false: what it teaches is "
                "not what such a roll-out sees. Set rollout.recache: true, or leave continuation out."
            )
        if self.continuation is not None and self.continuation.num_frames <= self.sampling.num_frames:
            raise ConfigError(
                f"continuation.num_frames={self.continuation.num_frames} must exceed "
                f"sampling.num_frames={self.sampling.num_frames}: what is shorter is learned by the run itself."
            )
        check_range("ema_decay", self.ema_decay, least=0.0, below=1.0)
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

    def _check_adversary(self) -> None:
        if self.adversarial.weight == 0 or self.adversarial.real != "student":
            return
        if self.steps.exit == "random":
            raise ConfigError(
                "adversarial.real=student compares samples of n steps with those of more, and steps.exit=random ends "
                "them earlier: set steps.exit=last."
            )
        if len(self.steps.trained) == 1:
            raise ConfigError(
                f"adversarial.real=student compares n with more steps, and steps.trained={list(self.steps.trained)} "
                "has one number alone: add one, or set adversarial.real=teacher or data."
            )
