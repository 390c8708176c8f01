"""How little neighbouring frames differ, without weights: VBench's temporal flickering (arXiv:2311.17982)."""

from collections.abc import Sequence

from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.inputs import check_clips, full_precision


class TemporalFlicker:
    """(255 - mean absolute difference of neighbouring frames in 8-bit levels) / 255, without rounding to 8 bit.

    Range [0, 1]: 1 for a still clip, 0 where black and white alternate. Higher is better, and a still clip is the best:
    VBench looks only at clips that its prompts want still. As a training reward pair it with a motion reward, or use
    `warp_error`, which takes motion out. Its gradient is that of |.|: sign, 0 where two frames agree.
    """

    def __init__(self) -> None:
        """Declare the facts; there is nothing to load."""
        self.spec = RewardSpec(
            name="temporal_flicker",
            version="1",
            dimensions=("temporal_flickering",),
            range=(0.0, 1.0),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper="arXiv:2311.17982",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or a single frame.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=2)
        with full_precision(clips.video):
            steadiness = 1 - clips.video.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
        return masked_output({"temporal_flickering": steadiness}, clips.valid, clips.reasons)
