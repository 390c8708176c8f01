"""How long, how large and how fast a clip is, without keeping its pixels."""

from dataclasses import dataclass
from pathlib import Path

import av

from rlhf_video.errors import DataError


@dataclass(frozen=True)
class ClipFacts:
    """Size of a clip."""

    num_frames: int
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fps: float
    """Frames per second."""


def read_clip_facts(path: Path, *, decode: bool = True) -> ClipFacts:
    """Measure a clip.

    Args:
        path: Any video file that FFmpeg reads.
        decode: Whether to decode every frame; else packets are counted. Decoders conceal small damage: only a recorded
            hash finds a changed byte.

    Raises:
        DataError: The file is missing, holds no readable video, or has no frame.
    """
    if not path.is_file():
        raise DataError(f"Clip '{path}' does not exist: generate it first, or correct the path.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"Clip '{path}' has no video stream: give an mp4 file with pictures.")
            stream = container.streams.video[0]
            if decode:
                num_frames = sum(1 for _ in container.decode(stream))
            else:
                num_frames = sum(1 for packet in container.demux(stream) if packet.size)
            facts = ClipFacts(num_frames, stream.height, stream.width, float(stream.average_rate or 0.0))
    except av.FFmpegError as error:
        raise DataError(f"Clip '{path}' cannot be decoded ({error}): delete it and generate it again.") from error
    if facts.num_frames == 0 or facts.fps <= 0.0:
        raise DataError(f"Clip '{path}' holds no frame or no frame rate: delete it and generate it again.")
    return facts
