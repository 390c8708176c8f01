"""How well a clip is exposed, without weights (Mertens, Kautz and Van Reeth 2007, Exposure Fusion, section 3.1).

A guard: over-optimised rewards like glare and deep shadow, and these numbers fall when they win.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.inputs import check_clips, full_precision

SIGMA = 0.2
"""Width of the paper's Gauss curve around mid-grey, in grey levels of a range of 1."""


class Exposure:
    """Mean well-exposedness of the pixels, and the share of pixels that are neither crushed nor blown.

    "well_exposed", in [0, 1], is the paper's weight: per channel exp(-(x - 1/2)^2 / (2 sigma^2)) with sigma 0.2, the
    product of the channels, then the mean over frames and pixels: 1 for mid-grey, 0.0001 for black or white; a pure
    colour counts as badly exposed too. Differentiable; its slope is small at black and white. "unclipped", in [0, 1]
    and without gradient, is the share of pixels whose brightest channel is above `dark` and whose darkest is below
    `bright`. Higher is better for both, up to what the prompt wants: a night scene is rightly dark, so compare with the
    base model's clips of the same prompt.
    """

    def __init__(self, *, dark: float = 5 / 255, bright: float = 250 / 255) -> None:
        """Set what counts as clipped.

        Args:
            dark: A pixel with no channel above this is crushed. Ours: five 8-bit levels.
            bright: A pixel with no channel below this is blown. Ours, likewise.

        Raises:
            RewardError: Not 0 <= dark < bright <= 1.
        """
        if not 0 <= dark < bright <= 1:
            raise RewardError(f"Exposure needs 0 <= dark < bright <= 1, got dark={dark:g}, bright={bright:g}.")
        self._dark, self._bright = dark, bright
        self.spec = RewardSpec(
            name="exposure",
            version="1",
            dimensions=("well_exposed", "unclipped"),
            without_gradient=("unclipped",),
            range=(0.0, 1.0),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper="doi:10.1109/PG.2007.17",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form.
        """
        clips = check_clips(video, prompts, fps=fps)
        with full_precision(clips.video):
            pixels = clips.video
            well = torch.exp(-((pixels - 0.5) ** 2).sum(dim=2) / (2 * SIGMA**2)).mean(dim=(1, 2, 3))
            kept = (pixels.amax(dim=2) > self._dark) & (pixels.amin(dim=2) < self._bright)
            unclipped = kept.to(pixels.dtype).mean(dim=(1, 2, 3))
        return masked_output({"well_exposed": well, "unclipped": unclipped}, clips.valid, clips.reasons)
