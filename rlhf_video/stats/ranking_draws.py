"""Ranks of systems with their uncertainty, from draws of the strengths: of a normal distribution or of the bootstrap.

A rank is no smooth function of the strengths, so it has no standard error, and quantiles of ranks over bootstrap draws
undercover where systems are close. A rank's interval is counted from differences instead: a system ranks behind those
that are surely stronger and before those that are surely weaker, where "surely" holds for all pairs at once (max-t;
Mogstad, Romano, Shaikh and Wilhelm 2024, Review of Economic Studies 91; Klein, Wright and Wieczorek 2020, JRSS A 183).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlhf_video.errors import DataError
from rlhf_video.stats.bootstrap import Interval, check_level, expanded_tail
from rlhf_video.stats.comparison_graph import is_finite
from rlhf_video.stats.comparisons import ClusterBy, tally_outcomes
from rlhf_video.stats.ranking import Ranking, maximise
from rlhf_video.stats.ranking_covariance import RankingCovariance
from rlhf_video.stats.ranking_likelihood import Vector

_MOST_UNDEFINED = 0.05  # share of resamples without a finite fit; leaving out more would make the rest look too sure


@dataclass(frozen=True, eq=False)
class StrengthDraws:
    """Draws of the strengths around their estimate."""

    ranking: Ranking
    draws: NDArray[np.float64]
    """Strengths in log-odds, each row summing to zero, shape (num_draws, m)."""
    standard_errors: NDArray[np.float64]
    """Of the differences of two systems, shape (m, m)."""
    num_clusters: int | None
    """How many clusters were resampled; None where Student's t widened the draws already."""
    num_undefined: int
    """Resamples that left no finite fit."""


@dataclass(frozen=True)
class RankedSystem:
    """One line of a leaderboard."""

    system: str
    strength: float
    """Log-odds relative to the mean of all systems."""
    rank: int
    """1 for the strongest; equal strengths share the better rank."""
    best_rank: int
    worst_rank: int
    """Between these ranks; they hold for all systems at once with the level that was asked for."""
    probability_best: float
    """Share of the draws in which it is the strongest; an equal first place is shared."""


