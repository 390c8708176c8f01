"""The canonical preference record, version 1: one prompt, two clips, what raters said of them, and where it is from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, NoReturn

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.settings import check_range, to_plain
from rlhf_video.settings.building import build_config

VERSION = 1
OVERALL = "overall"
"""Name of the label about the whole clip; others are free, the standard ones are in DIMENSIONS."""
VISUAL_QUALITY, MOTION_QUALITY, TEXT_ALIGNMENT = "visual_quality", "motion_quality", "text_alignment"
DIMENSIONS = (VISUAL_QUALITY, MOTION_QUALITY, TEXT_ALIGNMENT)
"""Standard names of the questions beside OVERALL (VideoAlign, arXiv:2501.13918, calls them VQ, MQ and TA)."""
LATENT_SUFFIX = ".safetensors"
"""Ending of clips that are latents instead of pixels."""

Label = Literal["A", "B", "tie", "both-bad"]


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """One clip of a pair."""

    path: str
    """Video file, or .safetensors file with the tensor `latents`; relative to the folder of the pairs file, with /."""
    sha256: str
    """Of the file, 64 hexadecimal digits."""
    seed: int | None = None
    """Seed of its noise."""
    model: str | None = None
    """Model folder or Hub id that made it."""
    adapter: str | None = None
    """Adapter folder or Hub id, None for the base."""
    sampler: dict[str, object] = field(default_factory=dict)
    """How it was sampled, for example {num_steps: 30, guidance: 5.0}."""
    num_frames: int | None = None
    """Pixel frames."""
    height: int | None = None
    """Pixels."""
    width: int | None = None
    """Pixels."""
    fps: float | None = None
    """Frames per second."""

    def __post_init__(self) -> None:
        """Check path, hash and numbers.

        Raises:
            ConfigError: The path is absolute or empty, the hash is none, or a size is not positive.
        """
        if not self.path or PurePosixPath(self.path).is_absolute() or "\\" in self.path:
            raise ConfigError(
                f"path={self.path!r} must be relative to the folder of the pairs file, with forward slashes."
            )
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ConfigError(f"sha256={self.sha256!r} is no SHA-256: it has 64 hexadecimal digits, lower case.")
        for name, size in (("num_frames", self.num_frames), ("height", self.height), ("width", self.width)):
            if size is not None:
                check_range(name, size, least=1)
        if self.fps is not None:
            check_range("fps", self.fps, above=0.0)

    @property
    def is_latent(self) -> bool:
        """Whether the file holds latents instead of pixels."""
        return self.path.endswith(LATENT_SUFFIX)


@dataclass(frozen=True, kw_only=True)
class SegmentLabel:
    """What raters said of one stretch of both clips (DenseDPO, arXiv:2506.03517)."""

    start: int
    """First pixel frame, from 0."""
    stop: int
    """Pixel frame after the last one."""
    label: Label
    """Which clip is better from `start` to `stop`."""

    def __post_init__(self) -> None:
        """Check the stretch."""
        check_range("segments.start", self.start, least=0)
        if self.stop <= self.start:
            raise ConfigError(f"segments.stop={self.stop} must come after segments.start={self.start}.")


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """Two clips for one prompt and what raters said."""

    version: int = VERSION
    """Of this record's format."""
    prompt: str
    """What both clips were judged against."""
    a: ClipRecord
    """First clip."""
    b: ClipRecord
    """Second clip."""
    labels: dict[str, Label] = field(default_factory=dict)
    """Per question ("overall", or a dimension) the answer; a question that nobody answered is left out."""
    soft: dict[str, float] = field(default_factory=dict)
    """Per question the share of A among decided answers, in [0, 1]; it counts before the label."""
    margin: float | None = None
    """How much better the preferred clip is, >= 0, in the unit of the source."""
    confidence: float | None = None
    """How sure the overall label is, in [0, 1]."""
    num_votes: int | None = None
    """Answers behind the labels."""
    weight: float = 1.0
    """How often the pair counts in training, >= 0 (VideoDPO, arXiv:2412.14167, gives rare margins more)."""
    segments: tuple[SegmentLabel, ...] = ()
    """Labels of stretches of the clips, for losses per segment."""
    source: str | None = None
    """Where the labels are from: arena, reward, real-vs-generated, partial-renoising, synthetic, or a word of yours."""

    def __post_init__(self) -> None:
        """Check what the types cannot.

        Raises:
            ConfigError: Another version, no prompt, no answer, one clip twice, or a number out of its range.
        """
        if self.version != VERSION:
            raise ConfigError(f"version={self.version} is not known here: this program reads version {VERSION}.")
        if not self.prompt.strip():
            raise ConfigError("prompt is empty: a preference is about a prompt.")
        if not (self.labels or self.soft or self.segments):
            raise ConfigError(
                "labels, soft and segments are all empty: a pair without an answer says nothing, leave it out."
            )
        if self.a.sha256 == self.b.sha256:
            raise ConfigError(f"a and b are the same clip ({self.a.path}): nobody can prefer one.")
        for name, share in self.soft.items():
            _check_share(f"soft.{name}", share)
        if self.confidence is not None:
            _check_share("confidence", self.confidence)
        if self.margin is not None:
            check_range("margin", self.margin, least=0.0)
        if self.num_votes is not None:
            check_range("num_votes", self.num_votes, least=1)
        check_range("weight", self.weight, least=0.0)

    @property
    def clips(self) -> tuple[ClipRecord, ClipRecord]:
        """Both clips, A first."""
        return self.a, self.b

    def winner(self, question: str = OVERALL) -> Literal["A", "B"] | None:
        """Return the preferred side of one question: by its soft label, else by its label; None where undecided."""
        if question in self.soft:
            share = self.soft[question]
            return None if share == 0.5 else ("A" if share > 0.5 else "B")
        label = self.labels.get(question)
        return label if label in ("A", "B") else None


