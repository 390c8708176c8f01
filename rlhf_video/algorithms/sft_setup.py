"""What fine-tuning and recovery need before their first step: prompts, scores, model, and how clips are made."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from rlhf_video.algorithms.clip_maker import ClipMaker, clip_shape, sampler_shift
from rlhf_video.algorithms.reported_rewards import ReportedRewards
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.suites import Suites, first_prompts
from rlhf_video.backbones import Conditioning, VideoBackbone, load_backbone
from rlhf_video.data import ListedClip, PromptSuite, load_prompts, read_clip_list
from rlhf_video.runtime import Distribution
from rlhf_video.validation import Clips, Comparison, GuardReading, Scores, Validator, read_guards


def load_suites(config: SftConfig) -> Suites:
    """Read the prompt files, or the prompts of the clips.

    Raises:
        DataError: A file is missing, empty or malformed, or two share a prompt.
        ConfigError: More prompts are asked for than there are.
    """
    if config.prompts.train is not None:
        train = load_prompts(config.prompts.train)
    else:
        assert config.data.train is not None
        train = clip_suite(config.data.train.stem, read_clip_list(config.data.train, field="data.train"))
    suites = Suites(
        train,
        first_prompts(load_prompts(config.prompts.validation), config.validation.num_prompts, "validation.num_prompts"),
        first_prompts(load_prompts(config.prompts.test), config.test.num_prompts, "test.num_prompts")
        if config.prompts.test is not None
        else None,
    )
    suites.check_disjoint()
    return suites


def clip_suite(name: str, clips: Sequence[ListedClip]) -> PromptSuite:
    """Return the prompts of listed clips as a suite; its hash is of all files' names and prompts."""
    lines = "\n".join(f"{clip.file.name}\t{clip.prompt}" for clip in clips)
    prompts = tuple(dict.fromkeys(clip.prompt for clip in clips))
    return PromptSuite(name, "1", prompts, hashlib.sha256(lines.encode()).hexdigest())


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
        config: SftConfig,
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


def open_world(config: SftConfig, distribution: Distribution) -> World:
    """Check what the user gave, cheapest first, then load the model.

    Raises:
        DataError, RewardError, BackboneError, ConfigError: From the four parts, in this order.
    """
    suites = load_suites(config)
    reported = ReportedRewards.build(config.rewards, config.judge, config.guards)
    backbone = load_backbone(
        config.backbone,
        device=distribution.accelerator.device,
        dtype=getattr(torch, config.precision),
        text_length=config.sampling.text_length,
    )
    backbone.set_gradient_checkpointing(config.gradient_checkpointing)
    plan = backbone.plan_for(config.attention, clip_shape(config.sampling, 1))
    backbone.apply_attention(plan, backend=config.attention.backend)
    # the base of recovery is the dense model; elsewhere base and adapter share one plan
    at_base = backbone.dense_attention if config.recovery is not None else contextlib.nullcontext
    return World(config, suites, reported, backbone, distribution, at_base=at_base)
