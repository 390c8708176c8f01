"""How colourful a clip looks, without weights: spread and strength of its opponent colours.

Hasler and Suesstrunk, "Measuring colourfulness in natural images", Human Vision and Electronic Imaging 2003, section 5
(metric M3): fitted to the judgements of 20 people. Mean chroma (rewards/saturation.py) is the guard; this is a reward.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.inputs import check_clips, full_precision

_TINY = 1e-12
"""Under both roots: a grey clip has a gradient of 0 instead of none, and a score of 1e-6 instead of 0."""


class Colourfulness:
    """Mean over frames of sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2).

    rg = R - G and yb = (R + G) / 2 - B, variance and mean over pixels. Range [0, 1.9]; 0 for grey. The paper's numbers
    are for colours up to 255: 15/255 = 0.06 is "slightly", 59/255 = 0.23 "quite", 109/255 = 0.43 "extremely" colourful.
    Higher is better only up to what the prompt asks for.
    """

    def __init__(self) -> None:
        """Declare the facts; there is nothing to load."""
        self.spec = RewardSpec(
            name="colourfulness",
            version="1",
            dimensions=("colourfulness",),
            range=(0.0, 1.9),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper="Hasler and Suesstrunk, HVEI 2003",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form.
        """
        clips = check_clips(video, prompts, fps=fps)
        with full_precision(clips.video):
            red, green, blue = clips.video.flatten(3).unbind(2)
            opponents = torch.stack([red - green, (red + green) / 2 - blue])  # 2, clips, frames, pixels
            spread = (opponents.var(-1, correction=0).sum(0) + _TINY).sqrt()
            strength = (opponents.mean(-1).square().sum(0) + _TINY).sqrt()
            colourfulness = (spread + 0.3 * strength).mean(1)
        return masked_output({"colourfulness": colourfulness}, clips.valid, clips.reasons)
