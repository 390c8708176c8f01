"""Turn clips of any make into files that every browser plays, that look alike, and that say nothing of their makers.

All clips of a study get the same height and width, so that the size of a player tells no system from another. A picture
is never cropped and never stretched: it is set in the middle of black, reduced only where it is larger than the canvas,
and enlarged only by a whole factor, the largest that fits. Up to `NEAREST_SIDE` pixels it is enlarged pixel by pixel
(nearest neighbour: nothing is invented, small shapes stay sharp, and halved chroma no longer blurs them), above that by
Lanczos, since the stairs of doubled pixels would count against a system. Every frame is kept, in order.

What the encoder loses is not for raters to judge, therefore crf <= 14.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from app.studies.encoding import Suffix, encode
from app.studies.probing import MediaFacts, frame_rate, probe
from rlhf_video.data import sha256_file, write_atomic
from rlhf_video.data.clip_facts import ClipFacts
from rlhf_video.data.video import video_stream
from rlhf_video.errors import ConfigError, DataError

NEAREST_SIDE = 128
GREATEST_CRF = 14
_WEBM_CRF_OFFSET = -6
"""From x264's crf to that of VP9 with the same loss: 14 and 8 both keep 39.7 dB of a noisy 480x832 clip."""


@dataclass(frozen=True, kw_only=True)
class MediaPolicy:
    """How the clips of a study are shown."""

    height: int
    """Pixels of every clip of the study, even; `common_size` proposes it."""
    width: int
    """The same across."""
    least_seconds: float = 0.5
    """Shorter clips are refused: nobody can judge their motion. 0 takes single pictures too."""
    greatest_seconds: float = 20.0
    """Longest clip; `length` says what happens to longer ones."""
    length: Literal["reject", "trim", "keep"] = "reject"
    """Clips outside the lengths: "reject" refuses them, "trim" cuts long ones at the end and refuses short ones,
    "keep" takes all."""
    greatest_bytes: int = 256 * 2**20
    """Largest file that is taken in."""
    audio: bool = False
    """Whether sound is kept. A study of pictures drops it: a clip with sound would stand out among silent ones."""
    crf: int = GREATEST_CRF
    """x264's quality, 1 (best) to 14."""
    webm: bool = True
    """Whether a VP9 copy is made for browsers without H.264."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.height % 2 or self.width % 2 or min(self.height, self.width) < 16:
            raise ConfigError(f"A study's clips of {self.height}x{self.width} pixels: both must be even, from 16 on.")
        if not 0 <= self.least_seconds <= self.greatest_seconds:
            raise ConfigError(
                f"least_seconds={self.least_seconds:g} and greatest_seconds={self.greatest_seconds:g}: the first must "
                "be 0 or more, and not above the second."
            )
        if self.length not in ("reject", "trim", "keep"):
            raise ConfigError(f"length={self.length!r} is not known: use 'reject', 'trim' or 'keep'.")
        if not 1 <= self.crf <= GREATEST_CRF:
            raise ConfigError(
                f"crf={self.crf} does not fit: use 1 to {GREATEST_CRF}, or raters would judge the encoder of the arena."
            )

    def frames_shown(self, path: Path, facts: MediaFacts) -> int:
        """Return how many of a clip's frames are shown, from the first.

        Raises:
            DataError: The file is too large, or the clip too short or too long.
        """
        if facts.num_bytes > self.greatest_bytes:
            raise DataError(
                f"Clip '{path}' has {facts.num_bytes / 2**20:.0f} MiB; this study takes at most "
                f"{self.greatest_bytes / 2**20:.0f}: encode it smaller, or raise greatest_bytes."
            )
        seconds = f"Clip '{path}' lasts {facts.duration:.2f} s; this study"
        if facts.duration < self.least_seconds and self.length != "keep":
            raise DataError(f"{seconds} wants at least {self.least_seconds:g} s: leave it out, or lower least_seconds.")
        fitting = int(self.greatest_seconds * facts.fps + 1e-6)
        if facts.num_frames <= fitting or self.length == "keep":
            return facts.num_frames
        if self.length == "reject":
            raise DataError(
                f"{seconds} takes at most {self.greatest_seconds:g} s: choose length='trim', or raise greatest_seconds."
            )
        return max(1, fitting)


class Placement(NamedTuple):
    """Where a picture stands on the canvas, in pixels."""

    top: int
    left: int
    height: int
    width: int
    method: Literal["as it is", "nearest", "lanczos"]


@dataclass(frozen=True)
class PlayFiles:
    """A clip as it is shown; its files are named by their SHA-256, which tells nothing of their source."""

    mp4: Path
    mp4_sha256: str
    webm: Path | None
    webm_sha256: str | None
    source: MediaFacts
    """Of the original, which is left as it is."""
    source_sha256: str
    num_frames: int
    """Fewer than the source's where it was trimmed."""
    fps: float
    """Frame k is shown from k / fps on; seek to (k + 0.5) / fps."""
    height: int
    width: int


