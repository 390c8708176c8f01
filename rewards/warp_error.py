"""How badly neighbouring frames agree once motion is taken out (Lai et al. 2018, arXiv:1808.00449, E_warp).

Flicker, popping textures and morphing objects show here even while things move, where frame differences only see that
something changed. The flow is RAFT's (the paper's is FlowNet2's), so numbers compare with each other, not with the
paper's.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec, masked_output
from rewards.flow import FlowModel, visible, warp
from rewards.inputs import check_clips, full_precision


class WarpError:
    """Mean squared difference between each frame and the next one warped back onto it, where both show the same.

    "warp_error", in [0, 1], squared grey levels of a range of 1: per pair of neighbouring frames the mean over channels
    and visible pixels, then over pairs that have any. A still clip scores 0: pair it with a motion reward. "occluded",
    in [0, 1] and without gradient, is the share of pixels left out (`rewards.flow.visible`); a clip that falls apart
    loses its pixels there, so watch both. Lower is better for both. A clip without a visible pixel is not valid. The
    gradient is the score's own: through the pixels that are compared and through the flow that fetches them. Every step
    is float32; the model moves to the clip's device and never trains.
    """

    def __init__(
        self, weights: str | Path = "raft_large", *, iterations: int = 20, pairs_per_pass: int | None = 2
    ) -> None:
        """Load the flow model.

        Args:
            weights: Name in `rewards.ledger`, or a file: RAFT-large as torchvision or the original authors publish it.
            iterations: Refinements of the flow; 20 is usual.
            pairs_per_pass: Pairs of frames at a time, each of them in both directions, None for all; bounds memory,
                changes no score.

        Raises:
            RewardError: Missing or wrong weights, or an option out of range.
        """
        self._flow = FlowModel(weights, iterations=iterations, pairs_per_pass=pairs_per_pass)
        self.spec = RewardSpec(
            name="warp_error",
            version="1",
            dimensions=("warp_error", "occluded"),
            without_gradient=("occluded",),
            range=(0.0, 1.0),
            higher_is_better=False,
            is_differentiable=True,
            frames=FramePolicy("all"),
            resolution=None,
            licence="BSD-3-Clause",
            paper="arXiv:1808.00449",
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: Input of the wrong form, or a single frame.
        """
        clips = check_clips(video, prompts, fps=fps, min_frames=2)
        with full_precision(clips.video):
            errors, shares = self._flow.over_neighbours(self._compare, clips.video).unbind(-1)
            shares = shares.detach()
            num_pairs = (shares > 0).sum(dim=1)
            error = errors.sum(dim=1) / num_pairs.clamp(min=1)
        # A zeroed clip may have no visible pixel either: its own reason stays.
        lost = "optical flow finds no pixel that two neighbouring frames both show"
        reasons = tuple(
            reason or (lost if count == 0 else None)
            for reason, count in zip(clips.reasons, num_pairs.tolist(), strict=True)
        )
        scores = {"warp_error": error, "occluded": 1 - shares.mean(dim=1)}
        return masked_output(scores, clips.valid & (num_pairs > 0), reasons)

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the error of each pair, 0 where nothing is visible, and the share of visible pixels.

        Args:
            first: (pairs, 3, height, width) in [0, 1].
            second: The same.

        Returns:
            (pairs, 2)
        """
        forward = self._flow(first, second)
        with torch.no_grad():  # it only decides which pixels count
            backward = self._flow(second, first)
        mask = visible(forward, backward).to(first.dtype)
        squared = ((warp(second, forward) - first) ** 2).mean(dim=1, keepdim=True)
        error = (squared * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1)
        return torch.stack([error, mask.mean(dim=(1, 2, 3))], dim=-1)