def normal_draws(
    ranking: Ranking, covariance: RankingCovariance, *, num_draws: int = 10_000, seed: int = 0
) -> StrengthDraws:
    """Draw from the normal distribution around the estimate; with few clusters from Student's t.

    The only choice for a separated ranking: where a system never loses, it never loses in any resample either.

    Raises:
        DataError: No draws.
    """
    _check_count(num_draws)
    rng = np.random.default_rng(seed)
    num_systems = len(ranking.systems)
    matrix = covariance.matrix[:num_systems, :num_systems]
    values, vectors = np.linalg.eigh(matrix)
    noise = rng.standard_normal((num_draws, num_systems)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    if covariance.clusters:
        degrees = covariance.num_clusters - 1
        noise *= np.sqrt(degrees / rng.chisquare(degrees, size=(num_draws, 1)))
    noise -= noise.mean(axis=1, keepdims=True)  # the root of a rounded zero eigenvalue is no longer small
    return StrengthDraws(ranking, ranking.strengths + noise, _difference_errors(matrix), None, 0)


def bootstrap_draws(
    ranking: Ranking, cluster: ClusterBy, *, num_resamples: int = 1_000, seed: int = 0
) -> StrengthDraws:
    """Refit the strengths to resampled comparisons, clusters drawn whole with replacement.

    One way only: resampling prompts and raters at once (Owen 2007, arXiv:0712.1111) counts what is neither up to three
    times. For both, use normal_draws with clustered_covariance(ranking, "prompt", "rater").

    Args:
        ranking: The fit; its model and prior are those of every refit.
        cluster: "prompt" or "rater".
        num_resamples: Bootstrap draws.
        seed: Seed of the draws.

    Raises:
        ConfigError: The cluster is another word.
        DataError: The column is missing, there is one cluster, fewer than 2 draws, the ranking is separated, or more
            than 5% of the resamples have no finite fit.
    """
    _check_count(num_resamples)
    if ranking.separation is not None:
        raise DataError(
            f"The bootstrap cannot tell how sure this ranking is: {ranking.separation}, and so in every resample. "
            "Use normal_draws with clustered_covariance or model_covariance."
        )
    index = ranking.comparisons.cluster_index(cluster)
    num_clusters = int(index.max()) + 1
    if num_clusters < 2:
        raise DataError(f"All comparisons share one {cluster}: there is nothing to resample.")
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(num_resamples):
        times = np.bincount(rng.integers(num_clusters, size=num_clusters), minlength=num_clusters)
        strengths = _refit(ranking, ranking.cells.weights(ranking.comparisons.weight * times[index]))
        if strengths is not None:
            draws.append(strengths)
    num_undefined = num_resamples - len(draws)
    if num_undefined > _MOST_UNDEFINED * num_resamples:
        raise DataError(
            f"{num_undefined} of {num_resamples} resamples leave some system undefeated, without a win or unconnected, "
            "so that their strengths are infinite: fit_ranking with prior_sd, for example 1, or use normal_draws."
        )
    array = np.array(draws)
    return StrengthDraws(ranking, array, _difference_errors(np.cov(array.T)), num_clusters, num_undefined)


def percentile_intervals(drawn: StrengthDraws, *, level: float = 0.95) -> dict[str, Interval]:
    """Return each system's strength with the percentile interval of its draws, widened for few clusters.

    Raises:
        DataError: The level is not in (0, 1).
    """
    tail = (1.0 - _widened(drawn, level)) / 2.0
    low, high = np.quantile(drawn.draws, [tail, 1.0 - tail], axis=0)
    num_items = len(drawn.ranking.comparisons)
    return {
        system: Interval(float(strength), float(lower), float(upper), num_items, drawn.num_clusters or num_items)
        for system, strength, lower, upper in zip(
            drawn.ranking.systems, drawn.ranking.strengths, low, high, strict=True
        )
    }


def rank_systems(drawn: StrengthDraws, *, level: float = 0.95) -> tuple[RankedSystem, ...]:
    """Return the leaderboard, strongest first, with rank intervals that hold for all systems at once.

    Raises:
        DataError: The level is not in (0, 1).
    """
    strengths = drawn.ranking.strengths
    gaps = strengths[:, None] - strengths[None, :]
    surely_above = gaps > simultaneous_critical(drawn, level=level) * drawn.standard_errors
    is_top = drawn.draws == drawn.draws.max(axis=1, keepdims=True)
    probability_best = (is_top / is_top.sum(axis=1, keepdims=True)).mean(axis=0)
    lines = [
        RankedSystem(
            system=system,
            strength=float(strengths[index]),
            rank=1 + int((strengths > strengths[index]).sum()),
            best_rank=1 + int(surely_above[:, index].sum()),
            worst_rank=len(strengths) - int(surely_above[index].sum()),
            probability_best=float(probability_best[index]),
        )
        for index, system in enumerate(drawn.ranking.systems)
    ]
    return tuple(sorted(lines, key=lambda line: (line.rank, line.system)))


def simultaneous_critical(drawn: StrengthDraws, *, level: float = 0.95) -> float:
    """Return how many standard errors every difference must be allowed so that all hold at once (max-t).

    Raises:
        DataError: The level is not in (0, 1).
    """
    widened = _widened(drawn, level)
    noise = drawn.draws - drawn.ranking.strengths
    largest = np.zeros(len(noise))
    for index, errors in enumerate(drawn.standard_errors):
        others = errors > 0
        ratios = np.abs(noise[:, [index]] - noise[:, others]) / errors[others]
        largest = np.maximum(largest, ratios.max(axis=1, initial=0.0))
    return float(np.quantile(largest, widened))


def _refit(ranking: Ranking, weight: Vector) -> Vector | None:
    """Return the strengths under other weights of the cells, None where they are not finite."""
    likelihood, free = ranking.cells.likelihood, ranking.free
    wins, ties = tally_outcomes(
        likelihood.first, likelihood.second, likelihood.outcome, weight, num_systems=len(ranking.systems)
    )
    if likelihood.fits_ties and not ties.any():
        likelihood, free = replace(likelihood, likelihood="bradley_terry"), free[:-1]
    if ranking.prior_sd is None:
        defined = is_finite(wins, ties, fits_ties=likelihood.fits_ties)
    else:
        defined = bool(wins.any()) or not likelihood.fits_ties
    return likelihood.split(maximise(likelihood, weight, start=free))[0] if defined else None


def _difference_errors(covariance: Vector) -> Vector:
    """Return the standard error of every difference of two strengths, shape (m, m)."""
    variance = np.diag(covariance)
    return np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2.0 * covariance, 0.0))


def _widened(drawn: StrengthDraws, level: float) -> float:
    """Return the level at which quantiles of the draws are read, higher where few clusters were resampled."""
    check_level(level)
    if drawn.num_clusters is None:
        return level
    return 1.0 - 2.0 * expanded_tail((1.0 - level) / 2.0, drawn.num_clusters)


def _check_count(num_draws: int) -> None:
    if num_draws < 2:
        raise DataError(f"{num_draws} draws show no spread: use 1,000 or more.")
