"""What the distances of two sets of features share: the network, the facts, and the check of the sets."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from evaluation.base import DecodedClip, MetricSpec
from evaluation.metrics.feature_backbones import Backbone, FeatureBackbone, Frames
from evaluation.metrics.pixels import Device
from rewards.ledger import LEDGER
from rlhf_video.errors import DataError


class SetDistance:
    """A distance without its formula: a subclass says its kind and paper and defines `distance`, see `SetMetric`."""

    kind: ClassVar[str]
    """First part of the name; network and weights follow."""
    paper: ClassVar[str]
    default_frames: ClassVar[Mapping[Backbone, Frames]] = {}
    """Frames to look at where it is not the network's own default."""

    def __init__(
        self,
        backbone: Backbone,
        model: str | Path,
        *,
        config: str | Path | None = None,
        frames: Frames | None = None,
        device: Device = "auto",
    ) -> None:
        """Load the network, see `FeatureBackbone`."""
        if frames is None:
            frames = self.default_frames.get(backbone)
        self._backbone = FeatureBackbone(backbone, model, config=config, frames=frames, device=device)
        name = f"{self.kind}_{self._backbone.name}"
        known = LEDGER.get(str(model))
        self.spec = MetricSpec(
            name=name,
            version="1",
            family="measure",
            dimensions=(name,),
            unit="squared feature distance",
            higher_is_better=False,
            uses_prompt=False,
            weights=(str(model),) if known else (),
            licence=known.licence if known else "the folder's",
            paper=self.paper,
        )

    def features(self, clip: DecodedClip) -> NDArray[np.float32]:
        """Return the features of a clip, see `SetMetric`."""
        return self._backbone(clip)


def check_sets(
    features: NDArray[np.floating], reference: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return both sets in float64, shapes (n, width) and (m, width).

    Raises:
        DataError: Different widths, or values that are not finite.
    """
    first, second = np.asarray(features, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise DataError(
            f"Sets of features must be (items, width) of one width, got {first.shape} and {second.shape}: compute both "
            "with the same network."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("A set of features holds values that are not finite: leave out the clips they come from.")
    return first, second
