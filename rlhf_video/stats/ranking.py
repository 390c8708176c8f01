"""Strengths of systems from comparisons: Bradley-Terry, Davidson and Rao-Kupper by maximum likelihood, or with a prior.

    table = Comparisons.from_labels(a, b, labels, prompts=prompts, raters=raters)
    ranking = fit_ranking(table, model="davidson")
    covariance = clustered_covariance(ranking, "prompt", "rater")
    strength_intervals(ranking, covariance)
    difference_interval(ranking, covariance, "mine", "base")
    rank_systems(normal_draws(ranking, covariance))

Sources: Bradley and Terry 1952 (Biometrika 39), Davidson 1970 (JASA 65), Rao and Kupper 1967 (JASA 62); when a maximum
exists, Ford 1957 and comparison_graph.py; half wins for ties as public arenas count them (arXiv:2403.04132). With many
ties half wins shrink the gaps (order and tests survive); Davidson's model keeps the gaps of decided comparisons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats.comparison_graph import check_connected, find_separation
from rlhf_video.stats.comparisons import Comparisons
from rlhf_video.stats.ranking_likelihood import Likelihood, RankingLikelihood, Vector, tie_number, tie_parameter_of
from rlhf_video.stats.tie_models import Outcomes, bradley_terry, davidson, rao_kupper

RankingModel = Literal["bradley_terry", "bradley_terry_without_ties", "davidson", "rao_kupper"]
"""bradley_terry counts a tie as half a win for each; _without_ties drops ties; the others fit how often people tie."""

_MAX_STEPS = 100  # Newton needs about ten; the bound only ends a fit that rounding keeps from its maximum
_LONGEST_STEP = 4.0  # in log-odds: a full step from far away may overshoot into overflow


@dataclass(frozen=True, eq=False)
class Cells:
    """Comparisons summed by (pair, outcome), K cells of them: a fit costs K, whatever the number of votes."""

    likelihood: RankingLikelihood
    """Of one outcome per cell, the system of the lower index first."""
    index: NDArray[np.intp]
    """Cell of each comparison, shape (n,)."""

    def weights(self, row_weights: Vector) -> Vector:
        """Sum weights of comparisons, shape (n,), to weights of cells, shape (K,)."""
        return np.bincount(self.index, weights=row_weights, minlength=len(self.likelihood.outcome)).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """A fit. The gap of two strengths is the log-odds of a decided comparison (Bradley-Terry, Davidson)."""

    comparisons: Comparisons
    """What was fitted: weights above 0, without ties where the model drops them."""
    model: RankingModel
    prior_sd: float | None
    strengths: NDArray[np.float64]
    """Strength of each system in log-odds, summing to zero, shape (m,)."""
    tie_parameter: float | None
    """Davidson's v or Rao and Kupper's k; 0 or 1, their bounds, where nobody tied. None for Bradley-Terry."""
    separation: str | None
    """Why only the prior keeps the strengths finite; None where the maximum likelihood is finite itself."""
    cells: Cells = field(repr=False)
    """The comparisons summed by pair and outcome, and their likelihood."""
    free: NDArray[np.float64] = field(repr=False)
    """Free parameters at the maximum, shape (p,)."""

    @property
    def systems(self) -> tuple[str, ...]:
        """Names in the order of `strengths`."""
        return self.comparisons.systems

    def index(self, system: str) -> int:
        """Return where a system stands in `strengths`.

        Raises:
            DataError: It is not among the systems.
        """
        if system not in self.systems:
            raise DataError(f"{system!r} was not ranked. Ranked: {', '.join(self.systems)}.")
        return self.systems.index(system)

    def outcome_log_probabilities(self, a: str, b: str) -> Outcomes:
        """Return the fitted log-probabilities of (A wins, tie, B wins), each of shape ()."""
        gap = self.strengths[self.index(a)] - self.strengths[self.index(b)]
        if self.tie_parameter is None:
            return bradley_terry(gap)
        return (davidson if self.model == "davidson" else rao_kupper)(gap, self.tie_parameter)


def fit_ranking(
    comparisons: Comparisons, *, model: RankingModel = "bradley_terry", prior_sd: float | None = None
) -> Ranking:
    """Fit the strengths, and the tie parameter of a tie model, by Newton's method to machine precision.

    Args:
        comparisons: The table; weights multiply the log-likelihood.
        model: How outcomes follow from strengths and what a tie counts.
        prior_sd: Standard deviation, in log-odds, of a Gaussian prior on each strength around their mean; it keeps an
            undefeated system finite. None for maximum likelihood. 1 says that most systems beat each other less than
            4 times of 5, and weighs about as much as four comparisons per system.

    Raises:
        ConfigError: An unknown model, or a prior_sd that is not positive.
        DataError: Nothing to fit, systems that never met, a maximum at infinity without a prior, or only ties where a
            tie parameter is fitted.
    """
    _check_settings(model, prior_sd)
    keep = comparisons.weight > 0
    if model == "bradley_terry_without_ties":
        keep &= comparisons.outcome != 0
    table = comparisons.rows(keep)
    check_connected(table)
    fits_ties = model in ("davidson", "rao_kupper")
    if fits_ties and not table.outcome.any():
        raise DataError(
            f"Every comparison is a tie: {model} has nothing to scale by. model='bradley_terry' can say so."
        )
    separation = find_separation(table, fits_ties=fits_ties)
    if separation is not None and prior_sd is None:
        raise DataError(
            f"The maximum likelihood is infinite: {separation}. Give prior_sd, for example prior_sd=1, which keeps the "
            "strengths finite and flags them, or collect more comparisons."
        )
    cells = sum_cells(table, model=model, prior_sd=prior_sd)
    free = maximise(cells.likelihood, cells.weights(table.weight))
    strengths, tie = cells.likelihood.split(free)
    at_bound = not cells.likelihood.fits_ties  # nobody tied: v = 0 or k = 1, and the model is Bradley-Terry
    return Ranking(
        comparisons=table,
        model=model,
        prior_sd=prior_sd,
        strengths=strengths - strengths.mean(),
        tie_parameter=None if not fits_ties else float(model == "rao_kupper") if at_bound else math.exp(tie),
        separation=separation,
        cells=cells,
        free=free,
    )


def elo(strengths: ArrayLike, *, center: float = 1000.0) -> NDArray[np.float64]:
    """Return strengths on the scale of Elo ratings, for display: 400 points are odds of 10 to 1.

    Args:
        strengths: Log-odds, any shape; with center=0 also gaps, standard errors and ends of intervals.
        center: Rating of a strength of 0.
    """
    return center + np.asarray(strengths, dtype=np.float64) * (400.0 / math.log(10.0))


def sum_cells(table: Comparisons, *, model: RankingModel, prior_sd: float | None) -> Cells:
    """Sum comparisons by unordered pair and outcome.

    Args:
        table: Comparisons of positive weight.
        model: As `fit_ranking`; where nobody tied, every model is Bradley-Terry.
        prior_sd: As `fit_ranking`.
    """
    num_systems, swap = len(table.systems), table.first > table.second
    low, high = np.where(swap, table.second, table.first), np.where(swap, table.first, table.second)
    outcome = np.where(swap, -table.outcome, table.outcome)
    code = (low * num_systems + high) * 3 + outcome + 1
    codes, index = np.unique(code, return_inverse=True)
    pair, shown = np.divmod(codes, 3)
    likelihood: Likelihood = "bradley_terry"
    if model in ("davidson", "rao_kupper") and (table.outcome == 0).any():
        likelihood = "davidson" if model == "davidson" else "rao_kupper"
    # Any orthonormal basis of the vectors that sum to zero will do.
    contrasts = np.linalg.qr(np.eye(num_systems) - 1.0 / num_systems)[0][:, : num_systems - 1]
    terms = RankingLikelihood(
        likelihood=likelihood,
        first=pair // num_systems,
        second=pair % num_systems,
        outcome=(shown - 1).astype(np.int8),
        contrasts=contrasts,
        prior_precision=0.0 if prior_sd is None else prior_sd**-2,
    )
    return Cells(terms, index)


def maximise(likelihood: RankingLikelihood, weight: Vector, *, start: Vector | None = None) -> Vector:
    """Return the free parameters of the one maximum, shape (p,): Newton's method with a line search.

    The log-likelihood is concave, so each step goes up and the last ones double the number of right digits.

    Args:
        likelihood: Of one outcome per weight; its maximum is finite.
        weight: Weights of the outcomes, shape (n,), >= 0.
        start: Where to begin, shape (p,); None for equal strengths and the tie parameter of the share of ties.

    Raises:
        DataError: Rounding keeps it from the maximum, as with weights of very different size.
    """
    free = _start(likelihood, weight) if start is None else start
    for _ in range(_MAX_STEPS):
        value, gradient, hessian = likelihood.derivatives(free, weight)
        step = np.linalg.solve(-hessian, gradient)
        gain = float(gradient @ step)  # twice what a quadratic would rise; it shrinks like the square of the error
        if gain <= 1e-20 * weight.sum():
            return free + step
        size = min(1.0, _LONGEST_STEP / float(np.abs(step).max()))
        rounding = 1e-14 * (abs(value) + weight.sum())
        while likelihood.value(free + size * step, weight) < value + 1e-4 * size * gain - rounding:
            size /= 2.0
        free = free + size * step
    raise DataError(
        f"The fit did not settle in {_MAX_STEPS} Newton steps: weights from {weight[weight > 0].min():.3g} to "
        f"{weight.max():.3g} are too different for double precision, or the comparisons hardly connect the systems."
    )


def _start(likelihood: RankingLikelihood, weight: Vector) -> Vector:
    free = np.zeros(likelihood.contrasts.shape[1] + int(likelihood.fits_ties))
    if likelihood.fits_ties:
        share = float(weight[likelihood.outcome == 0].sum() / weight.sum())
        free[-1] = tie_number(likelihood.likelihood, tie_parameter_of(likelihood.likelihood, share))
    return free


def _check_settings(model: str, prior_sd: float | None) -> None:
    known: Sequence[str] = get_args(RankingModel)
    if model not in known:
        raise ConfigError(f"model={model!r} is not known. Known: {', '.join(known)}.")
    if prior_sd is not None and not (math.isfinite(prior_sd) and prior_sd > 0):
        raise ConfigError(f"prior_sd={prior_sd} must be positive, in log-odds, or None for maximum likelihood.")
