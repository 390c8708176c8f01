"""What the ports that look at single frames share: features in batches, and how much they stay the same."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from evaluation.base import ClipScore, DecodedClip, SkipClipError
from evaluation.metrics.pixels import Device, pick_device
from evaluation.ports.computing import exactly
from rewards.frame_scores import check_frames_per_pass
from rewards.pretrained import follow, in_passes

FRAMES_PER_PASS = 8
"""Frames through a tower at a time where nothing else is said; VBench has 1, 32 or all, by dimension.

More are no faster on a CPU, where fresh memory costs time."""


class FrameFeatures:
    """From frames to features: a preparation and a model, in passes of bounded memory, in float32, without gradient."""

    def __init__(
        self,
        model: nn.Module,
        embed: Callable[[Tensor], Tensor],
        *,
        prepare: Callable[[Tensor], Tensor],
        frames_per_pass: int | None,
        device: Device,
        prepares_on_cpu: bool = False,
    ) -> None:
        """Join them.

        Args:
            model: Frozen; it moves to the device.
            embed: Prepared frames (n, 3, height, width) -> features (n, dim), by the model.
            prepare: uint8 frames (n, 3, height, width) -> what the model takes.
            frames_per_pass: Bounds memory, changes no score; None for all at once.
            device: Where it computes.
            prepares_on_cpu: Whether `prepare` works on the CPU wherever the model is, as Pillow does.

        Raises:
            RewardError: Not a number of frames.
            ConfigError: The device is not there.
        """
        self._model = model
        self._embed = embed
        self._prepare = prepare
        self._frames_per_pass = check_frames_per_pass(frames_per_pass)
        self._device = pick_device(device)
        self._prepares_on_cpu = prepares_on_cpu

    def __call__(self, clip: DecodedClip) -> Tensor:
        """Map the frames of a clip to features (n, dim), on the device."""
        frames = clip.frames if self._prepares_on_cpu else clip.frames_on(self._device)
        with exactly(self._device):
            return in_passes(self._one_pass, (frames,), self._frames_per_pass)

    def _one_pass(self, frames: Tensor) -> Tensor:
        pixels = self._prepare(frames).to(self._device)
        follow(self._model, pixels)
        return self._embed(pixels)


def check_two_frames(clip: DecodedClip) -> None:
    """Skip a clip that has no neighbouring frames; the original divides by zero.

    Raises:
        SkipClipError: It has one frame.
    """
    if len(clip.frames) < 2:
        raise SkipClipError("a single frame has no neighbour to be compared with")


def consistency(features: Tensor) -> Tensor:
    """Return how much each frame but the first resembles its predecessor and the first frame.

    (max(0, cosine to the previous) + max(0, cosine to the first)) / 2, VBench's subject and background consistency.

    Args:
        features: (frames, dim), at least two frames.

    Returns:
        (frames - 1,) in [0, 1].
    """
    units = functional.normalize(features, dim=-1)
    to_previous = functional.cosine_similarity(units[1:], units[:-1], dim=-1)
    to_first = functional.cosine_similarity(units[1:], units[:1], dim=-1)
    return (to_previous.clamp(min=0) + to_first.clamp(min=0)) / 2


def mean_and_curve(dimension: str, values: Tensor) -> ClipScore:
    """Return a clip's score: the mean over frames, and the frames.

    Args:
        dimension: Name of the value.
        values: (frames,).
    """
    curve = values.double().cpu()
    return ClipScore(values={dimension: float(curve.mean())}, curves={dimension: curve.tolist()})
