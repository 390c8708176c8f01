"""Several rewards as one: weighted sum of scores that are normalised by the base model's statistics.

Raw scores live on scales of their own (17 to 24 for one, 0.2 to 0.3 for another): without normalisation the weights
mean nothing. After it a weight is "how much one standard deviation of the base model's clips is worth".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from rewards.base import FramePolicy, Reward, RewardOutput, RewardSpec, masked_output, require_differentiable
from rewards.errors import RewardError

TOTAL = "total"
"""Dimension of the weighted sum."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Statistics of raw scores on clips of the base model; a score becomes (score - mean) / std."""

    mean: float
    """In the reward's own unit."""
    std: float
    """In the reward's own unit, > 0."""
    provenance: str = ""
    """Where the numbers come from: model, suite, number of clips."""

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RewardError: Not finite, or std not positive.
        """
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise RewardError(f"A normalisation needs a finite mean and std > 0, got mean={self.mean}, std={self.std}.")

    @classmethod
    def from_scores(cls, scores: Tensor, *, provenance: str = "") -> Self:
        """Measure mean and (unbiased) standard deviation.

        Args:
            scores: (clips,) raw scores, NaN where masked; at least 2 valid ones.
            provenance: Where the clips come from.

        Raises:
            RewardError: Fewer than 2 valid scores, or all of them equal.
        """
        valid = scores.detach().double().flatten()
        valid = valid[~valid.isnan()]
        if len(valid) < 2:
            raise RewardError(f"Normalising a reward needs at least 2 valid scores of base clips, got {len(valid)}.")
        mean, std = float(valid.mean()), float(valid.std())
        if not std > 1e-8 * max(1.0, abs(mean)):
            raise RewardError(f"All {len(valid)} base clips score {mean:.6g}: this reward cannot tell them apart.")
        return cls(mean=mean, std=std, provenance=provenance)


@dataclass(frozen=True, kw_only=True)
class RewardTerm:
    """One reward of a sum."""

    key: str
    """Name in logs and tables, unique in the sum, not "total"."""
    reward: Reward
    """The score."""
    weight: float = 1.0
    """Worth of one base standard deviation. Negative for a reward whose lower values are better."""
    dimension: str | None = None
    """Which dimension counts; None where the reward has only one."""
    normalisation: Normalisation | None = None
    """Base-model statistics; None until they are measured."""

    def __post_init__(self) -> None:
        """Check the term on its own.

        Raises:
            RewardError: Weight zero or against the reward's direction, unknown or ambiguous dimension, bad key.
        """
        spec = self.reward.spec
        if not self.key or self.key == TOTAL:
            raise RewardError(f"A reward in a sum needs a name other than {TOTAL!r}, got {self.key!r}.")
        if not math.isfinite(self.weight) or self.weight == 0:
            raise RewardError(
                f"Reward {self.key!r} has weight {self.weight}: leave it out, or move it to the held-out ones."
            )
        if (self.weight > 0) != spec.higher_is_better:
            better, sign = ("higher", "positive") if spec.higher_is_better else ("lower", "negative")
            raise RewardError(
                f"Reward {self.key!r}: {better} is better, so its weight must be {sign}, got {self.weight}."
            )
        if self.dimension is None and len(spec.dimensions) > 1:
            raise RewardError(f"Reward {self.key!r} has several dimensions, choose one: {', '.join(spec.dimensions)}.")
        if self.dimension is not None and self.dimension not in spec.dimensions:
            raise RewardError(
                f"Reward {self.key!r} has no dimension {self.dimension!r}. Known: {', '.join(spec.dimensions)}."
            )

    def raw(self, output: RewardOutput) -> Tensor:
        """Return the counting dimension of an output, shape (batch,)."""
        return output.values[self.dimension or self.reward.spec.dimensions[0]]

    @property
    def is_differentiable(self) -> bool:
        """Whether the counting dimension carries a gradient to pixels."""
        spec = self.reward.spec
        return spec.is_differentiable and (self.dimension or spec.dimensions[0]) not in spec.without_gradient

    def normalised(self, raw: Tensor) -> Tensor:
        """Return (raw - mean) / std, negated where lower raw values are better.

        Raises:
            RewardError: The statistics have not been measured.
        """
        return self.weighted(raw) / abs(self.weight)

    def weighted(self, raw: Tensor) -> Tensor:
        """Return weight * (raw - mean) / std.

        Raises:
            RewardError: The statistics have not been measured.
        """
        if self.normalisation is None:
            raise RewardError(
                f"Reward {self.key!r} has no base-model statistics: give mean and std, or measure them first."
            )
        return self.weight * (raw - self.normalisation.mean) / self.normalisation.std


@dataclass(frozen=True)
class PixelGradient:
    """Scores of a batch and the gradient of their sum, ready to be carried through the decoder."""

    output: RewardOutput
    """Detached: the total and the raw score per key."""
    gradient: Tensor
    """d(sum over valid clips of the total) / d(video), in the video's shape and dtype."""
    norms: dict[str, float]
    """Per key, the Euclidean norm of its weighted, normalised part of the gradient."""

    @property
    def shares(self) -> dict[str, float]:
        """Per key, its norm over the sum of norms, in [0, 1]; zeros where no reward has a gradient."""
        total = sum(self.norms.values())
        return {key: norm / total if total > 0 else 0.0 for key, norm in self.norms.items()}


