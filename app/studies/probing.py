"""What a clip's file holds, and whether it can be shown to people: every frame is decoded once."""

import re
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from evaluation.clips.clip_files import Declared, check_clip_file
from evaluation.clips.clip_problems import ClipProblem, ProblemKind
from rlhf_video.data.clip_facts import ClipFacts
from rlhf_video.data.video import video_stream
from rlhf_video.errors import DataError

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif"
"""Containers that are opened at all: a play list (HLS, concat) would make FFmpeg read other files than this one."""
LEAST_SIDE, GREATEST_SIDE = 8, 8192
"""Pixels. 8192 is the largest picture that H.264 level 6 decoders are made for."""
GREATEST_ASPECT = 8.0
GREATEST_FRAMES = 36_000
"""Ten minutes at 60 frames per second: what is longer is no clip, and decoding it to say so would take minutes."""
_HDR = {16: "PQ", 18: "HLG"}  # transfer curves of H.273 whose pictures need tone mapping
_DURATION_TAG = re.compile(r"(\d\d):(\d\d):(\d\d\.\d+)")  # as FFmpeg and mkvmerge write it for each stream
_MICROSECOND = Fraction(1, 1_000_000)  # unit of a container's duration


@dataclass(frozen=True)
class MediaFacts(ClipFacts):
    """What is known of a clip's file, beside its size and rate."""

    codec: str
    """FFmpeg's name: "h264", "mpeg4" (OpenCV's mp4v), "vp9"."""
    pixel_format: str
    duration: float
    """Seconds that its frames last: num_frames / fps."""
    bitrate: float
    """Bits per second of the whole file."""
    num_bytes: int
    has_audio: bool
    metadata_keys: tuple[str, ...]
    """Names of the tags in the file, sorted; their values may name the system that made it."""


def probe(path: Path) -> MediaFacts:
    """Measure a clip, or say why people cannot be asked about it.

    Args:
        path: Any file.

    Raises:
        DataError: It is missing, no video of `FORMATS`, empty, cut off, damaged, of variable frame rate, absurdly
            large, small, long or narrow, rotated by a tag, or has oblong pixels or high dynamic range.
    """
    if not path.is_file():
        raise DataError(f"Clip '{path}' does not exist: correct its name, or generate it first.")
    tags = _open_safely(path)
    facts, problems = check_clip_file(path, Declared())
    if facts is None or problems:
        raise DataError(_sentence(path, problems[0]))
    with video_stream(path.resolve()) as (container, stream):
        has_audio = bool(container.streams.audio)
        if cut := _missing(container, stream):
            raise DataError(_sentence(path, ClipProblem("truncated", path.name, cut)))
    pixel_format, decoded = _decode_all(path, facts)
    if decoded != facts.num_frames:
        raise DataError(
            f"Clip '{path}' is damaged: {decoded} of its {facts.num_frames} frames can be decoded. Copy or generate it "
            "again."
        )
    size, duration = path.stat().st_size, facts.num_frames / facts.fps
    return MediaFacts(
        num_frames=facts.num_frames, height=facts.height, width=facts.width, fps=facts.fps, codec=tags.codec,
        pixel_format=pixel_format, duration=duration, bitrate=8 * size / duration, num_bytes=size,
        has_audio=has_audio, metadata_keys=tags.keys,
    )  # fmt: skip


def frame_rate(path: Path) -> Fraction:
    """Return a clip's frames per second as a fraction with a denominator of at most 1001, such as 24000/1001.

    Raises:
        DataError: The file is missing or no video.
    """
    with video_stream(path.resolve()) as (_, stream):
        return Fraction(stream.average_rate or 0).limit_denominator(1001)


@dataclass(frozen=True)
class _Tags:
    codec: str
    keys: tuple[str, ...]


def _open_safely(path: Path) -> _Tags:
    """Check the container's kind and the picture's size before anything is decoded."""
    if not path.stat().st_size:
        raise DataError(f"Clip '{path}' is empty (0 bytes): copy or generate it again.")
    try:
        with av.open(str(path.resolve()), options={"format_whitelist": FORMATS}) as container:
            if not container.streams.video:
                held = ", ".join(sorted({each.type for each in container.streams})) or "nothing at all"
                raise DataError(f"Clip '{path}' holds no picture, but {held}: give a video, or generate it again.")
            stream = container.streams.video[0]
            _check_shape(path, stream)
            keys = {*container.metadata, *(key for each in container.streams for key in each.metadata)}
            return _Tags(stream.codec_context.name, tuple(sorted(keys)))
    except (av.FFmpegError, ValueError) as error:  # ValueError: a stream without a decoder, some damaged headers
        if isinstance(error, DataError):
            raise
        reason = error.strerror if isinstance(error, av.FFmpegError) else error
        raise DataError(
            f"Clip '{path}' cannot be played ({reason}): it is no mp4, mov, webm, mkv, avi or gif video, or it was cut "
            "off before its index. Copy or generate it again."
        ) from error


