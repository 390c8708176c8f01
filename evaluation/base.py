"""What a metric is: one clip in, values or a reason out; a failure is never a number.

Metrics see a clip that was decoded once for all of them. What they return is stored clip by clip; means, intervals and
totals are pure functions over the store, so they can be computed again without looking at a video.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Family = Literal["vbench-official", "vbench-port", "vbench-long-port", "reward", "measure"]
"""Who defines the number: the original package, our port of it, our port of VBench-Long, a reward model, or a
measurement of our own. Values of two families are never mixed in one number."""
Status = Literal["ok", "skipped", "failed"]
Shared = TypeVar("Shared")


@dataclass(frozen=True, kw_only=True)
class ClipEntry:
    """A clip of a set: where it lies and what it was made for."""

    file: Path
    """mp4 (or anything that FFmpeg reads)."""
    sha256: str
    """Of the file."""
    prompt: str
    sample: int = 0
    """Number of the clip among those of its prompt, from 0."""
    seed: int | None = None
    """Of its noise; clips of two systems with equal prompt and seed are a pair. None where nobody recorded it."""
    wording: str | None = None
    """What the suite gives models in place of the prompt, None: the prompt itself."""
    dimensions: frozenset[str] | None = None
    """Dimensions of the suite that the prompt belongs to (VBench asks each of some prompts alone); None: all."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the suite says about the prompt, for example VBench's auxiliary_info of a dimension."""
    seconds: float | None = None
    """Its length; None where nobody measured it, as in what follows."""
    num_frames: int | None = None
    height: int | None = None
    """Pixels."""
    width: int | None = None
    """Pixels."""
    fps: float | None = None
    """Frames per second."""

    @property
    def shape(self) -> str | None:
        """Length, size and frame rate as text, None where nobody measured them."""
        if self.num_frames is None or self.fps is None:
            return None
        return f"{self.num_frames} frames of {self.height}x{self.width} at {self.fps:.4g} a second"


@dataclass(frozen=True, kw_only=True)
class LeftOutClip:
    """A clip that a suite asks of a system and that cannot be scored: it counts against the coverage of every score."""

    clip: str
    """File name, or "prompt-number" of one that is not there."""
    prompt: str
    sample: int
    dimensions: frozenset[str] | None
    """As of a `ClipEntry`."""
    reason: str
    """What is wrong with it."""


@dataclass(frozen=True)
class DecodedClip:
    """A clip and its pixels, shared by every metric; nobody writes to them."""

    entry: ClipEntry
    frames: Tensor
    """uint8, RGB, shape (frames, 3, height, width)."""
    fps: float
    """Frames per second of the file."""
    _kept: dict[Hashable, object] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def pixels(self) -> Tensor:
        """The frames in [0, 1], float32, same shape."""
        return self.frames.to(torch.float32).div_(255.0)

    def frames_on(self, device: torch.device) -> Tensor:
        """Return the frames on a device, copied there once for all metrics that compute on it."""
        return self.once(("frames on", device), lambda: self.frames.to(device))

    def once(self, key: Hashable, compute: Callable[[], Shared]) -> Shared:
        """Return what several metrics need of this clip, computed for the first of them and kept with the clip.

        Args:
            key: What it is: the function or the model that makes it, which stands for all that the result depends on.
            compute: Makes it; whoever gets the result only reads it.
        """
        if key not in self._kept:
            self._kept[key] = compute()
        return cast(Shared, self._kept[key])


@dataclass(frozen=True, kw_only=True)
class MetricSpec:
    """The facts of a metric that plans, tables and reports read."""

    name: str
    """Registry name, for example "temporal_flickering"."""
    version: str
    """Changes whenever the same clip may get another value; part of the store's key."""
    family: Family
    dimensions: tuple[str, ...]
    """Keys of `ClipScore.values`, in order; a metric of one value has one dimension of the metric's name."""
    unit: str
    """What the values are, for example "share", "dB", "pixels per frame"."""
    higher_is_better: bool | None
    """None where neither direction is better, such as brightness."""
    uses_prompt: bool
    """Whether the prompt can change a value."""
    reads: Literal["frames", "file"] = "frames"
    """Whether it looks at the shared decoding, or opens the file itself (the original VBench does)."""
    weights: tuple[str, ...] = ()
    """Names of the weight files it needs, in the ledger of `rewards.weight_files`; empty for a weightless one."""
    licence: str = "Apache-2.0"
    """SPDX name of code and weights."""
    paper: str | None = None
    """Source of the formula, None for our own."""
    first_of_prompt: int | None = None
    """Of the clips of a prompt that have a value, only so many count, by sample number; None: all. VBench's static
    filter keeps five."""


@dataclass(frozen=True, kw_only=True)
class ClipScore:
    """What a metric says about one clip."""

    values: Mapping[str, float]
    """Dimension -> finite value."""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Dimension -> one finite value per frame or segment, where a metric has them."""


class SkipClipError(Exception):
    """Raised by a metric that has nothing to say about a clip, for example one without motion; its text is the reason.

    Any other exception is a failure of the metric; it is stored with its message and counts against the coverage.
    """


@runtime_checkable
class Metric(Protocol):
    """Scores one clip at a time. Any class with these two members plugs in, by name or as "package.module:Class"."""

    @property
    def spec(self) -> MetricSpec:
        """The metric's facts."""

    def score(self, clip: DecodedClip) -> ClipScore:
        """Score a clip.

        Raises:
            SkipClipError: The metric has nothing to say about this clip.
        """


@runtime_checkable
class SetMetric(Protocol):
    """Compares two sets of clips as a whole, such as FVD; the features of each clip are stored.

    A metric that knows how sure it is also has `interval(features, reference, *, clusters, reference_clusters)`, which
    returns the distance as an `Interval` of 95%, clusters (prompts; one label a row of features) taken whole, and
    raises `DataError` where there are too few. Where `distance` is a static method, as is `interval` then, a report
    calls them on stored features without loading a network.
    """

    @property
    def spec(self) -> MetricSpec:
        """The metric's facts; exactly one dimension."""

    def features(self, clip: DecodedClip) -> NDArray[np.float32]:
        """Return the features of a clip, shape (items, width): one row for a video, one a frame for images.

        Raises:
            SkipClipError: The clip has none.
        """

    def distance(self, features: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
        """Return the distance of two sets of features, shapes (n, width) and (m, width).

        Raises:
            DataError: A set is too small for it.
        """


@dataclass(frozen=True, kw_only=True)
class ClipResult:
    """A stored line: what came of one metric on one clip."""

    status: Status
    values: Mapping[str, float] = field(default_factory=dict)
    """Empty unless ok."""
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    reason: str | None = None
    """Why it was skipped or failed; None where ok."""
    seconds: float = 0.0
    """Time of the metric alone, without decoding."""
