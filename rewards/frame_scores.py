"""From scores of single frames to the score of a clip: what every image reward shares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from rewards.base import RewardOutput, RewardSpec, masked_output
from rewards.errors import RewardError
from rewards.inputs import check_clips, full_precision
from rewards.pretrained import follow, in_passes
from rewards.video_ops import take_frames

ReductionKind = Literal["mean", "min", "softmin", "first"]


@dataclass(frozen=True)
class FrameReduction:
    """How the scores of a clip's frames become one."""

    kind: ReductionKind = "mean"
    """`mean`; `min`, the worst frame; `softmin`, a mean weighted towards the worst ones; `first`, the first chosen."""
    temperature: float | None = None
    """Of `softmin`, in the reward's own unit: frames that much above the worst weigh e times less."""

    def __post_init__(self) -> None:
        """Check that kind and temperature fit.

        Raises:
            RewardError: Unknown kind, a temperature where none fits, or a missing or non-positive one.
        """
        if self.kind not in get_args(ReductionKind):
            raise RewardError(f"Unknown frame reduction {self.kind!r}. Known: {', '.join(get_args(ReductionKind))}.")
        if (self.kind == "softmin") != (self.temperature is not None):
            raise RewardError(
                "Only the frame reduction 'softmin' takes a temperature, and it needs one in the reward's unit: "
                f"{{kind: softmin, temperature: 0.1}}; got kind {self.kind!r}, temperature {self.temperature}."
            )
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise RewardError(f"The temperature of softmin must be above 0, got {self.temperature}.")

    def __call__(self, scores: Tensor) -> Tensor:
        """Reduce frames.

        Args:
            scores: (batch, frames).

        Returns:
            (batch,), never below the worst frame or above the best.
        """
        if self.kind == "mean":
            return scores.mean(dim=1)
        if self.kind == "min":
            return scores.amin(dim=1)
        if self.kind == "first":
            return scores[:, 0]
        assert self.temperature is not None
        return (torch.softmax(-scores / self.temperature, dim=1) * scores).sum(dim=1)


def parse_frame_reduction(value: FrameReduction | str | Mapping[str, object]) -> FrameReduction:
    """Read a frame reduction as a config writes it.

    Args:
        value: "mean", "min", "first", a mapping such as {kind: softmin, temperature: 0.1}, or a reduction.

    Raises:
        RewardError: Anything else.
    """
    if isinstance(value, FrameReduction):
        return value
    fields = {"kind": value} if isinstance(value, str) else dict(value)
    kind, temperature = fields.pop("kind", None), fields.pop("temperature", None)
    is_number = temperature is None or type(temperature) in (int, float)
    if fields or not isinstance(kind, str) or not is_number:
        raise RewardError(
            f"Frame reduction {value!r} is not understood: use mean, min, first or {{kind: softmin, temperature: 0.1}}."
        )
    return FrameReduction(cast(ReductionKind, kind), cast(float | None, temperature))


def score_frames(
    video: Tensor,
    prompts: Sequence[str],
    *,
    fps: float,
    spec: RewardSpec,
    model: nn.Module,
    score: Callable[..., Tensor],
    condition: Callable[[Sequence[str], Tensor], tuple[Tensor, ...]] | None = None,
    reduction: FrameReduction,
    frames_per_pass: int | None = None,
) -> RewardOutput:
    """Score the chosen frames of every clip and reduce them: the `__call__` of an image reward.

    Args:
        video: (batch, frames, 3, height, width) in [0, 1].
        prompts: One per clip.
        fps: Frames per second.
        spec: Of the reward; its dimensions are the columns that `score` returns.
        model: Moves to the clip's device and precision.
        score: (n, 3, height, width) in [0, 1], and the rows of `condition` for their clips, to (n,) or (n, dimensions).
        condition: Prompts and a tensor whose device and precision count, to tensors of one row per clip; called once.
        reduction: Over the frames of a clip.
        frames_per_pass: Frames scored at a time, None for all; bounds memory, changes no score.

    Raises:
        RewardError: Input of the wrong form.
    """
    clips = check_clips(video, prompts, fps=fps)
    follow(model, clips.video)
    with full_precision(clips.video):
        indices = tuple(dict.fromkeys(spec.frames.select(clips.video.shape[1], fps=fps)))
        if reduction.kind == "first":
            indices = indices[:1]
        frames = take_frames(clips.video, indices)
        rows = condition(prompts, clips.video) if condition is not None else ()
        per_frame = tuple(row.repeat_interleave(len(indices), dim=0) for row in rows)
        scores = in_passes(score, (frames.flatten(0, 1), *per_frame), frames_per_pass)
        columns = scores.reshape(len(video), len(indices), len(spec.dimensions)).unbind(-1)
        reduced = {key: reduction(column) for key, column in zip(spec.dimensions, columns, strict=True)}
    return masked_output(reduced, clips.valid, clips.reasons)


def check_frames_per_pass(frames_per_pass: int | None) -> int | None:
    """Return the option, or refuse it.

    Raises:
        RewardError: Below 1.
    """
    if frames_per_pass is not None and frames_per_pass < 1:
        raise RewardError(f"frames_per_pass must be 1 or more, got {frames_per_pass}.")
    return frames_per_pass
