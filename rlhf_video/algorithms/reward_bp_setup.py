"""What a reward-backpropagation run needs before its first step: prompts, rewards, model, and how clips are made."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rewards import registry
from rewards.base import Reward, require_differentiable
from rewards.composite import Normalisation, RewardTerm, WeightedReward
from rlhf_video.algorithms.clip_maker import ClipMaker, clip_shape
from rlhf_video.algorithms.gradient_estimators import choose_steps
from rlhf_video.algorithms.reported_rewards import guard_rewards, score_names
from rlhf_video.algorithms.reward_bp_config import RewardBpConfig
from rlhf_video.algorithms.reward_objective import RewardObjective
from rlhf_video.algorithms.suites import Suites, first_prompts
from rlhf_video.backbones import VideoBackbone, load_backbone
from rlhf_video.backbones.chunked_decode import check_frames
from rlhf_video.data import PromptSuite, load_prompts
from rlhf_video.errors import ConfigError
from rlhf_video.runtime import Distribution, generator_for
from rlhf_video.validation import (
    Clips,
    Scores,
    Validator,
    diversity_scores,
    join_scores,
    score_clips,
)

logger = logging.getLogger(__name__)


def load_suites(config: RewardBpConfig) -> Suites:
    """Read the prompt files.

    Raises:
        DataError: A file is missing, empty or malformed, or two files share a prompt.
        ConfigError: More prompts are asked for than there are, or too few to measure the base's spread.
    """
    suites = Suites(
        load_prompts(config.prompts.train),
        first_prompts(load_prompts(config.prompts.validation), config.validation.num_prompts, "validation.num_prompts"),
        first_prompts(load_prompts(config.prompts.test), config.test.num_prompts, "test.num_prompts")
        if config.prompts.test is not None
        else None,
    )
    if len(suites.validation) * config.validation.clips_per_prompt < 2:
        raise ConfigError(
            "One validation clip has no spread to normalise rewards by: raise validation.num_prompts or "
            "validation.clips_per_prompt."
        )
    suites.check_disjoint()
    return suites


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
    for name, options in guard_rewards(config.guards).items():
        if name not in reported:
            reported[name] = registry.build(name, **options)
    judges = [config.judge] if config.judge is not None else []
    return RewardSet(
        WeightedReward(terms),
        reported,
        *(
            tuple(name for entry in entries for name in score_names(entry, reported[entry.key]))
            for entries in (config.rewards, config.held_out, judges)
        ),
    )


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
        maker = ClipMaker(backbone, distribution, config.sampling, seed=config.seed, batch=config.validation.batch)
        self.maker, self.sigmas, self.velocity, self.noise = maker, maker.sigmas, maker.velocity, maker.noise
        choose_steps(config.estimator, config.sampling.num_steps, generator_for(config.seed, "check"))
        self.objective = RewardObjective(backbone, rewards.trained, config.decode)
        num_latent_frames = backbone.spec.num_latent_frames(config.sampling.num_frames)
        check_frames(self.objective.latent_frames(num_latent_frames), num_latent_frames)
        self.validator = self._validator(suites.validation, config.validation.clips_per_prompt, "validation")
        for suite in suites.all:
            for prompt in suite.prompts:
                backbone.encode_prompts([prompt], config.sampling.negative_prompt)
        backbone.release_text_encoder()

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

        return Validator(self.maker.generator(suite.prompts, clips_per_prompt, purpose), score)

    def _scores(self, clips: Clips, rewards: Mapping[str, Reward]) -> Scores:
        batch, device = self.config.validation.batch, self.backbone.device
        return score_clips(clips, rewards, fps=self.backbone.spec.fps, batch=batch, device=device)


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
    plan = backbone.plan_for(config.attention, clip_shape(config.sampling, 1))
    backbone.apply_attention(plan, backend=config.attention.backend)
    return World(config, suites, rewards, backbone, distribution)
