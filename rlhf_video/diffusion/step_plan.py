"""Noise levels of few-step chunked roll-outs: which levels each chunk is denoised at, and what that costs."""

from dataclasses import dataclass
from typing import Literal

import torch

from rlhf_video.diffusion.sigmas import shift_sigma
from rlhf_video.errors import ConfigError

StepSchedule = Literal["skip", "prefix"]
"""How fewer steps than the trained ones are taken: evenly spread over the whole range, or the first of the list."""


def step_levels(
    num_steps: int, *, shift: float, schedule: StepSchedule = "skip", longest: int = 4
) -> tuple[float, ...]:
    """Return the noise levels at which a few-step model is called, from 1 downwards; 0 follows the last.

    The longest list is 1, (N-1)/N, ..., 1/N under the shift; with shift 5 and four steps that is 1, 0.9375, 0.8333,
    0.625, the list of CausVid and Self-Forcing (arXiv:2506.08009). "skip" spreads n levels alike; "prefix" takes the
    first n of the longest list, what a random exit step of Self-Forcing trains.

    Args:
        num_steps: Calls n.
        shift: Sigma shift > 0.
        schedule: How n levels are chosen.
        longest: Calls N of the longest list, for "prefix".

    Raises:
        ConfigError: n is below 1, or above N with "prefix", or the shift is not positive.
    """
    if shift <= 0:
        raise ConfigError(f"shift={shift}: the sigma shift must be positive; 1 means no shift.")
    if num_steps < 1:
        raise ConfigError(f"num_steps={num_steps}: at least one step is needed.")
    if schedule == "prefix" and num_steps > longest:
        raise ConfigError(f"num_steps={num_steps} is more than the {longest} levels of the list that is cut short.")
    parts = num_steps if schedule == "skip" else longest
    even = 1 - torch.arange(num_steps, dtype=torch.float64) / parts
    return tuple(shift_sigma(even, shift).tolist())


@dataclass(frozen=True)
class StepPlan:
    """Noise levels of a roll-out, chunk by chunk."""

    first: tuple[float, ...]
    """Of the first chunk, decreasing from 1, without the final 0."""
    later: tuple[float, ...]
    """Of every later chunk."""

    def __post_init__(self) -> None:
        """Check the levels.

        Raises:
            ConfigError: A list is empty, does not decrease, or leaves (0, 1].
        """
        for name, levels in (("first", self.first), ("later", self.later)):
            if list(levels) != sorted(set(levels), reverse=True) or not all(0 < level <= 1 for level in levels or [0]):
                raise ConfigError(
                    f"Noise levels {list(levels)} of the {name} chunk: give decreasing ones in (0, 1], at least one."
                )

    @classmethod
    def of(
        cls,
        num_steps: int,
        *,
        shift: float,
        first_chunk_steps: int | None = None,
        schedule: StepSchedule = "skip",
        longest: int = 4,
    ) -> "StepPlan":
        """Return the plan of an n-step model.

        Args:
            num_steps: Calls for a chunk.
            shift: Sigma shift > 0.
            first_chunk_steps: First-Frame Enhancement (Adversarial Self-Distillation, arXiv:2511.01419): the first
                chunk has no past to hold on to, and gets at least that many calls. None treats all chunks alike.
            schedule: See `step_levels`.
            longest: See `step_levels`.

        Raises:
            ConfigError: As `step_levels`.
        """
        first = max(num_steps, first_chunk_steps or 0)
        longest = max(longest, first_chunk_steps or 0)  # one list for all chunks
        return cls(
            step_levels(first, shift=shift, schedule=schedule, longest=longest),
            step_levels(num_steps, shift=shift, schedule=schedule, longest=longest),
        )

    def levels(self, chunk: int) -> tuple[float, ...]:
        """Return the noise levels of a chunk, numbered from 0."""
        return self.first if chunk == 0 else self.later

    def num_evaluations(self, num_chunks: int, *, recaches: int) -> int:
        """Return how often the model is called for a clip.

        Args:
            num_chunks: Chunks of the clip.
            recaches: Calls that only write the key-value cache: one for each chunk that another one follows, where the
                context is clean; 0 where the last step's keys are kept.
        """
        return len(self.first) + (num_chunks - 1) * len(self.later) + recaches
