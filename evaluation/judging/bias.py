"""What a reward leans on: brightness, motion, duration of the clips, and the length of the prompt."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf_video.stats import Interval, SpearmanRho, bootstrap_mean, bootstrap_statistic, credit_without_ties

PROMPT_LENGTH = "prompt length"


@dataclass(frozen=True, kw_only=True)
class BiasResult:
    """One covariate. For a clip covariate, "more" means: people chose the clip that has more of it."""

    name: str
    correlation: Interval | None
    """Spearman's rho of the margin with the difference A - B, seen from both sides; of |margin| with the words of the
    prompt for the prompt length. None where one of them does not vary."""
    reward_prefers_more: float | None
    """Share of decided comparisons that differ in the covariate in which the reward scores the clip with more of it
    higher, an exact tie counting half; None for the prompt length."""
    people_prefer_more: float | None
    """The same share for people."""
    accuracy_more: Interval | None
    """Accuracy without ties where people chose more of it; for the prompt length, on prompts longer than the median."""
    accuracy_less: Interval | None
    """The same on the others."""

    @property
    def accuracy_against(self) -> Interval | None:
        """Accuracy on the comparisons where the reward's own leaning points the wrong way.

        The leaning is the sign of the correlation; None for the prompt length, or where there is no leaning.
        """
        if self.name == PROMPT_LENGTH or self.correlation is None or self.correlation.mean == 0.0:
            return None
        return self.accuracy_less if self.correlation.mean > 0.0 else self.accuracy_more


def bias_controls(
    labels: NDArray[np.int8],
    margins: NDArray[np.float64],
    prompts: NDArray[np.int64],
    covariates: Mapping[str, NDArray[np.float64]],
    words: NDArray[np.float64],
    *,
    num_resamples: int,
    seed: int,
) -> tuple[BiasResult, ...]:
    """Return one result per covariate, the prompt length last.

    Args:
        labels: 1, -1 or 0, shape (n,).
        margins: Score of A minus score of B, shape (n,).
        prompts: Number of each comparison's prompt, shape (n,).
        covariates: Name -> value of A minus value of B, shape (n,).
        words: Words of each comparison's prompt, shape (n,).
        num_resamples: Bootstrap draws of whole prompts.
        seed: Seed of the draws.
    """
    draws = _Draws(num_resamples, seed)
    decided = labels != 0
    credit = credit_without_ties(labels, margins)
    results = []
    for name, difference in covariates.items():
        # +1: people chose the clip with more; 0: the clips do not differ in it.
        side = labels[decided] * np.sign(difference[decided])
        lean = np.sign(margins[decided]) * np.sign(difference[decided])
        differs = side != 0
        results.append(
            BiasResult(
                name=name,
                correlation=_correlation(SpearmanRho(margins, difference, symmetric=True), prompts, draws),
                reward_prefers_more=float((lean[differs] + 1).mean() / 2) if differs.any() else None,
                people_prefer_more=float((side[differs] > 0).mean()) if differs.any() else None,
                accuracy_more=_mean(credit[side > 0], prompts[decided][side > 0], draws),
                accuracy_less=_mean(credit[side < 0], prompts[decided][side < 0], draws),
            )
        )
    is_long = words[decided] > np.median(words)
    results.append(
        BiasResult(
            name=PROMPT_LENGTH,
            correlation=_correlation(SpearmanRho(np.abs(margins), words), prompts, draws),
            reward_prefers_more=None,
            people_prefer_more=None,
            accuracy_more=_mean(credit[is_long], prompts[decided][is_long], draws),
            accuracy_less=_mean(credit[~is_long], prompts[decided][~is_long], draws),
        )
    )
    return tuple(results)


@dataclass(frozen=True)
class _Draws:
    num_resamples: int
    seed: int


def _correlation(statistic: SpearmanRho, prompts: NDArray[np.int64], draws: _Draws) -> Interval | None:
    if math.isnan(statistic(np.ones(len(prompts)))):
        return None
    return bootstrap_statistic(statistic, prompts, num_resamples=draws.num_resamples, seed=draws.seed)


def _mean(values: NDArray[np.float64], prompts: NDArray[np.int64], draws: _Draws) -> Interval | None:
    return bootstrap_mean(values, prompts, num_resamples=draws.num_resamples, seed=draws.seed) if len(values) else None
