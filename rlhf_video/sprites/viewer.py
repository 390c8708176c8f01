"""The verifier's graded opinion as a reward: what simulated voters see."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from rewards.base import RewardOutput
from rlhf_video.sprites.grammar import parse_prompt
from rlhf_video.sprites.judge import SpriteJudge
from rlhf_video.sprites.verifier import judge_clip


class SpriteViewer:
    """The verifier's graded opinion, as an attentive viewer has it: how clearly each attribute is right.

    It sees what `SpriteJudge` calls right and wrong by degrees, so two right clips may still differ; noisy voters who
    see it are the people of the sprite world.
    """

    spec = dataclasses.replace(SpriteJudge.spec, name="sprite_viewer", dimensions=("opinion",))

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Judge clips (batch, frames, 3, height, width) in [0, 1]; the prompts must be sprite prompts.

        Raises:
            DataError: A prompt is not a sentence of the sprite grammar.
        """
        verdicts = [judge_clip(clip, parse_prompt(prompt)) for clip, prompt in zip(video, prompts, strict=True)]
        opinions = torch.tensor([verdict.score() for verdict in verdicts], dtype=torch.float32, device=video.device)
        valid = torch.ones(len(verdicts), dtype=torch.bool, device=video.device)
        return RewardOutput({"opinion": opinions}, valid, (None,) * len(verdicts))
