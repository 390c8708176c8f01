"""What colour a clip has as a whole."""

import torch
from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec

_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)
_DIMENSIONS = ("lightness", "green_red", "blue_yellow")


class MeanColour:
    """Mean over frames and pixels of CIE L*a*b* (sRGB, D65).

    "lightness": L*, 0 black to 100 white. "green_red": a*, negative green, positive red. "blue_yellow": b*, negative
    blue, positive yellow. No direction is better; how they change over a clip (metric `drift`, option gap) is the
    colour drift of a long roll-out. A difference of 1 is about what an eye can just see. The curves have one value per
    frame.
    """

    spec = MetricSpec(
        name="mean_colour",
        version="1",
        family="measure",
        dimensions=_DIMENSIONS,
        unit="CIE Lab",
        higher_is_better=None,
        uses_prompt=False,
        paper="CIE 15:2004, Colorimetry, section 8.2.1",
    )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`."""
        means = torch.stack([_lab(frame.float() / 255).mean((1, 2)) for frame in clip.frames]).double()
        return ClipScore(
            values=dict(zip(_DIMENSIONS, means.mean(0).tolist(), strict=True)),
            curves=dict(zip(_DIMENSIONS, means.T.tolist(), strict=True)),
        )


def _lab(frame: Tensor) -> Tensor:
    """Return a frame of sRGB, shape (3, H, W) in [0, 1], as L*, a*, b*, of the same shape."""
    linear = torch.where(frame <= 0.04045, frame / 12.92, ((frame + 0.055) / 1.055) ** 2.4)
    xyz = torch.einsum("ij,jhw->ihw", torch.tensor(_TO_XYZ), linear) / torch.tensor(_WHITE)[:, None, None]
    edge = 6 / 29
    x, y, z = torch.where(xyz > edge**3, xyz.clamp(min=edge**3) ** (1 / 3), xyz / (3 * edge**2) + 4 / 29)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])
