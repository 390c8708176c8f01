"""How much the brightness of the whole picture pulses from frame to frame."""

import torch

from evaluation.base import ClipScore, DecodedClip, MetricSpec
from evaluation.metrics.pixels import luma_of, need_frames


class LuminanceFlicker:
    """Mean over inner frames of |Y[f - 1] - 2 Y[f] + Y[f + 1]| / 2, Y being the mean luma of a frame. Our own.

    Unit: grey levels of a range of 1. Range [0, 1]: 0 for a still clip, for every fade at constant speed and for
    objects that move over an even background; 1 where black and white frames alternate. Lower is better. The second
    difference tells flicker from fades, which VBench's temporal flickering (reward `temporal_flicker`) counts alike;
    pixels that swap places within a frame change nothing, nor does playing the clip backwards. The curve has one value
    per inner frame, in float64.
    """

    spec = MetricSpec(
        name="luminance_flicker",
        version="1",
        family="measure",
        dimensions=("luminance_flicker",),
        unit="grey levels of 1",
        higher_is_better=False,
        uses_prompt=False,
    )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: Fewer than 3 frames.
        """
        need_frames(clip, 3, "luminance flicker")
        brightness = luma_of(clip).mean(dim=(1, 2), dtype=torch.float64)
        curve = brightness.diff(n=2).abs() / 2
        return ClipScore(
            values={"luminance_flicker": float(curve.mean())}, curves={"luminance_flicker": curve.tolist()}
        )
