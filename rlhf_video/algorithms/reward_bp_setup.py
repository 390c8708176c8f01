"""What a reward-backpropagation run needs before its first step: prompts, rewards, model, and how clips are made."""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewards import registry
from rewards.base import Reward, require_differentiable
from rewards.composite import Normalisation, RewardTerm, WeightedReward
from rlhf_video.algorithms.gradient_estimators import Velocity, choose_steps
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig, RewardTermConfig
from rlhf_video.algorithms.reward_objective import RewardObjective
from rlhf_video.backbones import VideoBackbone, VideoShape, load_backbone
from rlhf_video.backbones.chunked_decode import check_frames
from rlhf_video.data import PromptSuite, load_prompts, sha256_file
from rlhf_video.diffusion.samplers import sample
from rlhf_video.diffusion.sigmas import flow_sigmas
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.lora import adapter_off, adapter_scale
from rlhf_video.runtime import Distribution, generator_for
from rlhf_video.validation import (
    Clips,
    GuardConfig,
    Scores,
    Validator,
    diversity_scores,
    join_scores,
    score_clips,
)

logger = logging.getLogger(__name__)

GUARD_REWARDS = ("frame_difference", "saturation")
"""Weightless rewards that the guards read at every validation."""


@dataclass(frozen=True)
class Suites:
    """The three prompt suites."""

    train: PromptSuite
    validation: PromptSuite
    test: PromptSuite | None


def load_suites(config: RewardBpConfig) -> Suites:
    """Read the prompt files.

    Raises:
        DataError: A file is missing, empty or malformed, or two files share a prompt.
        ConfigError: More prompts are asked for than there are, or too few to measure the base's spread.
    """
    suites = Suites(
        load_prompts(config.prompts.train),
        _first(load_prompts(config.prompts.validation), config.validation.num_prompts, "validation.num_prompts"),
        _first(load_prompts(config.prompts.test), config.test.num_prompts, "test.num_prompts")
        if config.prompts.test is not None
        else None,
    )
    if len(suites.validation) * config.validation.clips_per_prompt < 2:
        raise ConfigError(
            "One validation clip has no spread to normalise rewards by: raise validation.num_prompts or "
            "validation.clips_per_prompt."
        )
    for name, suite in (("validation", suites.validation), ("test", suites.test)):
        if suite is not None and (shared := set(suite.prompts) & set(suites.train.prompts)):
            raise DataError(
                f"prompts.{name} shares {len(shared)} prompts with prompts.train, for example '{min(shared)}': remove "
                "them from one file, a score on trained prompts proves nothing."
            )
    if suites.test is not None and (shared := set(suites.test.prompts) & set(suites.validation.prompts)):
        raise DataError(
            f"prompts.test shares {len(shared)} prompts with prompts.validation, for example '{min(shared)}': remove "
            "them from one file, the strength is chosen on validation prompts, so a test on them is not unseen."
        )
    return suites


def _first(suite: PromptSuite, count: int | None, field: str) -> PromptSuite:
    if count is None:
        return suite
    if not 1 <= count <= len(suite):
        raise ConfigError(f"{field}={count} does not fit: the prompt file '{suite.name}' holds {len(suite)} prompts.")
    return PromptSuite(suite.name, suite.version, suite.prompts[:count], suite.sha256)


@dataclass(frozen=True)
class RewardSet:
    """All scores of a run, by role."""

    trained: WeightedReward
    reported: Mapping[str, Reward]
    """Every reward that validation computes, trained ones and guards included, by its key in tables."""
    trained_scores: tuple[str, ...]
    """Score names "key/dimension" of the trained rewards."""
    held_out_scores: tuple[str, ...]
    """The same for the held-out rewards."""
    judge_scores: tuple[str, ...]
    """The same for the judge."""


def build_rewards(config: RewardBpConfig) -> RewardSet:
    """Build every reward of a config.

    Raises:
        RewardError: A name or an option is unknown, a trained reward is not differentiable, or weights are missing.
        ConfigError: A held-out reward's lower values are better.
    """
    terms, reported = [], dict[str, Reward]()
    for entry in config.rewards:
        reward = registry.build(entry.name, **entry.options)
        require_differentiable(reward, key=entry.key, dimension=entry.dimension)
        terms.append(
            RewardTerm(
                key=entry.key,
                reward=reward,
                weight=entry.weight,
                dimension=entry.dimension,
                normalisation=entry.normalisation,
            )
        )
        reported[entry.key] = reward
    for entry in config.held_out:
        reward = registry.build(entry.name, **entry.options)
        if not reward.spec.higher_is_better:
            raise ConfigError(f"held_out '{entry.key}': lower is better there, early stop reads rising scores only.")
        reported[entry.key] = reward
    if config.judge is not None:
        reported[config.judge.key] = registry.build(config.judge.name, **config.judge.options)
    for name, options in _guard_rewards(config.guards).items():
        if name not in reported:
            reported[name] = registry.build(name, **options)
    judges = [config.judge] if config.judge is not None else []
    return RewardSet(
        WeightedReward(terms),
        reported,
        *(
            tuple(name for entry in entries for name in _score_names(entry, reported[entry.key]))
            for entries in (config.rewards, config.held_out, judges)
        ),
    )


