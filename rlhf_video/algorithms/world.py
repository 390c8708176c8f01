"""What methods that only report rewards share: the settings they have in common, the model, and how clips are made."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from rlhf_video.algorithms.clip_maker import ClipMaker, clip_shape, sampler_shift, video_shape
from rlhf_video.algorithms.config_sections import FinalTestConfig, RewardTermConfig, SamplingConfig, ValidationConfig
from rlhf_video.algorithms.learner import LearnerConfig
from rlhf_video.algorithms.reported_rewards import ReportedRewards
from rlhf_video.algorithms.suites import Suites
from rlhf_video.attention import AttentionConfig
from rlhf_video.backbones import Conditioning, VideoBackbone, load_backbone
from rlhf_video.data import ClipSize, PromptSuite
from rlhf_video.errors import ConfigError
from rlhf_video.runtime import Distribution
from rlhf_video.validation import Clips, Comparison, GuardConfig, GuardReading, Scores, Validator, read_guards


class WorldConfig(LearnerConfig, Protocol):
    """What model, validation, card and report read of a method's config."""

    @property
    def backbone(self) -> str:
        """Model folder or Hub id."""
        ...

    @property
    def rewards(self) -> tuple[RewardTermConfig, ...]:
        """Rewards that are reported."""
        ...

    @property
    def judge(self) -> RewardTermConfig | None:
        """Score that decides the report's verdict."""
        ...

    @property
    def sampling(self) -> SamplingConfig:
        """Size of the clips, and the sampler of validation."""
        ...

    @property
    def attention(self) -> AttentionConfig:
        """Attention plan."""
        ...

    @property
    def validation(self) -> ValidationConfig:
        """Validation."""
        ...

    @property
    def guards(self) -> GuardConfig:
        """Alarms."""
        ...

    @property
    def test(self) -> FinalTestConfig:
        """Final comparison."""
        ...

    @property
    def precision(self) -> str:
        """Type of the frozen weights."""
        ...

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks are recomputed in the backward pass."""
        ...

    @property
    def licence(self) -> str:
        """Licence of the adapter."""
        ...

    @property
    def output_dir(self) -> Path:
        """Run directory."""
        ...


@dataclass(frozen=True)
class Validated:
    """One comparison with the base and what the guards said."""

    comparison: Comparison
    base_clips: Clips
    adapter_clips: Clips
    readings: tuple[GuardReading, ...]


class World:
    """The model, the scores and the prompts of a run, and how clips are made from them."""

    def __init__(
        self,
        config: WorldConfig,
        suites: Suites,
        reported: ReportedRewards,
        backbone: VideoBackbone,
        distribution: Distribution,
        *,
        at_base: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    ) -> None:
        """Put the parts together and encode every prompt once; the text encoder leaves memory.

        Args:
            config: The run.
            suites: Its prompts.
            reported: Its scores.
            backbone: Its model.
            distribution: Its processes.
            at_base: Entered around the base's clips, beside switching the adapter off.

        Raises:
            ConfigError: The clip size does not fit the backbone.
        """
        self.config, self.suites, self.reported = config, suites, reported
        self.backbone, self.distribution = backbone, distribution
        self.maker = ClipMaker(backbone, distribution, config.sampling, seed=config.seed, batch=config.validation.batch)
        self.shift = sampler_shift(config.sampling, backbone)
        self._at_base = at_base
        self.validator = self._validator(suites.validation, config.validation.clips_per_prompt, "validation")
        self.encode_prompts([prompt for suite in suites.all for prompt in suite.prompts])

    def encode_prompts(self, prompts: Sequence[str]) -> None:
        """Encode prompts, and what dropped ones become, ahead of their use."""
        for prompt in dict.fromkeys(prompts):
            self.backbone.encode_prompts([prompt, ""], self.config.sampling.negative_prompt)
        self.backbone.release_text_encoder()

    def condition(self, prompts: Sequence[str], dropped: Sequence[bool], *, instead: str = "") -> Conditioning:
        """Return the conditioning of a training batch.

        Args:
            prompts: One for each clip.
            dropped: Which clips train without it.
            instead: What they get.
        """
        return self.backbone.encode_prompts(
            [instead if drop else prompt for prompt, drop in zip(prompts, dropped, strict=True)]
        )

    def test_validator(self) -> Validator | None:
        """Return the comparison on the test prompts; None without test prompts."""
        suite = self.suites.test
        return None if suite is None else self._validator(suite, self.config.test.clips_per_prompt, "test")

    def score(self, clips: Clips) -> Scores:
        """Return every reported score of every clip."""
        batch, fps = self.config.validation.batch, self.backbone.spec.fps
        return self.reported.score(clips, fps=fps, batch=batch, device=self.backbone.device)

    def measure(self, validator: Validator) -> Validated:
        """Compare base and adapter; call it on every process."""
        comparison, clips = validator.compare()
        return Validated(comparison, validator.base()[0], clips, read_guards(comparison, self.config.guards))

    def _validator(self, suite: PromptSuite, clips_per_prompt: int, purpose: str) -> Validator:
        generate = self.maker.generator(suite.prompts, clips_per_prompt, purpose, at_base=self._at_base)
        return Validator(generate, self.score)


def check_windows(backbone: VideoBackbone, sizes: Iterable[ClipSize], *, field: str) -> None:
    """Refuse clips that the run's windows do not fit.

    Args:
        backbone: With its attention plan.
        sizes: Of all clips.
        field: Config field that names them.

    Raises:
        ConfigError: It names the size and the window.
    """
    plan = backbone.attention_plan
    if plan is None:
        return
    for size in sorted(set(sizes)):
        try:
            grid = backbone.token_grid(video_shape(size))
            plan.check(num_layers=backbone.num_layers, num_heads=backbone.num_heads, grid=grid)
        except ConfigError as error:
            raise ConfigError(f"{field}, clips with {size}: {error}") from error


def load_model(config: WorldConfig, distribution: Distribution) -> VideoBackbone:
    """Load a run's backbone in its precision, under its attention plan.

    Raises:
        BackboneError: The model cannot be loaded.
        ConfigError: The attention plan or the clip size does not fit it.
    """
    backbone = load_backbone(
        config.backbone,
        device=distribution.accelerator.device,
        dtype=getattr(torch, config.precision),
        text_length=config.sampling.text_length,
    )
    backbone.set_gradient_checkpointing(config.gradient_checkpointing)
    plan = backbone.plan_for(config.attention, clip_shape(config.sampling, 1))
    backbone.apply_attention(plan, backend=config.attention.backend)
    return backbone
