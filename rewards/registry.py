"""Rewards by name, loaded when they are asked for.

A config names a reward of this package by its short name, and anybody's own as "package.module:Class".
"""

from rewards.base import Reward
from rewards.catalogue import CATALOGUE
from rewards.errors import RewardError
from rewards.factories import construct, split_target

_TARGETS: dict[str, str] = {name: entry.target for name, entry in CATALOGUE.items()}


def available() -> tuple[str, ...]:
    """Return the short names, sorted."""
    return tuple(sorted(_TARGETS))


def register(name: str, target: str) -> None:
    """Give a reward a short name for this process.

    Args:
        name: New short name, without ":".
        target: "package.module:Class"; imported on first use.

    Raises:
        RewardError: The name is taken by another target or either text is malformed.
    """
    if ":" in name or not name:
        raise RewardError(f"A reward's short name is not empty and has no ':', got {name!r}.")
    if _TARGETS.get(name, target) != target:
        raise RewardError(f"Reward name {name!r} already stands for {_TARGETS[name]}: choose another.")
    split_target("reward", target)
    _TARGETS[name] = target


def build(name: str, /, **options: object) -> Reward:
    """Build a reward.

    Args:
        name: A short name of `available()`, or "package.module:Class" for any class or factory that can be imported.
        **options: Arguments of that class, for example model="assets/sprite-clip".

    Raises:
        RewardError: Unknown name, module or class, unknown, missing or mistyped option, or the result is not a reward.
    """
    reward = construct("reward", name, _TARGETS, options)
    if not isinstance(reward, Reward):
        raise RewardError(
            f"{name!r} built a {type(reward).__name__}, which is not a reward: it needs `spec` and "
            "`__call__(video, prompts, *, fps)`, see rewards/base.py."
        )
    return reward
