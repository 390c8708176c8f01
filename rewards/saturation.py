"""How colourful a clip is, without weights: its mean chroma.

A guard: over-optimised rewards like garish colours, and this number rises when they win.
"""

from collections.abc import Sequence

from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.inputs import check_clips, full_precision


class Saturation:
    """Mean over frames and pixels of max(R, G, B) - min(R, G, B): HSV saturation times value.

    Range [0, 1]: 0 for grey, 1 where every pixel is a pure colour. Unlike HSV saturation alone it does not call a
    nearly black pixel saturated. Lower is better, in the sense that a rise against the base model is suspicious.
    """

    def __init__(self) -> None:
        """Declare the facts; there is nothing to load."""
        self.spec = RewardSpec(
            name="saturation",
            version="1",
            dimensions=("saturation",),
            range=(0.0, 1.0),
            higher_is_better=False,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper=None,
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form.
        """
        clips = check_clips(video, prompts, fps=fps)
        with full_precision(clips.video):
            chroma = clips.video.amax(dim=2) - clips.video.amin(dim=2)
            saturation = chroma.mean(dim=(1, 2, 3))
        return masked_output({"saturation": saturation}, clips.valid, clips.reasons)
