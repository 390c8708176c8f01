"""Whether a clip moves: VBench's dynamic degree (arXiv:2311.17982), by RAFT (arXiv:2003.12039)."""

from pathlib import Path

from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import Device, pick_device
from evaluation.ports.computing import exactly
from evaluation.ports.frames import flow_input
from evaluation.ports.weights import find_weights
from rewards.dynamic_degree import fastest, is_dynamic
from rewards.flow import FlowModel, sample_frames

ITERATIONS = 20
"""Refinements of the flow (VBench)."""


class DynamicDegree:
    """1 for a clip that moves, 0 for one that does not; their mean is the share of clips that move.

    Frames are taken about 8 times per second. A clip moves where, in at least a quarter of the pairs, the fastest 5% of
    pixels cover more than 6 pixels (for a short side of 256). The curve holds that speed for each pair. As in VBench,
    frames are padded to multiples of 8 by repeating the border, and the padding counts among the pixels. Two things
    differ: RAFT cannot see frames below 128 pixels, for which VBench says 0 and this enlarges them; and a clip of one
    sampled frame is skipped, not 0.
    """

    def __init__(
        self, weights: str | Path = "raft_things", *, pairs_per_pass: int | None = 4, device: Device = "auto"
    ) -> None:
        """Load the flow model.

        Args:
            weights: Name in `rewards.ledger` (where VBench has unpacked the file, it is found), or a file:
                raft-things.pth, or torchvision's RAFT-large.
            pairs_per_pass: Pairs of frames through the model at a time, None for all; changes no score.
            device: Where it computes.

        Raises:
            RewardError: Missing or wrong weights, or an option out of range.
            ConfigError: The device is not there.
        """
        self._device = pick_device(device)
        self._flow = FlowModel(find_weights(weights), iterations=ITERATIONS, pairs_per_pass=pairs_per_pass)
        self.spec = MetricSpec(
            name="dynamic_degree",
            version="1",
            family="vbench-port",
            dimensions=("dynamic_degree",),
            unit="share of clips",
            higher_is_better=True,
            uses_prompt=False,
            weights=("raft_things",),
            licence="BSD-3-Clause",
            paper="arXiv:2311.17982, arXiv:2003.12039",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: It is too short for two sampled frames.
        """
        sampled = sample_frames(len(clip.frames), fps=clip.fps, at_least=1)
        if len(sampled) < 2:
            raise SkipClipError(f"{len(clip.frames)} frames at {clip.fps:g} fps are too short to compare two at 8 fps")
        frames = clip.frames_on(self._device)[list(sampled)]
        with exactly(self._device):
            speeds = self._flow.over_neighbours(self._speeds, flow_input(frames)[None])
            speeds = speeds * (256 / min(frames.shape[-2:]))
        values = {"dynamic_degree": float(is_dynamic(speeds)[0])}
        return ClipScore(values=values, curves={"dynamic_degree": speeds[0].tolist()})

    def _speeds(self, first: Tensor, second: Tensor) -> Tensor:
        return fastest(self._flow(first, second))
