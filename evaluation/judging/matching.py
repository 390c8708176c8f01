"""Which dimension of a reward judges which dimension of the labels."""

from collections.abc import Sequence

from rewards.base import RewardSpec
from rlhf_video.errors import ConfigError

Matching = dict[str, str]
"""Label dimension -> dimension of the reward; label dimensions that are not judged are absent."""

NONE = "none"


def match_dimensions(spec: RewardSpec, dimensions: Sequence[str], wishes: Sequence[str] = ()) -> Matching:
    """Match label dimensions with the reward's: as wished, else by name, else the reward's only one.

    Args:
        spec: Facts of the reward.
        dimensions: Label dimensions of the benchmark.
        wishes: Texts "LABEL=SCORE"; "LABEL=none" leaves the dimension out.

    Raises:
        ConfigError: A wish is malformed or names an unknown dimension, a label dimension has no match, or nothing is
            left to judge.
    """
    wished = dict(_parse(wish, spec, dimensions) for wish in wishes)
    by_name = {name.lower(): name for name in spec.dimensions}
    matching: Matching = {}
    for dimension in dimensions:
        if dimension in wished:
            match = wished[dimension]
        elif dimension.lower() in by_name:
            match = by_name[dimension.lower()]
        elif len(spec.dimensions) == 1:
            match = spec.dimensions[0]
        else:
            raise ConfigError(
                f"Reward {spec.name!r} has the dimensions {', '.join(spec.dimensions)} and none named {dimension!r}: "
                f"say which one judges it with --map {dimension}={spec.dimensions[0]}, or leave it out with --map "
                f"{dimension}={NONE}."
            )
        if match != NONE:
            matching[dimension] = match
    if not matching:
        raise ConfigError(
            f"Every label dimension ({', '.join(dimensions)}) is mapped to none: nothing is left to judge."
        )
    return matching


def _parse(wish: str, spec: RewardSpec, dimensions: Sequence[str]) -> tuple[str, str]:
    label, equals, score = wish.partition("=")
    if not equals or label not in dimensions:
        raise ConfigError(f"--map {wish}: write LABEL=SCORE, with LABEL one of {', '.join(dimensions)}.")
    if score not in (*spec.dimensions, NONE):
        known = ", ".join((*spec.dimensions, NONE))
        raise ConfigError(f"--map {wish}: reward {spec.name!r} has no dimension {score!r}. Known: {known}.")
    return label, score