def _guard_rewards(guards: GuardConfig) -> dict[str, dict[str, object]]:
    """Return name -> options of the rewards that the guards read."""
    if not guards.enabled:
        return {}
    rewards: dict[str, dict[str, object]] = {name: {} for name in GUARD_REWARDS}
    if guards.dynamic_degree_weights is not None:
        rewards["dynamic_degree"] = {"weights": guards.dynamic_degree_weights}
    return rewards


def _score_names(entry: RewardTermConfig, reward: Reward) -> list[str]:
    dimensions = reward.spec.dimensions if entry.dimension is None else (entry.dimension,)
    if entry.dimension is not None and entry.dimension not in reward.spec.dimensions:
        raise ConfigError(
            f"Reward '{entry.key}' has no dimension '{entry.dimension}'. Known: {', '.join(reward.spec.dimensions)}."
        )
    return [f"{entry.key}/{dimension}" for dimension in dimensions]


def attention_file_sha256(config: RewardBpConfig) -> str | None:
    """Return the sha256 of the attention plan's file, which the config alone does not fix; None without a file."""
    return None if config.attention.file is None else sha256_file(config.attention.file)


def clip_shape(config: RewardBpConfig, batch: int) -> VideoShape:
    """Return the clip size of a run."""
    sampling = config.sampling
    return VideoShape(batch=batch, frames=sampling.num_frames, height=sampling.height, width=sampling.width)


def sampler_sigmas(config: RewardBpConfig, backbone: VideoBackbone) -> Tensor:
    """Return the noise levels (num_steps + 1,) of training and validation alike, on the backbone's device."""
    shift = backbone.spec.default_shift if config.sampling.shift is None else config.sampling.shift
    return flow_sigmas(config.sampling.num_steps, shift).to(backbone.device)


