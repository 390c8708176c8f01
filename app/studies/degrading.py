"""Copies of a clip that nobody can prefer to it, for questions with a known answer (gold pairs)."""

import io
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np
import torch
from torch.nn.functional import interpolate

from app.studies.encoding import encode
from app.studies.media import write_by_hash
from app.studies.probing import frame_rate, probe
from rlhf_video.data import read_frames
from rlhf_video.errors import ConfigError, DataError

Degradation = Literal["blur", "noise", "frozen", "shuffled", "low_bitrate"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)
LEAST_DIFFERENCE = 0.01
"""Mean absolute difference to the source, of 1, below which a copy might be taken for as good: a still clip does not
get worse by being frozen."""
_BLURRED_SIDE = 6  # pixels that remain along the shorter side
_NOISE_CELLS = 16  # along the shorter side: the file is as large as the source's; at 64 it is ten times as large
_NOISE_SD = 60.0  # grey levels
_WORST_CRF = 51  # x264's scale ends here


def degrade(source: Path, folder: Path, kind: Degradation, seed: int) -> Path:
    """Write a spoiled copy of a clip, with the same frames per second, length and size; transcode it like any other.

    Args:
        source: A clip that `probe` accepts.
        folder: Where the copy goes, lossless (FFV1 mkv), named by its hash.
        kind: "blur" leaves six pixels along the shorter side, "noise" covers it with coarse snow, "frozen" repeats one
            frame, "shuffled" has the frames in another order, "low_bitrate" is what x264 leaves at its lowest quality.
        seed: Of the noise, the order and the frame; the same seed gives the same bytes.

    Raises:
        ConfigError: There is no such kind.
        DataError: The clip is refused, or the copy looks like the source: it hardly moves, or has too few frames.
    """
    if kind not in DEGRADATIONS:
        raise ConfigError(f"kind='{kind}' is not known: use one of {', '.join(DEGRADATIONS)}.")
    probe(source)
    rate = frame_rate(source)
    frames = read_frames(source)[0].permute(0, 2, 3, 1).numpy()
    worse = _WAYS[kind](frames, np.random.default_rng([seed, DEGRADATIONS.index(kind)]))
    difference = float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in zip(frames, worse, strict=True)]))
    if difference < 255 * LEAST_DIFFERENCE:
        raise DataError(
            f"The copy of clip '{source}' by kind='{kind}' is hardly worse (mean difference {difference / 255:.4f}, "
            f"at least {LEAST_DIFFERENCE}): take another kind, or a clip that moves."
        )
    return write_by_hash(folder, ".mkv", encode(".mkv", worse, rate))[0]


def _blur(frames: np.ndarray, _: np.random.Generator) -> np.ndarray:
    height, width = frames.shape[1:3]
    factor = min(1.0, _BLURRED_SIDE / min(height, width))
    small = max(1, round(height * factor)), max(1, round(width * factor))
    worse = np.empty_like(frames)
    for index, frame in enumerate(frames):
        pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
        pixels = interpolate(interpolate(pixels, small, mode="area"), (height, width), mode="bicubic")
        worse[index] = pixels[0].permute(1, 2, 0).clamp(0, 255).round().byte().numpy()
    return worse


def _noise(frames: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    height, width = frames.shape[1:3]
    cell = max(1, min(height, width) // _NOISE_CELLS)
    worse = np.empty_like(frames)
    for index, frame in enumerate(frames):
        snow = generator.normal(0.0, _NOISE_SD, (-(-height // cell), -(-width // cell), 3))
        snow = snow.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
        worse[index] = np.clip(frame + snow, 0, 255).round()
    return worse


def _frozen(frames: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.repeat(frames[[generator.integers(len(frames))]], len(frames), axis=0)


def _shuffled(frames: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return frames[generator.permutation(len(frames))]


def _low_bitrate(frames: np.ndarray, _: np.random.Generator) -> np.ndarray:
    height, width = frames.shape[1:3]
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    content = encode(".mp4", even, Fraction(len(frames)), crf=_WORST_CRF)
    with av.open(io.BytesIO(content), mode="r") as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(pictures)[:, :height, :width]


_WAYS: Mapping[Degradation, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "blur": _blur, "noise": _noise, "frozen": _frozen, "shuffled": _shuffled, "low_bitrate": _low_bitrate,
}  # fmt: skip
