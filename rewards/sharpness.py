"""How sharp a clip is, without weights: the root mean square of its Laplacian.

A guard against blur (falls) and against high-frequency noise that hacks a reward (rises).
"""

from collections.abc import Sequence

from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.inputs import check_clips, full_precision

LUMA = (0.299, 0.587, 0.114)
"""RGB weights of luma (ITU-R BT.601)."""
EPSILON = 1e-12
"""Inside the root: keeps the gradient of a flat clip finite; adds at most 1e-6 to the score."""


class Sharpness:
    """Root mean square, per frame, of the 4-neighbour Laplacian of luma; mean over frames.

    Range [0, 4] (luma in [0, 1], interior pixels only); 0 for flat frames. Higher means more fine detail, real or not.
    The 4-neighbour Laplacian is the kernel of Pech-Pacheco et al. 2000 (ICPR), who take its variance.
    """

    def __init__(self) -> None:
        """Declare the facts; there is nothing to load."""
        self.spec = RewardSpec(
            name="sharpness",
            version="1",
            dimensions=("sharpness",),
            range=(0.0, 4.0),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper="Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy (ICPR)",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or frames below 3x3 pixels.
        """
        clips = check_clips(video, prompts, fps=fps)
        if min(video.shape[-2:]) < 3:
            raise RewardError(f"Sharpness needs frames of at least 3x3 pixels, got {tuple(video.shape[-2:])}.")
        with full_precision(clips.video):
            red, green, blue = clips.video.unbind(dim=2)
            luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
            neighbours = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
            laplacian = neighbours - 4 * luma[..., 1:-1, 1:-1]
            sharpness = (laplacian.square().mean(dim=(2, 3)) + EPSILON).sqrt().mean(dim=1)
        return masked_output({"sharpness": sharpness}, clips.valid, clips.reasons)
