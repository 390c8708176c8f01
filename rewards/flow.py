"""What rewards by optical flow share: RAFT over neighbouring frames, warping, and which pixels both frames show.

Letters: B batch, F frames, P pairs of frames, H height, W width. Flow is (P, 2, H, W): to the right, then down, pixels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from rewards.errors import RewardError
from rewards.pretrained import follow, in_passes
from rewards.raft_weights import load_raft

SAMPLED_FPS = 8
"""Frames are compared about this often per second (VBench's dynamic degree, arXiv:2311.17982)."""


def sample_frames(num_frames: int, *, fps: float, at_least: int = 2) -> range:
    """Return the frames to compare, about 8 per second.

    Args:
        num_frames: Of the clip.
        fps: Of the clip, > 0.
        at_least: Frames that the reward needs.

    Raises:
        RewardError: The clip is too short.
    """
    sampled = range(0, num_frames, max(1, round(fps / SAMPLED_FPS)))
    if len(sampled) < at_least:
        raise RewardError(
            f"A reward by optical flow compares frames that are {sampled.step} apart at {fps:g} fps, {at_least} of "
            f"them: give at least {sampled.step * (at_least - 1) + 1} frames, got {num_frames}."
        )
    return sampled


class FlowModel:
    """RAFT-large with its options, frozen, on the device and in the precision of what it is given."""

    def __init__(self, weights: str | Path, *, iterations: int, pairs_per_pass: int | None) -> None:
        """Load it.

        Args:
            weights: Name in `rewards.ledger`, or a file.
            iterations: Refinements of the flow, >= 1.
            pairs_per_pass: Pairs of frames at a time, None for all; bounds memory, changes no score.

        Raises:
            RewardError: Missing or wrong weights, or an option out of range.
        """
        for name, number in (("iterations", iterations), ("pairs_per_pass", pairs_per_pass)):
            if number is not None and number < 1:
                raise RewardError(f"{name} must be 1 or more, got {number}.")
        self._raft = load_raft(weights)
        self._iterations, self._pairs_per_pass = iterations, pairs_per_pass

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return where each pixel of the first frames has moved to in the second ones: (P, 3, H, W) to (P, 2, H, W)."""
        follow(self._raft, first)
        flow: Tensor = self._raft(first, second, iterations=self._iterations)
        return flow

    def over_neighbours(self, function: Callable[[Tensor, Tensor], Tensor], frames: Tensor) -> Tensor:
        """Apply a function to all neighbouring frames, in passes of bounded memory.

        Args:
            function: First and second frames, both (P, 3, H, W), to (P, ...).
            frames: (B, F, 3, H, W).

        Returns:
            (B, F - 1, ...).
        """
        pairs = (frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1))
        return in_passes(function, pairs, self._pairs_per_pass).unflatten(0, (len(frames), -1))


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Fetch for each pixel what lies where the flow points to, bilinear; beyond the border the border's value.

    Args:
        frames: (P, channels, H, W).
        flow: (P, 2, H, W).
    """
    height, width = frames.shape[-2:]
    last = torch.tensor([max(width - 1, 1), max(height - 1, 1)], dtype=flow.dtype, device=flow.device)
    grid = 2 * (_positions(flow) + flow).permute(0, 2, 3, 1) / last - 1
    return functional.grid_sample(frames, grid, padding_mode="border", align_corners=True)


def visible(forward: Tensor, backward: Tensor) -> Tensor:
    """Return which pixels of the first frames the second ones show too, (P, 1, H, W), bool.

    A pixel is lost where the backward flow does not lead home, |f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5, or at a motion
    boundary, |grad u|^2 + |grad v|^2 > 0.01 |f|^2 + 0.002 (Ruder et al. 2016, arXiv:1604.08610; Lai et al. 2018,
    arXiv:1808.00449, whose code decides so), and where it leaves the frame.

    Args:
        forward: Flow from the first frames to the second, (P, 2, H, W), in pixels.
        backward: From the second to the first.
    """
    forward, backward = forward.detach(), backward.detach()
    returned = warp(backward, forward)
    length = _squared(forward)
    is_consistent = _squared(forward + returned) <= 0.01 * (length + _squared(returned)) + 0.5
    along_rows = functional.pad(forward.diff(dim=3), (0, 1))
    along_columns = functional.pad(forward.diff(dim=2), (0, 0, 0, 1))
    is_smooth = _squared(along_rows) + _squared(along_columns) <= 0.01 * length + 0.002
    target = _positions(forward) + forward
    height, width = forward.shape[-2:]
    bounds: Sequence[int] = (width - 1, height - 1)
    inside = torch.stack([(target[:, i] >= 0) & (target[:, i] <= bound) for i, bound in enumerate(bounds)]).all(dim=0)
    return is_consistent & is_smooth & inside[:, None]


def _squared(flow: Tensor) -> Tensor:
    return (flow**2).sum(dim=1, keepdim=True)


def _positions(like: Tensor) -> Tensor:
    """Return column and row of each pixel, (2, H, W), for a tensor (P, any, H, W)."""
    rows, columns = (torch.arange(side, dtype=like.dtype, device=like.device) for side in like.shape[-2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
