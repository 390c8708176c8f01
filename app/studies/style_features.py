"""What a clip looks like apart from how good it is: covariates that keep a ranking from rewarding mere style."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.studies.probing import probe
from rlhf_video.data.video import video_stream


@dataclass(frozen=True)
class StyleFeatures:
    """Covariates of one clip; style control takes (f_A - f_B) / (f_A + f_B) of a pair."""

    duration: float
    """Seconds."""
    motion: float
    """Mean absolute difference of the luma of successive frames, in [0, 1]; 0 for one frame."""
    brightness: float
    """Mean luma, in [0, 1]."""
    saturation: float
    """Mean saturation of HSV, (max - min) / max over the colour channels, in [0, 1]; 0 for black."""
    bitrate: float
    """Bits per second of the file."""


def style_features(path: Path) -> StyleFeatures:
    """Measure a clip.

    Give files of one encoder, since bitrate depends on it, or the originals where it is not used; black bars count as
    picture.

    Raises:
        DataError: The clip is refused (`probe`).
    """
    facts = probe(path)
    motion, brightness, saturation = [], [], []
    previous: np.ndarray | None = None
    with video_stream(path.resolve()) as (container, stream):
        for frame in container.decode(stream):
            pixels = frame.to_ndarray(format="rgb24").astype(np.float32)
            luma = pixels @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)  # BT.709
            highest = pixels.max(axis=-1)
            saturation.append(float(((highest - pixels.min(axis=-1)) / np.maximum(highest, 1.0)).mean()))
            brightness.append(float(luma.mean()))
            if previous is not None:
                motion.append(float(np.abs(luma - previous).mean()))
            previous = luma
    return StyleFeatures(
        duration=facts.duration,
        motion=float(np.mean(motion)) / 255 if motion else 0.0,
        brightness=float(np.mean(brightness)) / 255,
        saturation=float(np.mean(saturation)),
        bitrate=facts.bitrate,
    )