def common_frames(specs: Sequence[RewardSpec]) -> FramePolicy:
    """Return the frame policy that serves several rewards: theirs where they agree, else every frame."""
    policies = {spec.frames for spec in specs}
    return policies.pop() if len(policies) == 1 else FramePolicy("all")


class WeightedReward:
    """Sum over terms of weight * (score - mean) / std. Itself a reward.

    Its values are "total" and the raw, unweighted score of each key. A clip is valid where every term is.
    """

    def __init__(self, terms: Sequence[RewardTerm]) -> None:
        """Put terms together.

        Raises:
            RewardError: No terms, or two of one name.
        """
        keys = [term.key for term in terms]
        if not terms or len(set(keys)) != len(keys):
            raise RewardError(f"A sum of rewards needs one or more distinct names, got {keys}.")
        self.terms = tuple(terms)
        specs = [term.reward.spec for term in terms]
        self.spec = RewardSpec(
            name="weighted",
            version="+".join(
                f"{term.weight:g}*{spec.name}@{spec.version}" for term, spec in zip(terms, specs, strict=True)
            ),
            dimensions=(TOTAL, *keys),
            range=(-math.inf, math.inf),
            higher_is_better=True,
            is_differentiable=all(term.is_differentiable for term in terms),
            frames=common_frames(specs),
            resolution=None,
            licence=", ".join(dict.fromkeys(spec.licence for spec in specs)),
            paper=None,
            uses_prompt=any(spec.uses_prompt for spec in specs),
        )

    def with_normalisation(self, statistics: Mapping[str, Normalisation]) -> "WeightedReward":
        """Return the same sum with statistics set; those of other keys stay.

        Raises:
            RewardError: A key that is not in the sum.
        """
        unknown = sorted(set(statistics) - {term.key for term in self.terms})
        if unknown:
            raise RewardError(f"Statistics for unknown rewards {unknown}. Known: {[term.key for term in self.terms]}.")
        return WeightedReward(
            [replace(term, normalisation=statistics.get(term.key, term.normalisation)) for term in self.terms]
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: A term refuses the input, or statistics are missing.
        """
        return self._combine([term.reward(video, prompts, fps=fps) for term in self.terms])

    def pixel_gradient(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> PixelGradient:
        """Return scores and the pixel gradient of the total, one term's graph at a time.

        Costs the same as one joint backward pass, holds less, and tells the terms' shares apart on the way.

        Args:
            video: (batch, frames, 3, height, width); its own graph, if any, is not touched.
            prompts: One per clip.
            fps: Frames per second.

        Raises:
            RewardError: A term is not differentiable, refuses the input, or lacks statistics.
        """
        leaf = video.detach().requires_grad_()
        gradient = torch.zeros_like(leaf, dtype=torch.promote_types(leaf.dtype, torch.float32))
        outputs, clip_norms = [], {}
        for term in self.terms:
            require_differentiable(term.reward, key=term.key, dimension=term.dimension)
            with torch.enable_grad():
                output = term.reward(leaf, prompts, fps=fps)
                total = term.weighted(term.raw(output))[output.valid].sum()
            if not total.requires_grad:
                raise RewardError(f"Reward {term.key!r} declares a gradient to pixels but its score carries none.")
            (part,) = torch.autograd.grad(total, leaf)
            outputs.append(output.detach())
            clip_norms[term.key] = torch.linalg.vector_norm(part.float().flatten(1), dim=1)
            gradient += part
        combined = self._combine(outputs)
        # A clip that one term masks must not be pulled by the others.
        gradient[~combined.valid] = 0
        norms = {key: float(torch.linalg.vector_norm(norm[combined.valid])) for key, norm in clip_norms.items()}
        return PixelGradient(combined, gradient.to(video.dtype), norms)

    def _combine(self, outputs: Sequence[RewardOutput]) -> RewardOutput:
        raw = {term.key: term.raw(output) for term, output in zip(self.terms, outputs, strict=True)}
        valid = torch.stack([output.valid for output in outputs]).all(dim=0)
        reasons = tuple(
            "; ".join(f"{term.key}: {reason}" for term, reason in zip(self.terms, clip, strict=True) if reason) or None
            for clip in zip(*(output.reasons for output in outputs), strict=True)
        )
        total = torch.stack([term.weighted(raw[term.key]) for term in self.terms]).sum(dim=0)
        return masked_output({TOTAL: total, **raw}, valid, reasons)
