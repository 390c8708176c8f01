"""Write pictures as files: H.264 mp4 and VP9 webm for browsers, FFV1 mkv where nothing may be lost.

A file holds the pictures and nothing else: no tag, no time of making, no name or version of a program or of a source.
The same pictures give the same bytes: one thread, `bitexact` muxers and encoders, and what makes x264 waver is off.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from av.codec.context import Flags

Suffix = Literal[".mp4", ".webm", ".mkv"]
SAMPLE_RATE = 48_000
"""Of the sound, in Hz: Opus knows no other, and every browser plays it."""
_BT709 = 1  # the number of BT.709 in H.273's tables of matrices, primaries and transfer curves
_NO_SEI = "filter_units=remove_types=6"
"""x264 writes its version and all its settings as a SEI unit into the first frame."""


@dataclass(frozen=True)
class _Format:
    encoder: str
    sound: str
    pixel_format: str
    options: Callable[[int], dict[str, str]]
    """crf -> options of the encoder."""
    muxer: dict[str, str]


_FORMATS: dict[Suffix, _Format] = {
    # No B-frames: then there is no edit list, and the first frame stands at time 0 in every player. No macroblock tree:
    # on small frames x264 gives other bytes for the same frames with it, about one time in three.
    ".mp4": _Format(
        "libx264", "aac", "yuv420p",
        lambda crf: {
            "crf": str(crf), "preset": "medium", "profile": "high", "threads": "1", "bf": "0",
            "x264-params": "mbtree=0",
        },
        {"movflags": "+faststart", "fflags": "+bitexact"},
    ),
    # No alternate reference frames: they are packets without a picture.
    ".webm": _Format(
        "libvpx-vp9", "libopus", "yuv420p",
        lambda crf: {
            "crf": str(crf), "b": "0", "threads": "1", "deadline": "good", "cpu-used": "4", "auto-alt-ref": "0",
            "lag-in-frames": "0",
        },
        {"fflags": "+bitexact"},
    ),
    ".mkv": _Format("ffv1", "libopus", "bgr0", lambda crf: {"threads": "1"}, {"fflags": "+bitexact"}),
}  # fmt: skip


def encode(
    suffix: Suffix, pictures: Iterable[np.ndarray], fps: Fraction, *, crf: int = 14, sound: Iterable[Any] = ()
) -> bytes:
    """Return a file's bytes.

    Args:
        suffix: ".mp4" (H.264 High, yuv420p, BT.709, index in front), ".webm" (VP9, the same) or ".mkv" (FFV1).
        pictures: RGB bytes, each of shape (height, width, 3), all alike; even sides except for ".mkv".
        fps: Frames per second. Every picture lasts 1 / fps; half a second has at least one key frame, for seeking.
        crf: Quality of x264, and of VP9 on its own scale: 0 is the best. ".mkv" does not use it.
        sound: PyAV's audio frames at `SAMPLE_RATE`, stereo, of the format that the encoder takes; none: no sound.

    Raises:
        OSError: The disk for temporary files is full.
    """
    form, sound = _FORMATS[suffix], list(sound)
    pictures = iter(pictures)
    first = next(pictures)
    with tempfile.TemporaryDirectory() as folder:  # a file: for +faststart the muxer reads back what it wrote
        path = Path(folder) / f"clip{suffix}"
        with av.open(str(path), mode="w", options=form.muxer) as container:
            stream = _add_pictures(container, form, fps, first.shape[:2], crf)
            tone = _add_sound(container, form) if sound else None
            container.start_encoding()
            clean = av.BitStreamFilterContext(_NO_SEI, in_stream=stream) if suffix == ".mp4" else None
            if tone is not None:
                for frame in [*sound, None]:
                    container.mux(tone.encode(frame))
            for packet in _packets(stream, first, pictures, form.pixel_format):
                container.mux(clean.filter(packet) if clean else packet)
            if clean:
                container.mux(clean.filter(None))
        return path.read_bytes()


def _add_pictures(container: Any, form: _Format, fps: Fraction, size: tuple[int, ...], crf: int) -> Any:
    stream = container.add_stream(form.encoder, rate=fps, options=form.options(crf))
    stream.height, stream.width, stream.pix_fmt = *size, form.pixel_format
    context = stream.codec_context
    context.flags |= Flags.bitexact
    context.time_base = 1 / fps
    if form.pixel_format == "yuv420p":
        context.gop_size = max(1, int(fps / 2))
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = 1  # "tv": 16 to 235
    return stream


def _add_sound(container: Any, form: _Format) -> Any:
    stream = container.add_stream(form.sound, rate=SAMPLE_RATE, layout="stereo")
    stream.codec_context.flags |= Flags.bitexact
    return stream


def _packets(stream: Any, first: np.ndarray, rest: Iterator[np.ndarray], pixel_format: str) -> Iterator[Any]:
    def encoded(picture: np.ndarray, index: int) -> list[Any]:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        if pixel_format == "yuv420p":
            frame = frame.reformat(format=pixel_format, dst_colorspace=_BT709, interpolation="AREA")
        else:
            frame = frame.reformat(format=pixel_format)
        frame.pts, frame.time_base = index, stream.codec_context.time_base
        return list(stream.encode(frame))

    yield from encoded(first, 0)
    for index, picture in enumerate(rest, start=1):
        yield from encoded(picture, index)
    yield from stream.encode(None)
