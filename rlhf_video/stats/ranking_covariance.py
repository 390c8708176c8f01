"""How sure fitted strengths are: sandwich covariance clustered by prompt, by rater, or both, and intervals from it.

The inverse information believes that comparisons are independent. Comparisons of one prompt share their clips and one
rater's share a taste, so scores (gradients) are summed within each cluster before they are squared: Huber 1967, White
1980, Liang and Zeger 1986. Two-way: by prompt plus by rater minus by both (Cameron, Gelbach and Miller 2011, JBES 29).
Each term carries the factor G / (G - 1) of its number of clusters G, and intervals use Student's t with G - 1 degrees
of freedom, of the smaller G where there are two.

With a prior, 1 / prior_sd^2 joins the squared scores as if it were one more observation, so that the sandwich of a true
model is its Laplace posterior.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rlhf_video.errors import ConfigError, DataError
from rlhf_video.stats.bootstrap import Interval, check_level, student_quantile
from rlhf_video.stats.calibration import win_probability
from rlhf_video.stats.comparisons import ClusterBy
from rlhf_video.stats.ranking import Ranking
from rlhf_video.stats.ranking_likelihood import Vector, outcome_terms


@dataclass(frozen=True, eq=False)
class RankingCovariance:
    """Covariance of the strengths and, where one is fitted, of the tie number (ln v or ln k) after them."""

    matrix: NDArray[np.float64]
    """Shape (m, m) or (m + 1, m + 1), in squared log-odds; strengths sum to zero, so its rows over them do too."""
    clusters: tuple[ClusterBy, ...]
    """By what scores were clustered; empty for the model's own covariance."""
    num_clusters: int
    """The smaller number where there are two ways; the number of comparisons for the model's own."""

    def critical(self, level: float) -> float:
        """Return how many standard errors an interval of this level reaches to each side."""
        check_level(level)
        upper = (1.0 + level) / 2.0
        return student_quantile(upper, self.num_clusters - 1) if self.clusters else NormalDist().inv_cdf(upper)

    def standard_error(self, gradient: Vector) -> float:
        """Return the standard error of a function of (strengths, tie number) by its gradient (delta method)."""
        return math.sqrt(max(float(gradient @ self.matrix @ gradient), 0.0))


def model_covariance(ranking: Ranking) -> RankingCovariance:
    """Return the inverse information: right only for independent comparisons and a true model.

    With a prior it is the Laplace approximation of the posterior's covariance. Ties that count as half wins vary less
    than the model believes, so it is too wide for them.
    """
    return RankingCovariance(_in_strengths(ranking, _bread(ranking)), (), len(ranking.comparisons))


def clustered_covariance(ranking: Ranking, *clusters: ClusterBy) -> RankingCovariance:
    """Return the sandwich covariance, robust to whatever comparisons of one cluster have in common.

    Where the ranking is separated (only the prior keeps it finite) the scores of an undefeated system hardly vary and
    a plain sandwich would call it certain; then no direction is allowed to be surer than the Laplace posterior.

    Args:
        ranking: The fit.
        clusters: "prompt", "rater", or both. Below about 20 clusters trust it less, and the bootstrap no more.

    Raises:
        ConfigError: No cluster, or the same one twice.
        DataError: A column is missing, or all comparisons are of one cluster, which says nothing about the others.
    """
    if not clusters or len(set(clusters)) != len(clusters):
        raise ConfigError(f"clusters={clusters}: name 'prompt', 'rater' or both; model_covariance needs none.")
    table, likelihood = ranking.comparisons, ranking.cells.likelihood
    scores = likelihood.scores(ranking.free)[ranking.cells.index] * table.weight[:, None]
    indices = [table.cluster_index(by) for by in clusters]
    counts = [int(index.max()) + 1 for index in indices]
    for by, count in zip(clusters, counts, strict=True):
        if count < 2:
            raise DataError(f"All comparisons share one {by}: nothing tells how much another {by} would differ.")
    meat = sum((_squared_sums(scores, index) for index in indices), start=likelihood.precision())
    if len(indices) == 2:
        both = np.unique(indices[0] * counts[1] + indices[1], return_inverse=True)[1]
        meat = meat - _squared_sums(scores, both)
    bread = _bread(ranking)
    matrix = _without_negative(bread @ meat @ bread)
    if ranking.separation is not None:
        matrix = _at_least(matrix, bread)
    return RankingCovariance(_in_strengths(ranking, matrix), clusters, min(counts))


def strength_intervals(ranking: Ranking, covariance: RankingCovariance, *, level: float = 0.95) -> dict[str, Interval]:
    """Return each system's strength, relative to the mean of all, with its interval, in log-odds.

    To compare two systems ask `difference_interval`: overlap of these intervals is no test.

    Raises:
        DataError: The level is not in (0, 1).
    """
    gradients = np.eye(len(covariance.matrix))
    return {
        system: _interval(ranking, covariance, float(strength), gradient, level)
        for system, strength, gradient in zip(ranking.systems, ranking.strengths, gradients, strict=False)
    }


