"""Several rewards of the same thing as one careful score: the worst of them, or their mean less their disagreement.

One learned reward is soon fooled by what maximises it; several fooled in the same way are rarer. Coste et al. 2023
(arXiv:2310.02743): worst case (`min`) and uncertainty-weighted (mean minus k times the spread; they take the variance,
we the standard deviation, which keeps the unit). Where members disagree too much the ensemble abstains: the clip is
masked with the reason. For different things that add up, see rewards/composite.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from rewards.base import RewardOutput, RewardSpec, masked_output
from rewards.composite import RewardTerm, common_frames
from rewards.errors import RewardError
from rewards.terms import parse_terms

Aggregate = Literal["mean", "min", "mean_minus_std"]
SCORE = "score"
"""Dimension of the ensemble's own score; the members' normalised scores stand beside it under their names."""

_TINY = 1e-12
"""Under the root of the variance: members that agree exactly have a gradient of 0 through it, not NaN."""


class Ensemble:
    """Members' scores, each normalised by fixed statistics and turned so that higher is better, as one score.

    Unit: one deviation of the clips that the statistics were measured on. Range unbounded. A clip that a member masks,
    or on which the members' standard deviation exceeds `abstain_above`, is not valid.
    """

    def __init__(
        self,
        members: Sequence[RewardTerm | Mapping[str, object]],
        *,
        aggregate: Aggregate = "mean_minus_std",
        num_std: float = 1.0,
        abstain_above: float | None = None,
    ) -> None:
        """Put members together.

        Args:
            members: Terms, or mappings as in a config: {name, label, dimension, options, normalisation: {mean, std,
                provenance}}. Two or more; each needs its statistics. A negative weight only turns the direction.
            aggregate: "mean", "min", or "mean_minus_std".
            num_std: k of "mean_minus_std", >= 0.
            abstain_above: Disagreement (standard deviation over members) above which the ensemble does not judge; None
                always judges.

        Raises:
            RewardError: Fewer than two members, missing statistics, or an option out of range.
        """
        self._terms = parse_terms(members)
        if len(self._terms) < 2:
            raise RewardError(f"An ensemble needs two or more members, got {len(self._terms)}.")
        if lacking := [term.key for term in self._terms if term.normalisation is None]:
            raise RewardError(
                f"Members {lacking} have no statistics, so their units cannot be compared: add normalisation: {{mean, "
                "std, provenance}; `rlhf-video rewards score` prints them for a folder of clips."
            )
        if aggregate not in get_args(Aggregate):
            raise RewardError(f"Unknown aggregate {aggregate!r}. Known: {', '.join(get_args(Aggregate))}.")
        if not 0 <= num_std < math.inf:
            raise RewardError(f"num_std must be 0 or more, got {num_std}.")
        if abstain_above is not None and not 0 < abstain_above < math.inf:
            raise RewardError(f"abstain_above must be above 0, got {abstain_above}.")
        self._aggregate, self._num_std, self._abstain_above = aggregate, float(num_std), abstain_above
        specs = [term.reward.spec for term in self._terms]
        rule = {"mean": "mean", "min": "min", "mean_minus_std": f"mean-{num_std:g}std"}[aggregate]
        limit = "" if abstain_above is None else f",abstain>{abstain_above:g}"
        self.spec = RewardSpec(
            name="ensemble",
            version=f"{rule}{limit}({', '.join(f'{spec.name}@{spec.version}' for spec in specs)})",
            dimensions=(SCORE, *(term.key for term in self._terms)),
            range=(-math.inf, math.inf),
            higher_is_better=True,
            is_differentiable=all(term.is_differentiable for term in self._terms),
            frames=common_frames(specs),
            resolution=None,
            licence=", ".join(dict.fromkeys(spec.licence for spec in specs)),
            paper="arXiv:2310.02743",
            uses_prompt=any(spec.uses_prompt for spec in specs),
        )

    def __call__(self, video: Tensor, prompts: Sequence[str], *, fps: float) -> RewardOutput:
        """Score a batch, see `Reward`.

        Raises:
            RewardError: A member refuses the input.
        """
        outputs = [term.reward(video, prompts, fps=fps) for term in self._terms]
        scores = torch.stack(
            [term.normalised(term.raw(output)) for term, output in zip(self._terms, outputs, strict=True)]
        )
        valid = torch.stack([output.valid for output in outputs]).all(dim=0)
        scores = torch.where(valid, scores, torch.zeros_like(scores))
        spread = (scores.var(dim=0, correction=0) + _TINY).sqrt()
        reasons = [
            "; ".join(f"{term.key}: {why}" for term, why in zip(self._terms, clip, strict=True) if why) or None
            for clip in zip(*(output.reasons for output in outputs), strict=True)
        ]
        if self._abstain_above is not None:
            disagreement = spread.detach()
            for clip in (valid & (disagreement > self._abstain_above)).nonzero().flatten().tolist():
                reasons[clip] = f"the members disagree: deviation {disagreement[clip]:.3g} > {self._abstain_above:g}"
            valid = valid & (disagreement <= self._abstain_above)
        members = {term.key: score for term, score in zip(self._terms, scores, strict=True)}
        return masked_output({SCORE: self._combine(scores, spread), **members}, valid, tuple(reasons))

    def _combine(self, scores: Tensor, spread: Tensor) -> Tensor:
        if self._aggregate == "min":
            return scores.amin(dim=0)
        mean = scores.mean(dim=0)
        return mean - self._num_std * spread if self._aggregate == "mean_minus_std" else mean