def parse_pair(line: str, *, where: str) -> PreferencePair:
    """Read one JSON line strictly.

    Args:
        line: A JSON object.
        where: File and line for the message.

    Raises:
        DataError: Not JSON, an unknown field (with the nearest name), a missing one, or a value that does not fit.
    """
    return build_pair(parse_json(line, where=where), where=where)


def parse_json(text: str, *, where: str) -> Any:
    """Read JSON as the standard has it: NaN and Infinity, which Python writes, are refused.

    Raises:
        DataError: Not JSON; the message begins with `where`.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not JSON ({error.msg} at column {error.colno}): one object a line.") from error
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def build_pair(tree: object, *, where: str) -> PreferencePair:
    """Build a pair from plain values strictly; fields left out keep their default.

    Args:
        tree: Values by field name.
        where: File and line or row for the message.

    Raises:
        DataError: No mapping, an unknown field (with the nearest name), a missing one, or a value that does not fit.
    """
    if not isinstance(tree, Mapping):
        raise DataError(f"{where} holds a {type(tree).__name__}, not an object: write one preference pair a line.")
    try:
        return build_config(PreferencePair, tree)
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error


def pair_to_plain(pair: PreferencePair) -> dict[str, Any]:
    """Return the pair as dicts, lists and scalars; what is empty is left out."""
    plain = {key: value for key, value in to_plain(pair).items() if value not in (None, {}, [])}
    for side in ("a", "b"):
        plain[side] = {key: value for key, value in plain[side].items() if value not in (None, {})}
    return plain


def pair_to_json(pair: PreferencePair) -> str:
    """Return the pair as one JSON line without line feed; what is empty is left out."""
    return json.dumps(pair_to_plain(pair), ensure_ascii=False, allow_nan=False)


def _refuse_constant(name: str) -> NoReturn:
    raise DataError(f"{name} is not JSON: leave the field out where there is no number.")


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name}={value} must be between 0 and 1.")
