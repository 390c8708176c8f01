"""Clips as H.264 mp4 files that every browser plays (PyAV, libx264, yuv420p, BT.709).

Measured on a 64x64 sprite clip: 33.5 dB round trip at crf 0, 33.4 at crf 12, so what is lost is the halved chroma
resolution that every browser demands, not x264's quantiser. Enlarging twice before encoding gives 44 dB.
"""

import contextlib
import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from rlhf_video.data.files import write_atomic
from rlhf_video.errors import DataError


class ClipSize(NamedTuple):
    """The size of one clip in pixels."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        """Return it as messages say it."""
        return f"{self.num_frames} frame{'s' * (self.num_frames != 1)} of {self.height}x{self.width}"


_MOST_ANNOUNCED = 1024  # frames that are believed of a header; a longer clip grows as it is read
BT709 = 1
"""The number of BT.709 in H.264's tables of matrices, primaries and transfer curves."""


def write_video(path: str | Path, video: Tensor, fps: float, *, crf: int = 12) -> None:
    """Write one clip as an mp4 file, atomically.

    Args:
        path: Target, ends in .mp4; missing parent folders are made.
        video: Pixels in [0, 1], shape (frames, 3, height, width), height and width even.
        fps: Frames per second, > 0.
        crf: x264's constant rate factor: 0 is the best, 12 hides nothing, 23 is x264's own default.

    Raises:
        DataError: The shape, the size, fps or a pixel does not fit.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise DataError(f"Clip '{path}' must end in .mp4: clips are written as H.264 mp4.")
    write_atomic(path, encode_mp4(video, fps, crf=crf))


def encode_mp4(video: Tensor, fps: float, *, crf: int = 12, min_side: int = 0) -> bytes:
    """Return one clip as the bytes of an mp4 file; the same clip gives the same bytes.

    Args:
        video: Pixels in [0, 1], shape (frames, 3, height, width), height and width even.
        fps: Frames per second, > 0.
        crf: x264's constant rate factor.
        min_side: Clips with a shorter side below this are enlarged by a whole factor, nearest neighbour (pixels);
            for showing, where halved chroma resolution would blur small shapes.

    Raises:
        DataError: The shape, the size, fps or a pixel does not fit.
    """
    frames = to_uint8(video, fps)
    factor = max(1, -(-min_side // min(frames.shape[1:3])))
    frames = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        # One thread: the thread count would change the bytes from machine to machine. No macroblock tree: on small
        # frames x264 gives other bytes for the same frames with it, about one time in three.
        options = {"crf": str(crf), "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=BT709, interpolation="AREA")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def write_lossless(path: str | Path, video: Tensor, fps: float) -> None:
    """Write one clip so that `read_video` returns the same 8-bit pixels (FFV1 in Matroska), atomically.

    For clips that models learn from; browsers do not play it. The same clip gives the same bytes.

    Args:
        path: Target, ends in .mkv; missing parent folders are made.
        video: Pixels in [0, 1], shape (frames, 3, height, width), height and width even.
        fps: Frames per second, > 0.

    Raises:
        DataError: The shape, the size, fps or a pixel does not fit.
    """
    path = Path(path)
    if path.suffix != ".mkv":
        raise DataError(f"Clip '{path}' must end in .mkv: lossless clips are written as FFV1 in Matroska.")
    frames = to_uint8(video, fps)
    buffer = io.BytesIO()
    # bitexact: Matroska otherwise writes a random identifier and the version of the library.
    with av.open(buffer, mode="w", format="matroska", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "bgr0"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode(None))
    write_atomic(path, buffer.getvalue())


def read_video(path: str | Path) -> tuple[Tensor, float]:
    """Read a clip.

    Args:
        path: Any video file that FFmpeg reads.

    Returns:
        Pixels in [0, 1], float32, shape (frames, 3, height, width), and frames per second.

    Raises:
        DataError: The file is missing, damaged or holds no readable video.
    """
    frames, fps = read_frames(path)
    return frames.float().div_(255.0), fps


def read_frames(path: str | Path) -> tuple[Tensor, float]:
    """Read a clip as it is stored, a quarter of what `read_video` needs.

    Args:
        path: Any video file that FFmpeg reads.

    Returns:
        RGB bytes, uint8, shape (frames, 3, height, width), and frames per second.

    Raises:
        DataError: The file is missing, damaged, holds no readable video, or its pictures change their size.
    """
    frames, count = torch.empty(0, dtype=torch.uint8), 0
    with video_stream(Path(path)) as (container, stream):
        fps = float(stream.average_rate or 0.0)
        for picture in decode_strictly(container, stream, Path(path)):
            pixels = torch.from_numpy(picture.to_ndarray(format="rgb24")).permute(2, 0, 1)
            if count == 0:  # one allocation, as long as the header says: fresh pages cost as much as the decoding
                frames = torch.empty(min(max(stream.frames, 1), _MOST_ANNOUNCED), *pixels.shape, dtype=torch.uint8)
            if pixels.shape != frames.shape[1:]:
                raise DataError(f"The pictures of clip '{path}' change their size: delete it and generate it again.")
            if count == len(frames):  # some headers say nothing, or too little
                frames = torch.cat([frames, torch.empty_like(frames)])
            frames[count] = pixels
            count += 1
    if count == 0 or fps <= 0.0:
        raise DataError(f"Clip '{path}' holds no frame or no frame rate: delete it and generate it again.")
    return frames[:count], fps


def decode_strictly(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Yield a clip's pictures; damage that a player would paint over is an error.

    FFmpeg conceals what it cannot decode with pixels of its neighbours unless it is told to stop there. Changed bytes
    that still are valid code give other pictures and are found by nothing but a recorded hash.

    Args:
        container: Of `video_stream`; the context's av.FFmpegError becomes a DataError there.
        stream: Of the same, not yet decoded.
        path: For the message.

    Raises:
        DataError: A picture is damaged, or some are lacking.
    """
    stream.codec_context.options = {"err_detect": "explode"}
    num_stored = num_decoded = 0
    for packet in container.demux(stream):
        num_stored += packet.size > 0 and not packet.is_discard  # the others are cut off by an edit list
        for picture in packet.decode():
            if picture.is_corrupt:
                raise DataError(f"Clip '{path}' is damaged at frame {num_decoded}: delete it and generate it again.")
            num_decoded += 1
            yield picture
    # Only a container with an index (mp4) says that a packet is a picture: VP8 in WebM has packets that show none.
    if stream.frames and num_decoded < num_stored:
        raise DataError(
            f"Clip '{path}' is damaged, {num_decoded} of {num_stored} frames can be decoded: delete it and generate it "
            "again."
        )


