"""Scores that a run reports without training on them: held-out rewards, a judge, and what the guards read."""

from rewards.base import Reward
from rlhf_video.algorithms.config_sections import RewardTermConfig
from rlhf_video.errors import ConfigError
from rlhf_video.validation import GuardConfig

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
