"""Whether a long clip still shows at its end what it showed at its beginning, whatever the prompt asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rewards.base import FramePolicy, RewardOutput, RewardSpec
from rewards.errors import RewardError
from rlhf_video.sprites.verifier import ClipReading, read_clip

_NOTHING = "no sprite and background can be read in the first segment"


class SpriteIdentity:
    """Compare what the verifier reads in the last segment of a clip with what it reads in the first.

    "identity": 1 where the same sprites are there, by colour and shape, on the same background. "colour", "shape" and
    "background": the same for one attribute alone. Each is 0 or 1. A clip whose first segment shows no sprite has no
    identity to keep: it is masked.
    """

    def __init__(self, *, num_segments: int = 8) -> None:
        """Say how long a segment is.

        Args:
            num_segments: The first and the last of so many equal parts are compared, >= 2.

        Raises:
            RewardError: It is less than 2.
        """
        if num_segments < 2:
            raise RewardError(f"SpriteIdentity compares two segments: num_segments={num_segments} must be at least 2.")
        self._num_segments = num_segments
        self.spec = RewardSpec(
            name="sprite_identity",
            version="1",
            dimensions=("identity", "colour", "shape", "background"),
            range=(0.0, 1.0),
            higher_is_better=True,
            is_differentiable=False,
            frames=FramePolicy("all"),
            resolution=None,
            licence="Apache-2.0",
            paper=None,
            uses_prompt=False,
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Judge clips (batch, frames, 3, height, width) in [0, 1], square frames."""
        size = -(-video.shape[1] // self._num_segments)
        rows, reasons = [], []
        for clip in video:
            first, last = read_clip(clip[:size]), read_clip(clip[-size:])
            readable = bool(first.sprites) and first.background.value is not None
            rows.append(_kept(first, last) if readable else [float("nan")] * len(self.spec.dimensions))
            reasons.append(None if readable else _NOTHING)
        columns = torch.tensor(rows, dtype=torch.float32, device=video.device).T
        valid = torch.tensor([reason is None for reason in reasons], device=video.device)
        return RewardOutput(dict(zip(self.spec.dimensions, columns, strict=True)), valid, tuple(reasons))


def _kept(first: ClipReading, last: ClipReading) -> list[float]:
    """Return whether all, colours, shapes and background of two readings agree."""
    before, after = (sorted((str(s.colour.value), str(s.shape.value)) for s in part.sprites) for part in (first, last))
    colours = [colour for colour, _ in before] == [colour for colour, _ in after]
    shapes = sorted(shape for _, shape in before) == sorted(shape for _, shape in after)
    background = first.background.value == last.background.value
    return [float(value) for value in (before == after and background, colours, shapes, background)]
