"""How long, how large and how fast a clip is, without keeping its pixels."""

from dataclasses import dataclass
from pathlib import Path

from rlhf_video.data.video import ClipSize, decode_strictly, video_stream
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
        decode: Whether to decode every frame; else packets are counted. Damage that decodes to other pictures is
            found by a recorded hash alone.

    Raises:
        DataError: The file is missing, damaged, holds no readable video, or has no frame.
    """
    with video_stream(path) as (container, stream):
        if decode:
            num_frames = sum(1 for _ in decode_strictly(container, stream, path))
        else:
            num_frames = sum(1 for packet in container.demux(stream) if packet.size)
        facts = ClipFacts(num_frames, stream.height, stream.width, float(stream.average_rate or 0.0))
    if facts.num_frames == 0 or facts.fps <= 0.0:
        raise DataError(f"Clip '{path}' holds no frame or no frame rate: delete it and generate it again.")
    return facts


def video_size(path: Path) -> ClipSize:
    """Return the size of a clip without decoding its pictures; errors as of `read_clip_facts`."""
    facts = read_clip_facts(path, decode=False)
    return ClipSize(facts.num_frames, facts.height, facts.width)
