"""How well a clip's motion can be foretold: VBench's motion smoothness (arXiv:2311.17982), by AMT-S."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from evaluation.base import ClipScore, DecodedClip, MetricSpec, SkipClipError
from evaluation.metrics.pixels import Device, pick_device
from evaluation.ports.amt import STRIDE, AmtS
from evaluation.ports.computing import exactly
from rewards.errors import RewardError
from rewards.pretrained import follow, in_passes
from rewards.raft import MIN_SIDE
from rewards.weight_files import load_strictly, read_state, resolve


class MotionSmoothness:
    """1 minus the mean absolute error, as a share of 255, of every other frame predicted from its two neighbours.

    Frames 0, 2, 4, ... are given, 1, 3, ... are predicted and cut down to 8 bit; higher is better, and 1 is a clip
    that AMT foretells exactly, for example one that stands still. The curve holds a value per predicted frame. Frames
    are never shrunk to save memory, as VBench's code would on a small GPU if its check worked; those of which a side is
    112 pixels or less, where AMT divides by zero and returns NaN, are skipped.
    """

    def __init__(
        self,
        weights: str | Path = "amt_s",
        *,
        pairs_per_pass: int = 1,
        accept_licence: bool = False,
        device: Device = "auto",
    ) -> None:
        """Load the model.

        Args:
            weights: Name in `rewards.ledger`, or amt-s.pth.
            pairs_per_pass: Pairs of frames through the model at a time; changes no score, and more than one is
                slower on a CPU.
            accept_licence: Whether the user accepts the licence of the weights, CC BY-NC 4.0.
            device: Where it computes.

        Raises:
            RewardError: Missing or wrong weights, or a bad option.
            ConfigError: The device is not there.
        """
        if pairs_per_pass < 1:
            raise RewardError(f"pairs_per_pass must be 1 or more, got {pairs_per_pass}.")
        path = resolve(weights, accept_licence=accept_licence)
        self._device = pick_device(device)
        self._model = AmtS()
        with settings_ignored(path):
            state = read_state(path, key="state_dict")
        load_strictly(self._model, state, source=path)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as the frames, see AmtS
        self._pairs_per_pass = pairs_per_pass
        self.spec = MetricSpec(
            name="motion_smoothness",
            version="1",
            family="vbench-port",
            dimensions=("motion_smoothness",),
            unit="share",
            higher_is_better=True,
            uses_prompt=False,
            weights=("amt_s",),
            licence="CC-BY-NC-4.0",
            paper="arXiv:2311.17982, arXiv:2304.09790",
        )

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip, see `Metric`.

        Raises:
            SkipClipError: Fewer than three frames, or frames too small for the model.
        """
        num_frames, _, height, width = clip.frames.shape
        if num_frames < 3:
            raise SkipClipError(f"{num_frames} frames leave none between two others")
        if min(height, width) <= MIN_SIDE - STRIDE:
            raise SkipClipError(f"frames of {height}x{width} are too small for AMT: {MIN_SIDE} pixels per side or more")
        frames = clip.frames_on(self._device)
        given = frames[::2]
        real = frames[1::2][: len(given) - 1]
        with exactly(self._device):
            errors = in_passes(self._errors, (given[:-1], real, given[1:]), self._pairs_per_pass)
        values = [(255.0 - error) / 255.0 for error in errors.tolist()]
        return ClipScore(values={"motion_smoothness": sum(values) / len(values)}, curves={"motion_smoothness": values})

    def _errors(self, before: Tensor, real: Tensor, after: Tensor) -> Tensor:
        """Return the mean absolute error of each predicted frame, (P,), for uint8 frames (P, 3, H, W)."""
        height, width = real.shape[-2:]
        across, down = -width % STRIDE, -height % STRIDE
        left, top = across // 2, down // 2
        padding = (left, across - left, top, down - top)
        first, second = (
            functional.pad(frames.to(torch.float32) / 255, padding, mode="replicate") for frames in (before, after)
        )
        follow(self._model, first)
        predicted = self._model(first, second)[..., top : top + height, left : left + width]
        in_bytes = (255 * predicted).to(torch.uint8)  # cut, not rounded
        return (in_bytes.to(torch.float64) - real.to(torch.float64)).abs().mean(dim=(1, 2, 3))


class _Ignored(dict[object, object]):
    """Stands for any object of a file that is no tensor; takes what its class would, and does nothing with it."""

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()


@contextlib.contextmanager
def settings_ignored(path: Path) -> Iterator[None]:
    """Let `weights_only` loading pass over objects of other packages: amt-s.pth holds its training settings, too.

    Nothing of theirs is imported or run: each class is replaced by one that does nothing.
    """
    names: list[str] = []
    if zipfile.is_zipfile(path):
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([(_Ignored, name) for name in names]):
        yield
