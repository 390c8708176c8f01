"""Clips whose every frame says its own number, so that a test can tell which frame a file, or a browser, shows.

Layout, in fractions of the picture, whatever its size:

    y 0   to 1/8   eight blocks side by side, each 1/8 wide: the bits of the frame number modulo 256, the most
                   significant at the left, white for 1 and black for 0
    y 1/8 to 1/4   the same blocks inverted
    y 1/4 to 1     a tint, with a light square that moves to the right: people and motion metrics see movement

A bit is read by comparing the two blocks above each other at their centres, so no threshold is needed, and a picture in
which a pair differs by less than `LEAST_CONTRAST` holds no barcode (black, blurred, half decoded). `READ_BARCODE_JS` is
the same for a browser.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np

from rlhf_video.data.video import video_stream

NUM_BITS = 8
LEAST_CONTRAST = 64
"""Grey levels between a block and its inverse; they are 255 apart when drawn."""
READ_BARCODE_JS = """(video, area) => {
  const {x, y, width, height} = area || {x: 0, y: 0, width: 1, height: 1};
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(video, 0, 0);
  const grey = (column, row) => {
    const px = Math.floor(canvas.width * (x + width * (column + 0.5) / 8));
    const py = Math.floor(canvas.height * (y + height * (row + 0.5) / 8));
    const [red, green, blue] = context.getImageData(px, py, 1, 1).data;
    return (red + green + blue) / 3;
  };
  let index = 0;
  for (let bit = 0; bit < 8; bit++) {
    const difference = grey(bit, 0) - grey(bit, 1);
    if (Math.abs(difference) < 64) return null;
    index = 2 * index + (difference > 0 ? 1 : 0);
  }
  return index;
}"""
"""JavaScript function (video element, area) -> number of the frame it shows, null where that holds no barcode.

