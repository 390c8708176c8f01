"""How much of the picture's fine structure sits on a regular grid: blocks of a codec, or patches of a model."""

import torch
from torch import Tensor

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import luma_of, per_frame
from rlhf_video.errors import ConfigError


class Blockiness:
    """(B - A) / (B + A): B mean |step| of luma across the borders of blocks, A everywhere else, both axes and frames.

    B and A are those of Wang, Sheikh and Bovik 2002 ("No-reference perceptual quality assessment of JPEG compressed
    images", ICIP); their ratio bounded is ours. Unit: share. Range [-1, 1]: 0 without a grid, 1 for a mosaic of even
    blocks, negative where borders are smoother than the rest. Lower is better. Brightness, contrast and the order of
    frames change nothing. The grid starts at the upper left corner, so a clip that was resized or cut after coding has
    its grid elsewhere, and in flat graphics a few edges decide: compare with clips of the same prompt. A clip without
    any step in luma is skipped.
    """

    def __init__(self, *, block: int = 8) -> None:
        """Set the grid.

        Args:
            block: Pixels from border to border: 8 for codecs and for the stride of Wan's VAE, 16 for patches of Wan's
                transformer.

        Raises:
            ConfigError: Less than 2.
        """
        if block < 2:
            raise ConfigError(f"block={block} has no inside: use 8 for codecs and the VAE, 16 for Wan's patches.")
        self._block = block
        self.spec = MetricSpec(
            name="blockiness",
            version="1",
            family="measure",
            dimensions=("blockiness",),
            unit="share",
            higher_is_better=False,
            uses_prompt=False,
            paper="doi:10.1109/ICIP.2002.1038064",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: Frames smaller than two blocks, or even ones.
        """
        height, width = clip.frames.shape[-2:]
        if min(height, width) < 2 * self._block:
            raise SkipClipError(f"frames of {height}x{width} hold no two blocks of {self._block} pixels each way")
        planes = luma_of(clip)
        rows = per_frame(lambda few: few.diff(dim=2).abs_().double().mean(dim=1), planes).mean(dim=0)
        columns = per_frame(lambda few: few.diff(dim=1).abs_().double().mean(dim=2), planes).mean(dim=0)
        border, inside = (
            float(sum(steps[is_border == wanted].mean() for steps, is_border in self._axes(rows, columns)))
            for wanted in (True, False)
        )
        if border + inside == 0:
            raise SkipClipError("the frames are even: there is no structure that could lie on a grid")
        return ClipScore(values={"blockiness": (border - inside) / (border + inside)})

    def _axes(self, *profiles: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return mean steps with whether each crosses a border."""
        return [(steps, torch.arange(1, len(steps) + 1) % self._block == 0) for steps in profiles]