class World:
    """The model, the rewards and the prompts of a run, and how clips are made from them."""

    def __init__(
        self,
        config: RewardBpConfig,
        suites: Suites,
        rewards: RewardSet,
        backbone: VideoBackbone,
        distribution: Distribution,
    ) -> None:
        """Put the parts together and encode every prompt once; the text encoder leaves memory.

        Raises:
            ConfigError: The clip size does not fit the backbone, or the active steps the sampler.
        """
        self.config, self.suites, self.rewards = config, suites, rewards
        self.backbone, self.distribution = backbone, distribution
        self.sigmas = sampler_sigmas(config, backbone)
        self.shape(1)
        choose_steps(config.estimator, config.sampling.num_steps, generator_for(config.seed, "check"))
        self.objective = RewardObjective(backbone, rewards.trained, config.decode)
        num_latent_frames = backbone.spec.num_latent_frames(config.sampling.num_frames)
        check_frames(self.objective.latent_frames(num_latent_frames), num_latent_frames)
        self.validator = self._validator(suites.validation, config.validation.clips_per_prompt, "validation")
        for suite in (suites.train, suites.validation, suites.test):
            for prompt in suite.prompts if suite is not None else ():
                backbone.encode_prompts([prompt], config.sampling.negative_prompt)
        backbone.release_text_encoder()

    def shape(self, batch: int) -> VideoShape:
        """Return the clip size of the run."""
        shape = clip_shape(self.config, batch)
        self.backbone.spec.latent_shape(shape)  # raises where it does not fit
        return shape

    def velocity(self, prompts: Sequence[str]) -> Velocity:
        """Return the guided velocity for a batch of prompts."""
        cond = self.backbone.encode_prompts(prompts, self.config.sampling.negative_prompt)
        guidance = self.config.sampling.guidance
        return lambda latents, sigma: self.backbone.velocity(latents, sigma, cond, guidance=guidance)

    def noise(self, indices: Sequence[int], *names: int | str) -> Tensor:
        """Return starting noise; item i depends on the run's seed, the names and indices[i] only."""
        generators = [generator_for(self.config.seed, *names, index) for index in indices]
        return self.backbone.noise(self.shape(len(indices)), generators)

    def measure_normalisation(self) -> dict[str, Normalisation]:
        """Return the statistics of each trained reward that came without: of the base model's validation clips."""
        if all(term.normalisation is not None for term in self.rewards.trained.terms):
            return {}
        clips, scores = self.validator.base()
        pictures = self.objective.pixel_frames(self.backbone.spec.num_latent_frames(self.config.sampling.num_frames))
        if len(pictures) < clips.video.shape[1]:
            seen = Clips(clips.video[:, pictures], clips.prompts, clips.seeds)
            trained = {term.key: term.reward for term in self.rewards.trained.terms}
            scores = self._scores(seen, trained)
        provenance = f"{self.config.backbone}, {self.suites.validation.name}, {len(clips)} clips"
        return {
            term.key: Normalisation.from_scores(torch.from_numpy(scores[name]), provenance=provenance)
            for term, name in zip(self.rewards.trained.terms, self.trained_names(), strict=True)
            if term.normalisation is None
        }

    def trained_names(self) -> list[str]:
        """Return the score name of each term's counting dimension."""
        return [f"{t.key}/{t.dimension or t.reward.spec.dimensions[0]}" for t in self.rewards.trained.terms]

    def trained_directions(self) -> dict[str, float]:
        """Return the weight of each of `trained_names`; below 0 where lower values are better."""
        return dict(zip(self.trained_names(), (term.weight for term in self.rewards.trained.terms), strict=True))

    def set_normalisation(self, statistics: Mapping[str, Normalisation]) -> None:
        """Train on the reward normalised by these statistics from now on."""
        self.objective.reward = self.objective.reward.with_normalisation(statistics)

    def test_validator(self) -> Validator | None:
        """Return the comparison on the test prompts; None without test prompts."""
        suite = self.suites.test
        return None if suite is None else self._validator(suite, self.config.test.clips_per_prompt, "test")

    def _validator(self, suite: PromptSuite, clips_per_prompt: int, purpose: str) -> Validator:
        def score(clips: Clips) -> Scores:
            return join_scores([self._scores(clips, self.rewards.reported), diversity_scores(clips)])

        return Validator(self._generator(suite, clips_per_prompt, purpose), score)

    def _scores(self, clips: Clips, rewards: Mapping[str, Reward]) -> Scores:
        batch, device = self.config.validation.batch, self.backbone.device
        return score_clips(clips, rewards, fps=self.backbone.spec.fps, batch=batch, device=device)

    def _generator(self, suite: PromptSuite, clips_per_prompt: int, purpose: str) -> Callable[[float], Clips]:
        prompts = tuple(prompt for prompt in suite.prompts for _ in range(clips_per_prompt))
        seeds = tuple(range(len(prompts)))
        return lambda scale: Clips(self._clips(prompts, seeds, purpose, scale), prompts, seeds)

    @torch.no_grad()
    def _clips(self, prompts: Sequence[str], seeds: Sequence[int], purpose: str, scale: float) -> Tensor:
        """Generate clips, shared by all processes; every process makes as many forward passes (FSDP needs it)."""
        padded = len(prompts) + -len(prompts) % self.distribution.num_processes
        share = [index % len(prompts) for index in self.distribution.shard_indices(padded)]
        size = self.config.validation.batch
        off = scale == 0.0
        with adapter_off(self.backbone) if off else contextlib.nullcontext(), adapter_scale(self.backbone, scale):
            parts = []
            for start in range(0, len(share), size):
                batch = share[start : start + size]
                noise = self.noise([seeds[index] for index in batch], purpose)
                latents = sample(self.velocity([prompts[index] for index in batch]), noise, self.sigmas)
                parts.append(self.backbone.decode(latents))
        return self.distribution.gather(torch.cat(parts))[: len(prompts)].cpu()


def open_world(config: RewardBpConfig, distribution: Distribution) -> World:
    """Check what the user gave, cheapest first, then load the model.

    Raises:
        DataError, RewardError, BackboneError, ConfigError: From the four parts, in this order.
    """
    suites = load_suites(config)
    rewards = build_rewards(config)
    backbone = load_backbone(
        config.backbone,
        device=distribution.accelerator.device,
        dtype=getattr(torch, config.precision),
        text_length=config.sampling.text_length,
    )
    backbone.set_gradient_checkpointing(config.gradient_checkpointing)
    plan = backbone.plan_for(config.attention, clip_shape(config, 1))
    backbone.apply_attention(plan, backend=config.attention.backend)
    return World(config, suites, rewards, backbone, distribution)