def difference_interval(
    ranking: Ranking, covariance: RankingCovariance, a: str, b: str, *, level: float = 0.95
) -> Interval:
    """Return strength of `a` minus strength of `b` with its interval, in log-odds.

    Raises:
        DataError: A system was not ranked, or the level is not in (0, 1).
    """
    first, second = ranking.index(a), ranking.index(b)
    gradient = np.zeros(len(covariance.matrix))
    gradient[first] += 1.0
    gradient[second] -= 1.0
    return _interval(ranking, covariance, float(gradient[: len(ranking.systems)] @ ranking.strengths), gradient, level)


def expected_points_interval(
    ranking: Ranking, covariance: RankingCovariance, a: str, b: str, *, level: float = 0.95
) -> Interval:
    """Return the points that `a` takes from `b`, P(win) + P(tie) / 2, with their interval inside (0, 1).

    The delta method on the logit, in the gap and the tie number together.

    Raises:
        DataError: As `difference_interval`.
    """
    first, second = ranking.index(a), ranking.index(b)
    likelihood = ranking.cells.likelihood
    strengths, tie = likelihood.split(ranking.free)
    gap = np.full(2, strengths[first] - strengths[second])
    log_a, log_tie, log_b = ranking.outcome_log_probabilities(a, b)
    log_points = np.logaddexp([log_a, log_b], log_tie - math.log(2.0))
    wins = np.exp([log_a, log_b])
    terms = outcome_terms(likelihood.likelihood, gap, tie, np.array([1, -1], dtype=np.int8))
    # The points are (1 + P(A) - P(B)) / 2; their logit moves 1 / (points * rest) times as fast.
    sign = np.array([0.5, -0.5]) / np.exp(log_points.sum())
    gradient = np.zeros(len(covariance.matrix))
    gradient[first] += sign @ (wins * terms.d)
    gradient[second] -= sign @ (wins * terms.d)
    if likelihood.fits_ties:
        gradient[-1] = sign @ (wins * terms.t)
    logit = float(log_points[0] - log_points[1])
    on_logit = _interval(ranking, covariance, logit, gradient, level)
    low, high = win_probability([on_logit.low, on_logit.high])
    return Interval(math.exp(log_points[0]), float(low), float(high), on_logit.num_items, on_logit.num_clusters)


def tie_interval(ranking: Ranking, covariance: RankingCovariance, *, level: float = 0.95) -> Interval:
    """Return the tie parameter, Davidson's v or Rao and Kupper's k, with its interval (by its logarithm).

    Raises:
        DataError: No tie parameter was fitted: the model has none, or nobody tied. Or the level is not in (0, 1).
    """
    if not ranking.cells.likelihood.fits_ties:
        raise DataError(f"model={ranking.model!r} fitted no tie parameter to these comparisons.")
    tie = ranking.cells.likelihood.split(ranking.free)[1]
    on_log = _interval(ranking, covariance, tie, np.eye(len(covariance.matrix))[-1], level)
    least = 1.0 if ranking.model == "rao_kupper" else 0.0
    low, high = max(math.exp(on_log.low), least), math.exp(on_log.high)
    return Interval(math.exp(tie), low, high, on_log.num_items, on_log.num_clusters)


def _interval(
    ranking: Ranking, covariance: RankingCovariance, value: float, gradient: Vector, level: float
) -> Interval:
    reach = covariance.critical(level) * covariance.standard_error(gradient)
    return Interval(value, value - reach, value + reach, len(ranking.comparisons), covariance.num_clusters)


def _bread(ranking: Ranking) -> Vector:
    """Return the inverse of the penalised information of the free parameters, shape (p, p)."""
    weight = ranking.cells.weights(ranking.comparisons.weight)
    inverse = np.linalg.inv(-ranking.cells.likelihood.derivatives(ranking.free, weight).hessian)
    return (inverse + inverse.T) / 2.0


def _squared_sums(scores: Vector, cluster: NDArray[np.intp]) -> Vector:
    """Return G / (G - 1) times the sum over clusters of the outer product of their summed scores, shape (p, p)."""
    num_clusters = int(cluster.max()) + 1
    sums = np.zeros((num_clusters, scores.shape[1]))
    np.add.at(sums, cluster, scores)
    return sums.T @ sums * (num_clusters / (num_clusters - 1))


def _without_negative(matrix: Vector) -> Vector:
    """Set negative eigenvalues to zero, which a two-way difference may have (Cameron, Gelbach and Miller 2011, 2.3)."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2.0)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def _at_least(matrix: Vector, floor: Vector) -> Vector:
    """Return the covariance, widened where a direction has less variance than under `floor` (positive definite)."""
    root = np.linalg.cholesky(floor)
    inverse = np.linalg.inv(root)
    values, vectors = np.linalg.eigh(inverse @ matrix @ inverse.T)
    basis = root @ vectors
    return (basis * np.maximum(values, 1.0)) @ basis.T


def _in_strengths(ranking: Ranking, matrix: Vector) -> Vector:
    jacobian = ranking.cells.likelihood.jacobian()
    return jacobian @ matrix @ jacobian.T
