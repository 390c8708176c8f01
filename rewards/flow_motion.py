"""How much a clip moves on average, and how evenly, by optical flow (RAFT: Teed and Deng 2020, arXiv:2003.12039).

Beside the dynamic degree, which asks whether the fastest pixels pass a threshold: here every pixel counts, in a unit,
and the change of the flow from one pair of frames to the next tells a steady movement from a jerky one.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.flow import SAMPLED_FPS, FlowModel, sample_frames
from rewards.inputs import check_clips, full_precision
from rewards.video_ops import take_frames


class FlowMotion:
    """Mean speed of all pixels, and minus the mean change of their flow, between frames sampled at about 8 fps.

    Unit of both: pixels per 1/8 second for frames whose short side is 256; in proportion for others. "motion" >= 0 is
    the mean length of the flow. "smoothness" <= 0 is minus the mean absolute difference, over directions and pixels,
    of the flow at the same place in consecutive pairs: 0 for a still clip and for a camera that moves evenly, so it
    must be paired with a motion reward, or it freezes videos. An object that moves evenly still changes the flow at its
    edges. Higher is better for both. Every step is float32; the model moves to the clip's device and never trains.
    """

    def __init__(
        self, weights: str | Path = "raft_large", *, iterations: int = 20, pairs_per_pass: int | None = 4
    ) -> None:
        """Load the flow model.

        Args:
            weights: Name in `rewards.ledger`, or a file: RAFT-large as torchvision or the original authors publish it.
            iterations: Refinements of the flow; 20 is usual.
            pairs_per_pass: Pairs of frames through the model at a time, None for all; bounds memory, changes no score.

        Raises:
            RewardError: Missing or wrong weights, or an option out of range.
        """
        self._flow = FlowModel(weights, iterations=iterations, pairs_per_pass=pairs_per_pass)
        self.spec = RewardSpec(
            name="flow_motion",
            version="1",
            dimensions=("motion", "smoothness"),
            range=(float("-inf"), float("inf")),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="BSD-3-Clause",
            paper="arXiv:2003.12039",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or a clip of fewer than three sampled frames.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=3)
        sampled = sample_frames(video.shape[1], fps=fps, at_least=3)
        with full_precision(clips.video):
            flow = self._flow.over_neighbours(self._flow, take_frames(clips.video, sampled))
            flow = flow * (256 / min(video.shape[-2:])) * (fps / sampled.step / SAMPLED_FPS)
            motion = torch.linalg.vector_norm(flow, dim=2).mean(dim=(1, 2, 3))
            smoothness = -flow.diff(dim=1).abs().mean(dim=(1, 2, 3, 4))
        return masked_output({"motion": motion, "smoothness": smoothness}, clips.valid, clips.reasons)
