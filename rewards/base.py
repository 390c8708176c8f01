"""What a reward is: a pure score of a video, with its facts declared beside it.

A reward returns scores in float32 and leaves sign, scale and loss to whoever asked. A clip that it cannot score is
masked with a reason (value NaN, `valid` False); it never becomes a number.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, cast, get_args, runtime_checkable

import torch
from torch import Tensor

from rewards.errors import RewardError

FrameKind = Literal["all", "first", "uniform", "rate"]


@dataclass(frozen=True)
class FramePolicy:
    """Which frames of a clip a reward looks at.

    The first of two uses is the reward's own choice of frames; the second tells a trainer which frames it need decode.
    Choosing from an already chosen clip changes nothing, so decoding only those frames gives the same score (with
    `rate` at the fps that keeps the clip's duration).
    """

    kind: FrameKind = "all"
    """`all` frames; the `first` ones; `uniform`, evenly spread from the first frame to the last; or `rate`, likewise
    spread, about `rate` of them per second."""
    count: int | None = None
    """How many: required for `uniform`, 1 by default for `first`, none for `all`; of `rate` the fewest, 1 by default,
    for clips that have so many."""
    rate: float | None = None
    """Of `rate`: frames per second."""
    multiple: int = 1
    """Of `rate`: the number of frames is a multiple of this (2 for models that see frames in pairs)."""

    def __post_init__(self) -> None:
        """Check that kind and count fit.

        Raises:
            RewardError: Unknown kind, a count where none fits, or a missing or non-positive one.
        """
        if self.kind not in get_args(FrameKind):
            raise RewardError(f"Unknown frame policy {self.kind!r}. Known: {', '.join(get_args(FrameKind))}.")
        if (self.kind == "rate") != (self.rate is not None) or (self.multiple != 1 and self.kind != "rate"):
            raise RewardError(
                "Only the frame policy 'rate' takes a rate and a multiple, and it needs the rate, for example "
                f"{{kind: rate, rate: 2.0}}; got kind {self.kind!r}, rate {self.rate}, multiple {self.multiple}."
            )
        if self.rate is not None and not (0 < self.rate < math.inf and self.multiple >= 1):
            raise RewardError(
                f"Frame policy 'rate' needs a rate above 0 and a multiple of at least 1, got {self.rate} and "
                f"{self.multiple}."
            )
        if self.kind == "all" and self.count is not None:
            raise RewardError(
                f"Frame policy 'all' takes no count, got {self.count}: use 'uniform' for {self.count} frames."
            )
        if self.kind == "uniform" and self.count is None:
            raise RewardError("Frame policy 'uniform' needs a count, for example {kind: uniform, count: 8}.")
        if self.count is not None and self.count < 1:
            raise RewardError(f"Frame policy {self.kind!r} needs a count of at least 1, got {self.count}.")

    def select(self, num_frames: int, *, fps: float | None = None) -> tuple[int, ...]:
        """Return the indices of the frames to look at, in ascending order.

        Args:
            num_frames: Frames of the clip, >= 1.
            fps: Frames per second of the clip, > 0; only `rate` needs it.

        Returns:
            `all`: every index. `first`: at most `count` indices. `uniform`: exactly `count` indices, the first and the
            last frame included (the middle one for count 1); a shorter clip repeats frames. `rate`: about
            `rate * num_frames / fps` indices, rounded to a multiple, between `count` and the clip's own number, spread
            as `uniform` does.

        Raises:
            RewardError: `rate` without fps, or a clip with fewer frames than one multiple.
        """
        if self.kind == "all":
            return tuple(range(num_frames))
        if self.kind == "first":
            return tuple(range(min(self.count or 1, num_frames)))
        count = self._count_at_rate(num_frames, fps) if self.kind == "rate" else self.count or 1
        if count == 1:
            return ((num_frames - 1) // 2,)
        # Integer rounding to nearest, halves up: the same on every machine, unlike a float linspace.
        return tuple((2 * i * (num_frames - 1) + count - 1) // (2 * (count - 1)) for i in range(count))

    def _count_at_rate(self, num_frames: int, fps: float | None) -> int:
        """Return how many frames `rate` takes; the rule is `smart_nframes` of Qwen's own qwen_vl_utils."""
        if fps is None:
            raise RewardError("Frame policy 'rate' needs the clip's fps: select(num_frames, fps=...).")
        assert self.rate is not None
        most = num_frames // self.multiple * self.multiple
        if most == 0:
            raise RewardError(
                f"This reward looks at frames by groups of {self.multiple}: give at least {self.multiple} frames, got "
                f"{num_frames}."
            )
        fewest = -(-(self.count or 1) // self.multiple) * self.multiple
        wanted = min(max(num_frames / fps * self.rate, fewest), most)
        return max(1, round(wanted / self.multiple)) * self.multiple


def parse_frame_policy(value: FramePolicy | str | Mapping[str, object]) -> FramePolicy:
    """Read a frame policy as a config writes it.

    Args:
        value: "all", "first", a mapping such as {kind: uniform, count: 8} or {kind: rate, rate: 2.0}, or a policy.

    Raises:
        RewardError: Anything else.
    """
    if isinstance(value, FramePolicy):
        return value
    fields = {"kind": value} if isinstance(value, str) else dict(value)
    kind, count, rate = fields.pop("kind", None), fields.pop("count", None), fields.pop("rate", None)
    multiple = fields.pop("multiple", 1)
    is_whole = type(multiple) is int and (count is None or type(count) is int)
    is_number = rate is None or type(rate) in (int, float)
    if fields or not isinstance(kind, str) or not (is_whole and is_number):
        raise RewardError(
            f"Frame policy {value!r} is not understood: use all, first, {{kind: uniform, count: 8}} or "
            "{kind: rate, rate: 2.0}."
        )
    # The policy itself refuses other kinds.
    return FramePolicy(cast(FrameKind, kind), cast(int | None, count), cast(float | None, rate), cast(int, multiple))


@dataclass(frozen=True, kw_only=True)
class RewardSpec:
    """The facts of a reward that trainers, validators and tables read."""

    name: str
    """Registry name, for example "clip_preference"."""
    version: str
    """Changes whenever the same pixels may score differently."""
    dimensions: tuple[str, ...]
    """Keys of `RewardOutput.values`, in order."""
    range: tuple[float, float]
    """Lowest and highest possible score, infinities allowed; the hull over the dimensions."""
    higher_is_better: bool
    """Direction of every dimension. A reward never flips a sign to make this True."""
    is_differentiable: bool
    """Whether gradients reach the pixels, from every dimension but those `without_gradient`."""
    frames: FramePolicy
    """Which frames it looks at."""
    resolution: tuple[int, int] | None
    """Height and width to which frames are resized, None for the clip's own."""
    licence: str
    """SPDX name of code and weights, or where the folder states it."""
    paper: str | None
    """Source of the formula, None for our own."""
    uses_prompt: bool
    """Whether the prompt can change the score."""
    without_gradient: tuple[str, ...] = ()
    """Dimensions of a differentiable reward that are verdicts: they can be reported, not trained on."""

    def __post_init__(self) -> None:
        """Check dimensions and range.

        Raises:
            RewardError: No or repeated dimensions, an unknown one without gradient, or an empty range.
        """
        if not self.dimensions or len(set(self.dimensions)) != len(self.dimensions):
            raise RewardError(f"Reward {self.name!r} needs distinct dimensions, got {self.dimensions}.")
        if unknown := set(self.without_gradient) - set(self.dimensions):
            raise RewardError(f"Reward {self.name!r} has no dimensions {sorted(unknown)}: see without_gradient.")
        if not self.range[0] < self.range[1]:
            raise RewardError(f"Reward {self.name!r} has an empty range {self.range}.")


@dataclass(frozen=True)
class RewardOutput:
    """Unreduced scores of a batch."""

    values: dict[str, Tensor]
    """Per dimension shape (batch,), float32, NaN where not valid. Float64 for a float64 clip (gradient checks)."""
    valid: Tensor
    """Shape (batch,), bool, on the device of the values. Index with it before reducing: `values[key][valid].mean()`."""
    reasons: tuple[str | None, ...]
    """Per clip: why it is not valid, None where it is."""

    def detach(self) -> Self:
        """Return the same scores without their graph."""
        return type(self)({key: value.detach() for key, value in self.values.items()}, self.valid, self.reasons)


@runtime_checkable
class Reward(Protocol):
    """A pure score. Any class with these two members plugs in, by registry name or as "package.module:Class"."""

    @property
    def spec(self) -> RewardSpec:
        """The reward's facts."""
        ...

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch.

        Args:
            video: (batch, frames, channels, height, width), RGB in [0, 1], any float dtype, on any device.
            prompts: One per clip.
            fps: Frames per second of the clip, > 0.

        Returns:
            Scores on the clip's device.

        Raises:
            RewardError: The whole batch cannot be scored: wrong shape, dtype or range, wrong number of prompts.
        """
        ...


def require_differentiable(reward: Reward, *, key: str | None = None, dimension: str | None = None) -> None:
    """Refuse a reward that cannot train by back-propagation.

    Args:
        reward: The reward somebody wants to train on.
        key: Its name in the config, where that differs from the registry name.
        dimension: The dimension that counts, None where the reward has only one.

    Raises:
        RewardError: The reward declares that no gradient reaches the pixels, or none from this dimension.
    """
    if reward.spec.is_differentiable and dimension in reward.spec.without_gradient:
        smooth = [name for name in reward.spec.dimensions if name not in reward.spec.without_gradient]
        raise RewardError(
            f"Reward {key or reward.spec.name!r}: the dimension {dimension!r} is a verdict without gradient, so it "
            f"cannot train by reward backpropagation. Train on {' or '.join(smooth)}."
        )
    if not reward.spec.is_differentiable:
        raise RewardError(
            f"Reward {key or reward.spec.name!r} is not differentiable, so it cannot train by reward backpropagation. "
            "Move it to the held-out rewards or the judges, or train on preference pairs built with it."
        )


def version_of(**options: tuple[object, object]) -> str:
    """Return the version of a reward whose options change its score: "1", then every option that is not the default.

    Args:
        **options: Name -> (value, default). Long texts are named by the first digits of their SHA-256.
    """
    changed = [f"{name}={_short(value)}" for name, (value, default) in options.items() if value != default]
    return "-".join(["1", *changed])


def _short(value: object) -> str:
    text = str(value).replace(" ", "")
    return text if len(text) <= 24 else hashlib.sha256(text.encode()).hexdigest()[:8]


def masked_output(scores: dict[str, Tensor], valid: Tensor, reasons: tuple[str | None, ...]) -> RewardOutput:
    """Return scores with NaN where they are not valid; no gradient flows into those.

    A clip for which the model gave NaN or infinity is not valid either.

    Args:
        scores: Per dimension shape (batch,).
        valid: (batch,), bool.
        reasons: Per clip, None where valid.
    """
    finite = torch.stack([torch.isfinite(value.detach()) for value in scores.values()]).all(dim=0)
    if not bool((finite | ~valid).all()):
        reasons = tuple(
            why or (None if ok else "the model gave no finite score")
            for why, ok in zip(reasons, finite.tolist(), strict=True)
        )
        valid = valid & finite
    # where() gives the masked branch a zero gradient; multiplying by the mask would give NaN.
    return RewardOutput(
        {key: torch.where(valid, value, torch.full_like(value, math.nan)) for key, value in scores.items()},
        valid,
        reasons,
    )