@contextlib.contextmanager
def video_stream(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a clip's PyAV container and video stream; what FFmpeg says inside becomes an error with the file's name.

    Raises:
        DataError: The file is missing or holds no readable video.
    """
    if not path.is_file():
        raise DataError(f"Clip '{path}' does not exist: generate it first, or correct the path.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"Clip '{path}' has no video stream: give an mp4 file with pictures.")
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        raise DataError(f"Clip '{path}' cannot be decoded ({error}): delete it and generate it again.") from error


def to_uint8(video: Tensor, fps: float) -> np.ndarray:
    """Check a clip and return it as bytes, shape (frames, height, width, 3)."""
    if video.ndim != 4 or video.shape[0] == 0 or video.shape[1] != 3:
        raise DataError(f"A clip of shape {tuple(video.shape)} cannot be written: use (frames, 3, height, width).")
    height, width = video.shape[-2:]
    if height % 2 or width % 2 or not height or not width:
        raise DataError(f"A clip of {height}x{width} pixels does not fit H.264 yuv420p: use an even height and width.")
    if not 0.0 < fps <= 1000.0:
        raise DataError(f"fps={fps} is not a frame rate: use a number above 0, for example 8 or 16.")
    pixels = video.detach().float().cpu()
    if not bool(torch.isfinite(pixels).all()):
        raise DataError("The clip holds pixels that are not finite: the model diverged, lower the learning rate.")
    rounded = pixels.clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)
    return np.ascontiguousarray(rounded.permute(0, 2, 3, 1).numpy())
