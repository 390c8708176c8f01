"""Noise, blur and exposure of single frames: VBench's imaging quality (arXiv:2311.17982), by MUSIQ."""

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import Device, pick_device
from evaluation.ports.computing import exactly
from evaluation.ports.musiq import load_musiq
from rewards.errors import RewardError
from rewards.pretrained import follow
from rewards.video_ops import centre_crop

LARGEST = 512
"""Pixels to which VBench brings the long side of larger frames."""
Sizing = Literal["longer", "shorter", "shorter_centercrop", "none"]
"""VBench's imaging_quality_preprocessing_mode: which side is brought to 512 pixels where it is longer, if any."""


class ImagingQuality:
    """Mean over frames of MUSIQ's score, trained on SPAQ, divided by 100: about 0 to 1, higher is better.

    VBench's own file holds a video's score before the division, its dimension the mean after it.
    """

    def __init__(
        self,
        weights: str | Path = "musiq_spaq",
        *,
        sizing: Sizing = "longer",
        frames_per_pass: int = 1,
        accept_licence: bool = False,
        device: Device = "auto",
    ) -> None:
        """Load the model.

        Args:
            weights: Name in `rewards.ledger`, or musiq_spaq_ckpt-358bb6af.pth.
            sizing: "longer" is what VBench reports; the others are its options, another score.
            frames_per_pass: Frames through the model at a time; changes no score, and more than one is slower on a
                CPU.
            accept_licence: Whether the user accepts the licence of the weights.
            device: Where it computes.

        Raises:
            RewardError: Missing or wrong weights, or a bad option.
            ConfigError: The device is not there.
        """
        if sizing not in get_args(Sizing):
            raise RewardError(f"Unknown sizing {sizing!r}. Known: {', '.join(get_args(Sizing))}.")
        if frames_per_pass < 1:
            raise RewardError(f"frames_per_pass must be 1 or more, got {frames_per_pass}.")
        self._device = pick_device(device)
        self._model = load_musiq(weights, accept_licence=accept_licence)
        self._sizing, self._frames_per_pass = sizing, frames_per_pass
        self.spec = MetricSpec(
            name="imaging_quality",
            version="1" if sizing == "longer" else f"1-{sizing}",
            family="vbench-port",
            dimensions=("imaging_quality",),
            unit="MUSIQ score / 100",
            higher_is_better=True,
            uses_prompt=False,
            weights=("musiq_spaq",),
            licence="PolyForm-Noncommercial-1.0.0",
            paper="arXiv:2311.17982, arXiv:2108.05997",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`; the curve holds a value per frame."""
        scores: list[float] = []
        for frames in clip.frames_on(self._device).split(self._frames_per_pass):
            with exactly(self._device):
                images = size_frames(frames.to(torch.float32), self._sizing) / 255
                follow(self._model, images)
                scores += (self._model(images) / 100).tolist()
        return ClipScore(values={"imaging_quality": sum(scores) / len(scores)}, curves={"imaging_quality": scores})


def size_frames(frames: Tensor, sizing: Sizing) -> Tensor:
    """Shrink frames as VBench does: bilinear without antialiasing, sides rounded down.

    Args:
        frames: float, (F, 3, H, W).
        sizing: Which side.
    """
    height, width = frames.shape[-2:]
    side = max(height, width) if sizing == "longer" else min(height, width)
    if sizing == "none" or side <= LARGEST:
        return frames
    scale = LARGEST / side
    size = (int(scale * height), int(scale * width))
    frames = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    return centre_crop(frames, (LARGEST, LARGEST)) if sizing == "shorter_centercrop" else frames