For Playwright: `locator.evaluate(READ_BARCODE_JS)`; for a letterboxed clip, with `Area(...)._asdict()` as its argument.
"""
Codec = Literal["h264", "mpeg4", "vp9", "ffv1"]
_ENCODERS: Mapping[Codec, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "12", "threads": "1"}),
    "mpeg4": ("mpeg4", {"qscale": "2"}),
    "vp9": ("libvpx-vp9", {"crf": "20", "b": "0", "threads": "1", "deadline": "realtime", "cpu-used": "8"}),
    "ffv1": ("ffv1", {}),
}
_SAMPLE_RATE = 48_000  # of the sound, in Hz


class Area(NamedTuple):
    """Where the picture lies inside a larger one, in fractions of that: letterboxes have bars around it."""

    x: float = 0.0
    y: float = 0.0
    width: float = 1.0
    height: float = 1.0


WHOLE = Area()


def barcode_frame(index: int, height: int, width: int, tint: Sequence[int] = (40, 70, 120)) -> np.ndarray:
    """Draw one frame.

    Args:
        index: Number of the frame; it is drawn modulo 256.
        height: Pixels, at least 16.
        width: Pixels, at least 16.
        tint: Colour of the lower part, RGB bytes: the two clips of a duel should not look the same.

    Returns:
        RGB bytes, shape (height, width, 3).
    """
    frame = np.empty((height, width, 3), dtype=np.uint8)
    frame[:] = np.asarray(tint, dtype=np.uint8)
    rows = [round(height * eighth / 8) for eighth in range(9)]
    columns = [round(width * eighth / NUM_BITS) for eighth in range(NUM_BITS + 1)]
    for bit in range(NUM_BITS):
        value = 255 * (index >> (NUM_BITS - 1 - bit) & 1)
        frame[rows[0] : rows[1], columns[bit] : columns[bit + 1]] = value
        frame[rows[1] : rows[2], columns[bit] : columns[bit + 1]] = 255 - value
    side = max(2, height // 4)
    left = index * max(1, width // 24) % max(1, width - side)
    frame[rows[4] : rows[4] + side, left : left + side] = (235, 225, 170)
    return frame


def write_barcode_clip(
    path: Path,
    num_frames: int,
    fps: int | Fraction = 16,
    *,
    height: int = 64,
    width: int = 96,
    tint: Sequence[int] = (40, 70, 120),
    codec: Codec = "h264",
    audio: bool = False,
    metadata: Mapping[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Write a clip of `barcode_frame`s.

    Args:
        path: Target; its suffix names the container (.mp4, .webm, .mkv, .avi).
        num_frames: How many frames, 0 for a file without one; numbers repeat after 256.
        fps: Frames per second.
        height: Pixels; even for "h264".
        width: Pixels; even for "h264".
        tint: Colour below the barcode, RGB bytes.
        codec: "h264" and "vp9" play in browsers, "mpeg4" (what OpenCV calls mp4v) does not, "ffv1" is lossless.
        audio: Whether to add a tone of the clip's length.
        metadata: Tags of the container and of the video stream.
        ticks: Time of each frame in 1/fps, for a variable frame rate; default 0, 1, 2...
        options: Of the container, for example {"movflags": "faststart"}.

    Returns:
        `path`.
    """
    encoder, encoder_options = _ENCODERS[codec]
    with av.open(str(path), mode="w", options=dict(options or {})) as container:
        container.metadata.update(metadata or {})
        stream: Any = container.add_stream(encoder, rate=fps, options=dict(encoder_options))
        stream.height, stream.width, stream.pix_fmt = height, width, "bgr0" if codec == "ffv1" else "yuv420p"
        stream.codec_context.time_base = 1 / Fraction(fps)
        stream.metadata.update(metadata or {})
        sound: Any = container.add_stream("libopus" if codec == "vp9" else "aac", rate=_SAMPLE_RATE) if audio else None
        container.start_encoding()  # a header, also where no frame follows
        for index in range(num_frames):
            picture = av.VideoFrame.from_ndarray(barcode_frame(index, height, width, tint), format="rgb24")
            picture.pts, picture.time_base = ticks[index] if ticks else index, 1 / Fraction(fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(_tone(sound, num_frames / float(fps)))
    return path


def _tone(stream: Any, seconds: float) -> list[Any]:
    """Return the packets of a tone of 440 Hz."""
    packets, size = [], 960
    for start in range(0, round(seconds * _SAMPLE_RATE), size):
        wave = np.sin(2 * np.pi * 440 * np.arange(start, start + size) / _SAMPLE_RATE).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(0.3 * wave[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _SAMPLE_RATE, start, Fraction(1, _SAMPLE_RATE)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def read_barcode(frame: np.ndarray, area: Area = WHOLE) -> int | None:
    """Return the number that a frame shows, None where it holds no barcode.

    Args:
        frame: RGB bytes, shape (height, width, 3).
        area: Where the barcode clip's picture lies in it.
    """
    height, width = frame.shape[:2]
    columns = [int(width * (area.x + area.width * (bit + 0.5) / NUM_BITS)) for bit in range(NUM_BITS)]
    upper, lower = (int(height * (area.y + area.height * (row + 0.5) / 8)) for row in range(2))
    difference = frame[upper, columns].mean(axis=-1) - frame[lower, columns].mean(axis=-1)
    if (np.abs(difference) < LEAST_CONTRAST).any():
        return None
    return int(((difference > 0) * 2 ** np.arange(NUM_BITS - 1, -1, -1)).sum())


def read_barcodes(path: Path, area: Area = WHOLE) -> list[int | None]:
    """Return the number that each frame of a file shows, in the order of the file; arguments as of `read_barcode`.

    Raises:
        DataError: The file is missing or cannot be decoded.
    """
    with video_stream(path) as (container, stream):
        return [read_barcode(frame.to_ndarray(format="rgb24"), area) for frame in container.decode(stream)]
