"""VBench's static filter: which clips stand still enough for temporal flickering (its static_filter.py), by RAFT."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from evaluation.base import DecodedClip
from evaluation.metrics.pixels import Device, pick_device
from evaluation.ports.computing import exactly
from evaluation.ports.frames import flow_input
from evaluation.ports.weights import find_weights
from rewards.dynamic_degree import fastest
from rewards.flow import FlowModel

ITERATIONS = 20
"""Refinements of the flow."""
FASTEST_SHARE = 0.02
"""Of a frame's pixels, whose speed is its speed."""
THRESHOLD = 3.0
"""Pixels between neighbouring frames, for a short side of 256."""
KEPT = 5
"""Clips of a prompt that VBench keeps of those that pass: it makes 25 and takes the first ones."""


class StaticFilter:
    """Tells clips that move from clips that stand still.

    The speed of a pair of frames is the mean over its fastest 2% of pixels. A clip of n frames moves where more than
    round(n / 8) of its n - 1 steps are faster than 3 pixels, or where the way from the first frame to the last, or
    back, is longer than 2 round(n / 8) such thresholds (all for a short side of 256). Frames are padded as VBench pads
    them; those below 128 pixels, which RAFT cannot see, are enlarged.
    """

    def __init__(self, weights: str | Path, *, pairs_per_pass: int | None = 1, device: Device = "auto") -> None:
        """Load the flow model.

        Args:
            weights: Name in `rewards.ledger`, or a file: raft-things.pth, or torchvision's RAFT-large.
            pairs_per_pass: Pairs of frames through the model at a time, None for all; changes no verdict.
            device: Where it computes.

        Raises:
            RewardError: Missing or wrong weights, or an option out of range.
            ConfigError: The device is not there.
        """
        self._device = pick_device(device)
        self._flow = FlowModel(find_weights(weights), iterations=ITERATIONS, pairs_per_pass=pairs_per_pass)

    def why_moving(self, clip: DecodedClip) -> str | None:
        """Return in what a clip of two or more frames moves, None where it stands still."""
        speeds = self.speeds(clip.frames_on(self._device)).tolist()
        return why_moving(speeds[:-2], speeds[-2:])

    def speeds(self, frames: Tensor) -> Tensor:
        """Return the speed of each step, then from the last frame to the first, then from the first to the last.

        Args:
            frames: uint8, (F, 3, H, W), two or more.

        Returns:
            (F + 1,), in pixels for a short side of 256.
        """
        with exactly(self._device):
            shown = flow_input(frames)
            round_trip = torch.cat([shown, shown[:1], shown[-1:]])[None]
            return self._flow.over_neighbours(self._speeds, round_trip)[0] * (256 / min(frames.shape[-2:]))

    def _speeds(self, first: Tensor, second: Tensor) -> Tensor:
        return fastest(self._flow(first, second), FASTEST_SHARE)


def why_moving(steps: Sequence[float], ends: Sequence[float]) -> str | None:
    """Return in what a clip moves, None where it stands still.

    Args:
        steps: Speed between neighbouring frames, n - 1 of them, in pixels for a short side of 256.
        ends: The same between the first and the last frame, in both directions.
    """
    allowed = round((len(steps) + 1) / 8)
    fast = sum(speed > THRESHOLD for speed in steps)
    if fast > allowed:
        return f"it moves: {fast} of {len(steps)} steps are faster than {THRESHOLD:g} pixels, {allowed} may be"
    if max(ends) > 2 * allowed * THRESHOLD:
        return (
            f"it moves: its last frame is {max(ends):.1f} pixels from the first, {2 * allowed * THRESHOLD:g} are "
            "allowed"
        )
    return None
