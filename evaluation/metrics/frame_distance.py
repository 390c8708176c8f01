"""What distances of a clip's frames from its reference's frames, by a network, share."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import Device, per_frame, pick_device
from evaluation.metrics.reference_clips import ReferenceClips
from rewards.frame_scores import check_frames_per_pass


class FrameDistance(ABC):
    """Mean over frames of a distance that a subclass defines; the curve has one value per frame."""

    spec: MetricSpec

    def __init__(self, references: str | Path, *, device: Device, frames_per_pass: int) -> None:
        """Read what references there are, see `ReferenceClips`, and check the options.

        Raises:
            DataError: No usable references.
            ConfigError: Unknown device.
            RewardError: No number of frames.
        """
        check_frames_per_pass(frames_per_pass)
        self._references = ReferenceClips(references)
        self._device = pick_device(device)
        self._frames_per_pass = frames_per_pass

    @torch.no_grad()
    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: There is no reference for it.
            DataError: The reference has another size or length.
        """
        curve = per_frame(self._distance, clip.frames, self._references(clip), size=self._frames_per_pass).double()
        (name,) = self.spec.dimensions
        return ClipScore(values={name: float(curve.mean())}, curves={name: curve.tolist()})

    def _pixels(self, frames: Tensor) -> Tensor:
        return frames.to(self._device, torch.float32) / 255.0

    @abstractmethod
    def _distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distances (n,) of 8-bit frames (n, 3, height, width), on the CPU."""
