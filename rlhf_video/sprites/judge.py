"""The verifier as a reward: for validation tables and noisy labels, never for training (it has no gradient)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec
from rlhf_video.sprites.grammar import parse_prompt
from rlhf_video.sprites.verifier import ATTRIBUTES, judge_clip


class SpriteJudge:
    """Read colour, shape, motion and background from pixels and compare them with the sprite prompt.

    Every dimension is 0 or 1; "all" is 1 only if every attribute of every object is right.
    """

    spec = RewardSpec(
        name="sprite_judge",
        version="1",
        dimensions=("all", *ATTRIBUTES),
        range=(0.0, 1.0),
        higher_is_better=True,
        is_differentiable=False,
        frames=FramePolicy("all"),
        resolution=None,
        licence="Apache-2.0",
        paper=None,
        uses_prompt=True,
    )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Judge clips (batch, frames, 3, height, width) in [0, 1]; the prompts must be sprite prompts.

        Raises:
            DataError: A prompt is not a sentence of the sprite grammar.
        """
        verdicts = [judge_clip(clip, parse_prompt(prompt)) for clip, prompt in zip(video, prompts, strict=True)]
        rows = [(v.all_correct, *(v.correct[a] for a in ATTRIBUTES)) for v in verdicts]
        columns = torch.tensor(rows, dtype=torch.float32, device=video.device).view(-1, 5).T
        return RewardOutput(
            dict(zip(self.spec.dimensions, columns, strict=True)),
            torch.ones(len(rows), dtype=torch.bool, device=video.device),
            (None,) * len(rows),
        )
