"""What fine-tuning and recovery need before their first step: prompts, scores and model."""

import contextlib
import hashlib
from collections.abc import Sequence

from rlhf_video.algorithms.reported_rewards import ReportedRewards
from rlhf_video.algorithms.sft_config import SftConfig
from rlhf_video.algorithms.suites import Suites, first_prompts
from rlhf_video.algorithms.world import World, load_model
from rlhf_video.data import ListedClip, PromptSuite, load_prompts, read_clip_list
from rlhf_video.runtime import Distribution


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


def open_world(config: SftConfig, distribution: Distribution) -> World:
    """Check what the user gave, cheapest first, then load the model.

    Raises:
        DataError, RewardError, BackboneError, ConfigError: From the four parts, in this order.
    """
    suites = load_suites(config)
    reported = ReportedRewards.build(config.rewards, config.judge, config.guards)
    backbone = load_model(config, distribution)
    # the base of recovery is the dense model; elsewhere base and adapter share one plan
    at_base = backbone.dense_attention if config.recovery is not None else contextlib.nullcontext
    return World(config, suites, reported, backbone, distribution, at_base=at_base)
