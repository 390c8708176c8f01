"""Scores that a run reports without training on them: held-out rewards, a judge, and what the guards read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from rewards import registry
from rewards.base import Reward
from rlhf_video.algorithms.config_sections import RewardTermConfig
from rlhf_video.errors import ConfigError
from rlhf_video.validation import Clips, GuardConfig, Scores, diversity_scores, join_scores, score_clips
from rlhf_video.validation.report_views import Role

GUARD_REWARDS = ("frame_difference", "saturation")
"""Weightless rewards that the guards read at every validation."""


def guard_rewards(guards: GuardConfig) -> dict[str, dict[str, object]]:
    """Return name -> options of the rewards that the guards read."""
    if not guards.enabled:
        return {}
    rewards: dict[str, dict[str, object]] = {name: {} for name in GUARD_REWARDS}
    if guards.dynamic_degree_weights is not None:
        rewards["dynamic_degree"] = {"weights": guards.dynamic_degree_weights}
    return rewards


def score_names(entry: RewardTermConfig, reward: Reward) -> list[str]:
    """Return the score names "key/dimension" of one reward of a config.

    Raises:
        ConfigError: The reward lacks the dimension.
    """
    dimensions = reward.spec.dimensions if entry.dimension is None else (entry.dimension,)
    if entry.dimension is not None and entry.dimension not in reward.spec.dimensions:
        raise ConfigError(
            f"Reward '{entry.key}' has no dimension '{entry.dimension}'. Known: {', '.join(reward.spec.dimensions)}."
        )
    return [f"{entry.key}/{dimension}" for dimension in dimensions]


def check_keys(terms: tuple[RewardTermConfig, ...]) -> None:
    """Refuse two rewards of one name.

    Raises:
        ConfigError: Names it.
    """
    keys = [term.key for term in terms]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"Two rewards are called '{key}': give one of them another 'label'.")


@dataclass(frozen=True)
class ReportedRewards:
    """Rewards of a run that trains on none of them."""

    rewards: Mapping[str, Reward]
    """All that validation computes, the guards' included, by their key in tables."""
    judge_scores: tuple[str, ...]
    """Score names "key/dimension" of the judge."""
    held_out_scores: tuple[str, ...]
    """The same for the other rewards."""

    @property
    def roles(self) -> dict[str, Role]:
        """Score name -> role in a report, the judge first."""
        return {**dict.fromkeys(self.judge_scores, "judge"), **dict.fromkeys(self.held_out_scores, "held-out")}

    @classmethod
    def build(
        cls, entries: Sequence[RewardTermConfig], judge: RewardTermConfig | None, guards: GuardConfig
    ) -> "ReportedRewards":
        """Build every reward.

        Raises:
            RewardError: A name or an option is unknown, or weights are missing.
            ConfigError: A dimension is unknown.
        """
        judges = [judge] if judge is not None else []
        rewards = {entry.key: registry.build(entry.name, **entry.options) for entry in (*judges, *entries)}
        for name, options in guard_rewards(guards).items():
            if name not in rewards:
                rewards[name] = registry.build(name, **options)
        names = [
            tuple(name for entry in group for name in score_names(entry, rewards[entry.key]))
            for group in (judges, entries)
        ]
        return cls(rewards, *names)

    def score(self, clips: Clips, *, fps: float, batch: int, device: torch.device) -> Scores:
        """Return every score of every clip, the diversity of each prompt's clips too."""
        scores = score_clips(clips, self.rewards, fps=fps, batch=batch, device=device)
        return join_scores([scores, diversity_scores(clips)])
