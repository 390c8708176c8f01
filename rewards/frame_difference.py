"""How much a clip moves, without weights: the mean absolute difference of neighbouring frames.

A guard first: image rewards freeze videos, and this number falls when they do. It counts flicker and noise as motion
too, and saturates once things move further than their own size between frames: rewards/dynamic_degree.py does not.
"""

from collections.abc import Sequence

from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.inputs import check_clips, full_precision


class FrameDifference:
    """Mean over neighbouring frames, channels and pixels of |x[f + 1] - x[f]|, times fps.

    Unit: grey levels (of a range of 1) per second, in [0, fps]; 0 for a still clip. Higher means more motion. Its
    gradient is that of |.|: sign, 0 where two frames agree.
    """

    def __init__(self) -> None:
        """Declare the facts; there is nothing to load."""
        self.spec = RewardSpec(
            name="frame_difference",
            version="1",
            dimensions=("motion",),
            range=(0.0, float("inf")),
            higher_is_better=True,
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
            RewardError: Input of the wrong form, or a single frame.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=2)
        with full_precision(clips.video):
            motion = clips.video.diff(dim=1).abs().mean(dim=(1, 2, 3, 4)) * fps
        return masked_output({"motion": motion}, clips.valid, clips.reasons)
