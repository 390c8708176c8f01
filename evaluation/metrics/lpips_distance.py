"""LPIPS against reference clips, from LPIPS's own weights (Zhang et al. 2018, arXiv:1801.03924)."""

from pathlib import Path

from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.frame_distance import FrameDistance
from evaluation.metrics.lpips_layers import Network, load_lpips
from evaluation.metrics.pixels import Device

_SMALLEST = {"alex": 31, "vgg": 16}
"""Shortest side of a frame that leaves a feature at every tap."""


class Lpips(FrameDistance):
    """Mean over frames of LPIPS 0.1: weighted squared differences of unit features at five depths, mean over places.

    No unit. Range [0, inf), 0 for equal clips, above 0.5 for unrelated pictures. Lower is better. Float32, frames at
    their own size as LPIPS does; the curve has one value per frame.
    """

    def __init__(
        self,
        references: str | Path,
        *,
        backbone: str | Path,
        linear: str | Path,
        network: Network = "alex",
        device: Device = "auto",
        frames_per_pass: int = 8,
    ) -> None:
        """Load the networks.

        Args:
            references: Folder, see `ReferenceClips`.
            backbone: torchvision's weight file of the network.
            linear: LPIPS's weight file of the network, version 0.1.
            network: "alex" (LPIPS's default for reporting) or "vgg".
            device: Where it computes.
            frames_per_pass: Frames at a time; bounds memory, changes no score.

        Raises:
            DataError: No usable references.
            ConfigError: Unknown network or device.
            RewardError: Missing or wrong weights, or no number of frames.
        """
        super().__init__(references, device=device, frames_per_pass=frames_per_pass)
        self._model = load_lpips(network, backbone=backbone, linear=linear).to(self._device)
        self._smallest = _SMALLEST[network]
        self.spec = MetricSpec(
            name=f"lpips_{network}",
            version="1",
            family="measure",
            dimensions=(f"lpips_{network}",),
            unit="LPIPS",
            higher_is_better=False,
            uses_prompt=False,
            licence="BSD-2-Clause (LPIPS), BSD-3-Clause (torchvision)",
            paper="arXiv:1801.03924",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: There is no reference for it, or its frames are too small for the network.
            DataError: The reference has another size or length.
        """
        height, width = clip.frames.shape[-2:]
        if min(height, width) < self._smallest:
            raise SkipClipError(f"frames of {height}x{width} are too small: LPIPS needs {self._smallest} pixels a side")
        return super().score(clip)

    def _distance(self, first: Tensor, second: Tensor) -> Tensor:
        distances: Tensor = self._model(self._pixels(first), self._pixels(second))
        return distances.cpu()
