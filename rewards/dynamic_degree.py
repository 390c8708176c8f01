"""How much a clip moves, by optical flow: VBench's dynamic degree (Huang et al. 2023, arXiv:2311.17982), smooth too.

RAFT follows surfaces, so flicker and noise count less than in `frame_difference`, and how far things move shows. It
needs weights that are not part of this repository, see rewards/ledger.py.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.flow import FlowModel, sample_frames
from rewards.inputs import check_clips, full_precision
from rewards.video_ops import take_frames

FASTEST_SHARE = 0.05
"""Share of a frame's pixels whose speed counts, the fastest ones: a small moving subject is motion (VBench)."""
THRESHOLD = 6.0
"""Pixels that these must move between sampled frames, for a short side of 256; in proportion for others (VBench)."""


class DynamicDegree:
    """Speed of the fastest 5% of pixels between frames sampled at about 8 fps, against VBench's threshold.

    "degree" is the mean over pairs of sampled frames of sigmoid((speed - threshold) / temperature): in [0, 1], 0.5 at
    the threshold, differentiable. "is_dynamic" is VBench's verdict, 0 or 1 without gradient: whether at least
    round(n / 4) of the n - 1 pairs exceed the threshold, n counting sampled frames (with n = 2 that is none, so 1).
    Higher means more motion. Both equal VBench's flow up to the border of frames whose sides 8 does not divide: VBench
    also counts the padding. Every step is float32; the model moves to the clip's device and never trains.
    """

    def __init__(
        self,
        weights: str | Path = "raft_large",
        *,
        iterations: int = 20,
        temperature: float = 2.0,
        pairs_per_pass: int | None = 4,
    ) -> None:
        """Load the flow model.

        Args:
            weights: Name in `rewards.ledger`, or a file: RAFT-large as torchvision or the original authors publish it.
            iterations: Refinements of the flow; 20 is VBench's.
            temperature: Width of the smooth score's slope, in pixels for a short side of 256. Ours: a still clip scores
                0.05 at 2, and still has a gradient.
            pairs_per_pass: Pairs of frames through the model at a time, None for all; bounds memory, changes no score.

        Raises:
            RewardError: Missing or wrong weights, or an option out of range.
        """
        if not 0 < temperature < float("inf"):
            raise RewardError(f"temperature must be above 0, got {temperature}.")
        self._temperature = temperature
        self._flow = FlowModel(weights, iterations=iterations, pairs_per_pass=pairs_per_pass)
        self.spec = RewardSpec(
            name="dynamic_degree",
            version="1",
            dimensions=("degree", "is_dynamic"),
            without_gradient=("is_dynamic",),
            range=(0.0, 1.0),
            higher_is_better=True,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="BSD-3-Clause",
            paper="arXiv:2311.17982, arXiv:2003.12039",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or a clip of fewer than two sampled frames.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=2)
        sampled = sample_frames(video.shape[1], fps=fps)
        with full_precision(clips.video):
            frames = take_frames(clips.video, sampled)
            speeds = self._flow.over_neighbours(self._speeds, frames)
            speeds = speeds * (256 / min(video.shape[-2:]))
            degree = torch.sigmoid((speeds - THRESHOLD) / self._temperature).mean(dim=1)
        return masked_output({"degree": degree, "is_dynamic": is_dynamic(speeds)}, clips.valid, clips.reasons)

    def _speeds(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the speed of each pair, (pairs,), for frames (pairs, 3, height, width) in [0, 1]."""
        return fastest(self._flow(first, second))


def fastest(flow: Tensor, share: float = FASTEST_SHARE) -> Tensor:
    """Return the mean length of the longest displacements, (pairs,), for flow (pairs, 2, height, width).

    Args:
        flow: In pixels.
        share: Of the pixels that count, in (0, 1].
    """
    lengths = torch.linalg.vector_norm(flow, dim=1).flatten(1)  # its gradient at no motion is 0, that of sqrt NaN
    return lengths.topk(max(1, int(share * lengths.shape[1])), dim=1).values.mean(dim=1)


def is_dynamic(speeds: Tensor) -> Tensor:
    """Return VBench's verdict, 0 or 1: whether enough pairs move.

    Args:
        speeds: Of each pair of sampled frames, (clips, pairs), in pixels for a short side of 256.
    """
    num_moving = (speeds.detach() > THRESHOLD).sum(dim=1)
    return (num_moving >= round((speeds.shape[1] + 1) / 4)).to(speeds.dtype)