def common_size(clips: Sequence[ClipFacts], least_side: int = 384) -> tuple[int, int]:
    """Propose the height and width of a study in which every clip fits.

    Args:
        clips: Facts of all its clips.
        least_side: Where the shorter side is below this, the canvas is enlarged by a whole factor (pixels).

    Raises:
        DataError: There is no clip.
    """
    if not clips:
        raise DataError("There is no clip to choose a common size for: import clips first.")
    height, width = max(clip.height for clip in clips), max(clip.width for clip in clips)
    factor = max(1, -(-least_side // min(height, width)))
    return tuple(max(16, side * factor + side * factor % 2) for side in (height, width))  # type: ignore[return-value]


def place(height: int, width: int, policy: MediaPolicy) -> Placement:
    """Return where a picture of height x width pixels is shown, by the rule at the top of this file."""
    factor: float = min(policy.height // height, policy.width // width)
    method: Literal["as it is", "nearest", "lanczos"] = "as it is"
    if factor >= 2:
        method = "nearest" if min(height, width) <= NEAREST_SIDE else "lanczos"
    elif factor < 1:
        factor, method = min(policy.height / height, policy.width / width), "lanczos"
    high, wide = max(1, round(height * factor)), max(1, round(width * factor))
    # Even offsets: a border inside a 2x2 block of shared chroma would take on the picture's colour.
    top, left = (policy.height - high) // 4 * 2, (policy.width - wide) // 4 * 2
    return Placement(top, left, high, wide, method)


def transcode(source: Path, folder: Path, policy: MediaPolicy) -> PlayFiles:
    """Write a clip as H.264 mp4, and as VP9 webm, for browsers; the same source and policy give the same bytes.

    Args:
        source: The original; it is only read.
        folder: Where the files go, each written as a whole or not at all; it is made where it is missing.
        policy: Of the study.

    Raises:
        DataError: The clip cannot be shown (`probe`), or the policy refuses it.
        OSError: The disk is full or the folder is not writable.
    """
    facts = probe(source)
    num_frames = policy.frames_shown(source, facts)
    rate = frame_rate(source)

    def written(suffix: Suffix, crf: int) -> tuple[Path, str]:
        sound = _sound(source, num_frames / rate) if policy.audio and facts.has_audio else ()
        content = encode(suffix, _pictures(source, facts, num_frames, policy), rate, crf=crf, sound=sound)
        return write_by_hash(folder, suffix, content)

    mp4, mp4_sha256 = written(".mp4", policy.crf)
    webm, webm_sha256 = written(".webm", max(1, policy.crf + _WEBM_CRF_OFFSET)) if policy.webm else (None, None)
    return PlayFiles(
        mp4=mp4, mp4_sha256=mp4_sha256, webm=webm, webm_sha256=webm_sha256, source=facts,
        source_sha256=sha256_file(source), num_frames=num_frames, fps=float(rate), height=policy.height,
        width=policy.width,
    )  # fmt: skip


def write_by_hash(folder: Path, suffix: str, content: bytes) -> tuple[Path, str]:
    """Write a file under its own SHA-256, atomically, and return both."""
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{digest}{suffix}"
    write_atomic(path, content)
    return path, digest


def _pictures(source: Path, facts: MediaFacts, num_frames: int, policy: MediaPolicy) -> Iterator[np.ndarray]:
    """Yield the frames on their canvas, RGB bytes of shape (policy.height, policy.width, 3)."""
    spot = place(facts.height, facts.width, policy)
    count = 0
    with video_stream(source.resolve()) as (container, stream):
        for frame in container.decode(stream):
            canvas = np.zeros((policy.height, policy.width, 3), dtype=np.uint8)
            canvas[spot.top : spot.top + spot.height, spot.left : spot.left + spot.width] = _fitted(frame, spot)
            yield canvas
            count += 1
            if count == num_frames:
                return
    raise DataError(f"Clip '{source}' changed while it was read ({count} of {num_frames} frames): import it again.")


def _fitted(frame: Any, spot: Placement) -> np.ndarray:
    if spot.method == "lanczos":
        frame = frame.reformat(width=spot.width, height=spot.height, format="rgb24", interpolation="LANCZOS")
    picture = frame.to_ndarray(format="rgb24")
    if spot.method == "nearest":
        factor = spot.height // picture.shape[0]
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return picture


def _sound(source: Path, seconds: Fraction) -> Iterator[Any]:
    """Yield the audio frames that begin before the pictures end, without gaps, from time 0."""
    samples = 0
    with video_stream(source.resolve()) as (container, _):
        for frame in container.decode(container.streams.audio[0]):
            if Fraction(samples, frame.sample_rate) >= seconds:
                return
            frame.pts, frame.time_base = samples, Fraction(1, frame.sample_rate)
            samples += frame.samples
            yield frame
