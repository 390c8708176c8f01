"""Log-likelihood of comparisons with its two derivatives: Bradley-Terry, Davidson, Rao-Kupper, and a Gaussian prior.

Each model's log-probability of an outcome is a concave function of two numbers, the gap of strengths and a tie number:

- Bradley and Terry 1952: no tie number; a tie is half a win for each side.
- Davidson 1970: theta = ln v. An exponential family: the gradient is what was seen minus what was expected.
- Rao and Kupper 1967: L = ln k > 0, the difference that a rater cannot tell; log(e^2L - 1) keeps it positive.

So the sum is concave in strengths and tie number together and Newton's method finds its one maximum from anywhere.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_video.stats.tie_models import bradley_terry, davidson, rao_kupper

Likelihood = Literal["bradley_terry", "davidson", "rao_kupper"]
Vector = NDArray[np.float64]


class OutcomeTerms(NamedTuple):
    """Log-probability of each outcome and its derivatives by the gap (d) and the tie number (t), each of shape (n,)."""

    log: Vector
    d: Vector
    t: Vector
    dd: Vector
    dt: Vector
    tt: Vector


class Derivatives(NamedTuple):
    """Value, gradient (p,) and Hessian (p, p) of the penalised log-likelihood."""

    value: float
    gradient: Vector
    hessian: Vector


def tie_number(likelihood: Likelihood, parameter: float) -> float:
    """Return the number that is fitted, ln v or ln k, of a tie parameter; 0 for Bradley-Terry, which has none."""
    return 0.0 if likelihood == "bradley_terry" else math.log(parameter)


def tie_parameter_of(likelihood: Likelihood, share: float) -> float:
    """Return the tie parameter under which equal systems tie with probability `share`, in (0, 1)."""
    return 2.0 * share / (1.0 - share) if likelihood == "davidson" else (1.0 + share) / (1.0 - share)


def outcome_terms(likelihood: Likelihood, gap: Vector, tie: float, outcome: NDArray[np.int8]) -> OutcomeTerms:
    """Return log-probabilities of outcomes and their derivatives.

    Args:
        likelihood: The model.
        gap: Strength of A minus strength of B, shape (n,).
        tie: ln v (Davidson) or ln k > 0 (Rao-Kupper); without effect for Bradley-Terry.
        outcome: 1, 0 or -1, shape (n,).
    """
    if likelihood == "davidson":
        return _davidson_terms(gap, tie, outcome)
    if likelihood == "rao_kupper":
        return _rao_kupper_terms(gap, tie, outcome)
    log_a, _, log_b = bradley_terry(gap)
    points, win, loss = (outcome + 1) / 2.0, np.exp(log_a), np.exp(log_b)
    nothing = np.zeros_like(gap)
    value = points * log_a + (1.0 - points) * log_b
    return OutcomeTerms(value, points * loss - (1.0 - points) * win, nothing, -win * loss, nothing, nothing)


def _davidson_terms(gap: Vector, tie: float, outcome: NDArray[np.int8]) -> OutcomeTerms:
    logs = davidson(gap, math.exp(tie))
    win, tied, loss = (np.exp(log) for log in logs)
    # The family's statistic is (outcome / 2, whether it is a tie). Gradient: what was seen minus its mean; Hessian:
    # minus its covariance. Both are written without 1 - P(A), which cancels where one side always wins.
    return OutcomeTerms(
        log=_of_outcome(outcome, *logs),
        d=_of_outcome(outcome, loss + tied / 2.0, (loss - win) / 2.0, -win - tied / 2.0),
        t=_of_outcome(outcome, -tied, win + loss, -tied),
        dd=-(win * loss + tied * (win + loss) / 4.0),
        dt=tied * (win - loss) / 2.0,
        tt=-tied * (win + loss),
    )


def _rao_kupper_terms(gap: Vector, tie: float, outcome: NDArray[np.int8]) -> OutcomeTerms:
    logs = rao_kupper(gap, math.exp(tie))
    log_a, _, log_b = logs
    miss_a, miss_b = -np.expm1(log_a), -np.expm1(log_b)  # derivative of log s(x) is 1 - s(x)
    bend_a, bend_b = np.exp(log_a) * miss_a, np.exp(log_b) * miss_b
    # log P(tie) = log P(A) + log P(B) + log(e^2L - 1): a tie has both terms, a win one.
    has_a, has_b, tied = ((outcome >= 0) * 1.0, (outcome <= 0) * 1.0, (outcome == 0) * 1.0)
    return OutcomeTerms(
        log=_of_outcome(outcome, *logs),
        d=has_a * miss_a - has_b * miss_b,
        t=-has_a * miss_a - has_b * miss_b - tied * (2.0 / math.expm1(-2.0 * tie)),
        dd=-has_a * bend_a - has_b * bend_b,
        dt=has_a * bend_a - has_b * bend_b,
        tt=-has_a * bend_a - has_b * bend_b - tied / math.sinh(tie) ** 2,
    )


def _of_outcome(outcome: NDArray[np.int8], of_a: Vector, of_tie: Vector, of_b: Vector) -> Vector:
    return np.where(outcome > 0, of_a, np.where(outcome < 0, of_b, of_tie))


@dataclass(frozen=True, eq=False)
class RankingLikelihood:
    """The penalised log-likelihood of weighted outcomes as a function of p free parameters.

    The strengths are `contrasts @ free[:m - 1]`, which sums to zero; a fitted tie number is the last free parameter.
    """

    likelihood: Likelihood
    first: NDArray[np.intp]
    second: NDArray[np.intp]
    outcome: NDArray[np.int8]
    contrasts: Vector
    """Orthonormal columns that sum to zero, shape (m, m - 1): the length of the strengths is that of the parameters."""
    prior_precision: float
    """1 / prior_sd^2 of each strength, 0 without a prior."""

    @property
    def fits_ties(self) -> bool:
        """Whether a tie number is among the free parameters."""
        return self.likelihood != "bradley_terry"

    def split(self, free: Vector) -> tuple[Vector, float]:
        """Return the strengths (m,) and the tie number of free parameters (p,)."""
        num_contrasts = self.contrasts.shape[1]
        return self.contrasts @ free[:num_contrasts], float(free[-1]) if self.fits_ties else 0.0

    def jacobian(self) -> Vector:
        """Return the derivative of (strengths, tie number) by the free parameters, shape (m or m + 1, p)."""
        num_systems, num_contrasts = self.contrasts.shape
        extra = int(self.fits_ties)
        matrix = np.zeros((num_systems + extra, num_contrasts + extra))
        matrix[:num_systems, :num_contrasts] = self.contrasts
        matrix[num_systems:, num_contrasts:] = 1.0
        return matrix

    def precision(self) -> Vector:
        """Return the prior's precision matrix of the free parameters, shape (p, p); the tie number has no prior."""
        num_contrasts, extra = self.contrasts.shape[1], int(self.fits_ties)
        return np.diag([self.prior_precision] * num_contrasts + [0.0] * extra)

    def value(self, free: Vector, weight: Vector) -> float:
        """Return the penalised log-likelihood; -inf where Rao and Kupper's threshold is not positive."""
        strengths, tie = self.split(free)
        if self.likelihood == "rao_kupper" and tie <= 0.0:
            return -math.inf
        terms = outcome_terms(self.likelihood, strengths[self.first] - strengths[self.second], tie, self.outcome)
        return float(weight @ terms.log - 0.5 * self.prior_precision * strengths @ strengths)

    def scores(self, free: Vector) -> Vector:
        """Return the gradient of each outcome's log-probability by the free parameters, shape (n, p), no prior."""
        terms, by_gap, by_tie = self._parts(free)
        return terms.d[:, None] * by_gap + terms.t[:, None] * by_tie

    def derivatives(self, free: Vector, weight: Vector) -> Derivatives:
        """Return value, gradient and Hessian at `free`, shape (p,), for weights of the outcomes, shape (n,)."""
        terms, by_gap, by_tie = self._parts(free)
        prior = self.precision()
        gradient = (weight * terms.d) @ by_gap + (weight * terms.t) @ by_tie - prior @ free
        mixed = by_gap.T @ ((weight * terms.dt)[:, None] * by_tie)
        hessian = by_gap.T @ ((weight * terms.dd)[:, None] * by_gap) + mixed + mixed.T
        hessian += by_tie.T @ ((weight * terms.tt)[:, None] * by_tie)
        value = float(weight @ terms.log - 0.5 * free @ prior @ free)
        return Derivatives(value, gradient, hessian - prior)

    def _parts(self, free: Vector) -> tuple[OutcomeTerms, Vector, Vector]:
        """Return the terms of each outcome, and how its gap and its tie number depend on `free`, each (n, p)."""
        strengths, tie = self.split(free)
        terms = outcome_terms(self.likelihood, strengths[self.first] - strengths[self.second], tie, self.outcome)
        jacobian = self.jacobian()
        by_gap = jacobian[self.first] - jacobian[self.second]
        by_tie = np.zeros_like(by_gap)
        if self.fits_ties:
            by_tie[:, -1] = 1.0
        return terms, by_gap, by_tie
