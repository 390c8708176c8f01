"""Whether a clip's file is whole and even, by its container's header and packets: no picture is decoded.

A truncated file is found in one of three ways. An mp4 whose index stands at its end does not open; one whose index
stands in front lists more packets than there are, or the last packet ends behind the file. A Matroska file ends before
the duration that its header states. Formats that state neither are decoded as a whole. Bytes changed inside a file of
the right length are found by a recorded hash (manifest.json). Without one, those that FFmpeg cannot decode are a
failure when the clip is scored (`rlhf_video.data.read_frames`); nothing finds those that decode to other pictures.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import av

from evaluation.clips.clip_problems import ClipProblem, ProblemKind
from rlhf_video.data import ClipSize
from rlhf_video.data.clip_facts import ClipFacts, read_clip_facts
from rlhf_video.data.video import video_stream
from rlhf_video.errors import DataError

_RATE_TOLERANCE = 1e-3  # relative; containers keep rates as fractions
_MICROSECOND = Fraction(1, 1_000_000)  # unit of a container's duration


@dataclass(frozen=True)
class Declared:
    """What a clip must be like; None: anything."""

    size: ClipSize | None = None
    fps: float | None = None


def check_clip_file(file: Path, declared: Declared) -> tuple[ClipFacts | None, tuple[ClipProblem, ...]]:
    """Measure a clip without decoding it and return what is wrong with it.

    Args:
        file: The clip.
        declared: What it must be like.

    Returns:
        Its facts, None where it cannot be read, and its problems, empty where it is good.
    """

    def problem(kind: ProblemKind, detail: str) -> tuple[ClipProblem, ...]:
        return (ClipProblem(kind, file.name, detail),)

    if not file.stat().st_size:
        return None, problem("empty", "0 bytes")
    try:
        with video_stream(file.resolve()) as (container, stream):  # a relative name with ":" would be a protocol
            packets = [packet for packet in container.demux(stream) if packet.size]
            shown = [packet for packet in packets if not packet.is_discard]  # the others are cut off by an edit list
            facts = ClipFacts(len(shown), stream.height, stream.width, float(stream.average_rate or 0))
            cut = _cut(container, stream, packets)
            uneven = _uneven(stream, shown)
        if cut is None and facts.num_frames:
            facts = read_clip_facts(file)
    except (DataError, ValueError) as error:
        cause = error.__cause__
        return None, problem(
            "unreadable", str(cause.strerror) if isinstance(cause, av.FFmpegError) else "no pictures, or damaged"
        )
    if cut:
        return facts, problem("truncated", cut)
    if not facts.num_frames or facts.fps <= 0.0:
        return facts, problem("empty", f"{facts.num_frames} frames, {facts.fps:g} frames per second")
    found = [ClipProblem("uneven", file.name, uneven)] if uneven else []
    if differs := _differs(facts, declared):
        found.append(ClipProblem("size", file.name, differs))
    return facts, tuple(found)


def _cut(container: Any, stream: Any, packets: list[Any]) -> str | None:
    """Return what is missing at the end, "" if nothing; None where the container cannot tell."""
    if any(packet.is_corrupt for packet in packets):
        return "its last packet is cut off"
    if stream.frames:
        return f"{len(packets)} of {stream.frames} frames" if len(packets) < stream.frames else ""
    if not container.duration or len(container.streams) > 1 or "matroska" not in container.format.name:
        return None
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    if len(times) < 2:
        return None
    step = median(later - earlier for earlier, later in pairwise(times)) * stream.time_base
    end, stated = times[-1] * stream.time_base + step, container.duration * _MICROSECOND
    return f"ends at {float(end):.2f} of {float(stated):.2f} s" if end < stated - step else ""


def _uneven(stream: Any, packets: list[Any]) -> str:
    """Return how the times of the frames are spaced, "" where evenly: metrics take frames as equally far apart."""
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    steps = [later - earlier for earlier, later in pairwise(times)]
    if not steps:
        return ""
    middle = median(steps)
    # Times are rounded to ticks. Where a tick is a whole frame, one tick more is a frame that was left out.
    allowed = 2 if middle >= 20 else 1 if middle >= 3 else 0
    if max(steps) - min(steps) <= allowed:
        return ""
    tick = 1000 * float(stream.time_base)
    return f"{min(steps) * tick:.4g} to {max(steps) * tick:.4g} ms between frames"


def _differs(facts: ClipFacts, declared: Declared) -> str:
    found = ClipSize(facts.num_frames, facts.height, facts.width)
    if declared.size is not None and found != declared.size:
        return f"{found}, declared {declared.size}"
    if declared.fps and abs(facts.fps - declared.fps) > _RATE_TOLERANCE * declared.fps:
        return f"{facts.fps:g} frames per second, declared {declared.fps:g}"
    return ""