def _check_shape(path: Path, stream: Any) -> None:
    height, width = stream.height, stream.width
    if not (min(height, width) >= LEAST_SIDE and max(height, width) <= GREATEST_SIDE):
        raise DataError(
            f"Clip '{path}' has pictures of {height}x{width} pixels: each side must lie in {LEAST_SIDE} to "
            f"{GREATEST_SIDE}. Enlarge or shrink it first."
        )
    if max(height, width) > GREATEST_ASPECT * min(height, width):
        raise DataError(
            f"Clip '{path}' has pictures of {height}x{width} pixels, longer than {GREATEST_ASPECT:g} to 1: is the "
            "shape of the array that was written right?"
        )
    if stream.frames > GREATEST_FRAMES:
        raise DataError(f"Clip '{path}' has {stream.frames} frames; at most {GREATEST_FRAMES} fit: cut it first.")
    aspect = stream.sample_aspect_ratio
    if aspect and aspect != 1:
        raise DataError(
            f"Clip '{path}' has oblong pixels ({aspect.numerator}:{aspect.denominator}), which models do not see: "
            "write it with square ones."
        )


def _missing(container: Any, video: Any) -> str:
    """Return what is missing at the end of a file, "" if nothing.

    `check_clip_file` cannot tell where one frame is left of a Matroska file, nor where there is sound.
    """
    step = 1 / Fraction(video.average_rate)
    counts, ends, last = Counter[int](), dict[int, Fraction](), Fraction()
    for packet in container.demux():
        if packet.is_corrupt:
            return "its last packet is cut off"
        if packet.size and packet.pts is not None:
            lasts = step if packet.stream is video else (packet.duration or 0) * packet.time_base
            last = max(last, packet.pts * packet.time_base + lasts)
            counts[packet.stream.index] += 1
            ends[packet.stream.index] = max(ends.get(packet.stream.index, last), packet.pts * packet.time_base + lasts)
    is_matroska = "matroska" in container.format.name
    for stream in container.streams:
        tag = _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")) if is_matroska else None
        if tag:
            stated = 3600 * int(tag[1]) + 60 * int(tag[2]) + Fraction(tag[3])
            if ends.get(stream.index, Fraction()) < stated - step / 2:
                return f"ends at {float(ends.get(stream.index, 0)):.2f} of {float(stated):.2f} s"
        elif not is_matroska and counts[stream.index] < stream.frames:
            return f"{counts[stream.index]} of {stream.frames} packets"
    stated = (container.duration or 0) * _MICROSECOND
    return f"ends at {float(last):.2f} of {float(stated):.2f} s" if is_matroska and last < stated - step else ""


def _decode_all(path: Path, facts: ClipFacts) -> tuple[str, int]:
    """Return the pixel format and how many frames are decoded without damage."""
    pixel_format, count = "", 0
    with video_stream(path.resolve()) as (container, stream):
        for frame in container.decode(stream):
            if not pixel_format:
                pixel_format = frame.format.name
                _check_picture(path, frame)
            if (frame.height, frame.width) != (facts.height, facts.width):
                raise DataError(f"The pictures of clip '{path}' change their size: generate it again.")
            count += not frame.is_corrupt
            if count > GREATEST_FRAMES:
                raise DataError(f"Clip '{path}' has more than {GREATEST_FRAMES} frames: cut it first.")
    return pixel_format, count


def _check_picture(path: Path, frame: Any) -> None:
    if frame.rotation:
        raise DataError(
            f"Clip '{path}' is rotated by a tag ({frame.rotation} degrees), which models do not see: write it upright."
        )
    if int(frame.color_trc) in _HDR:
        raise DataError(
            f"Clip '{path}' has high dynamic range ({_HDR[int(frame.color_trc)]}), which most screens cannot show: "
            "tone-map it to BT.709 first."
        )


def _sentence(path: Path, problem: ClipProblem) -> str:
    texts: dict[ProblemKind, str] = {
        "empty": f"Clip '{path}' holds no frame ({problem.detail}): generate it again.",
        "truncated": f"Clip '{path}' is cut off ({problem.detail}): copy or generate it again.",
        "uneven": f"Clip '{path}' has a variable frame rate ({problem.detail}), so its frames cannot be stepped in "
        "line with another clip's: write it again at a constant rate (ffmpeg: -fps_mode cfr).",
    }
    other = f"Clip '{path}' cannot be played ({problem.detail}): copy or generate it again."
    return texts.get(problem.kind, other)
