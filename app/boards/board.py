"""The leaderboard of a study: strengths with intervals, who beats whom, and whether it may stop.

A pure function of votes and settings, so that a snapshot can be computed again (snapshot.py).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from app.voting.clean_votes import CleanVote
from rlhf_video.errors import ConfigError, DataError
from rlhf_video.preferences.pair import OVERALL
from rlhf_video.stats import (
    ClusterBy,
    Comparisons,
    Interval,
    PairDecision,
    RankingModel,
    clustered_covariance,
    decided,
    elo,
    fewest_votes_to_flip,
    fit_crowd_bt,
    fit_ranking,
    inverse_propensity_weights,
    krippendorff_alpha,
    normal_draws,
    rank_systems,
    reliability_weights,
    share_interval,
    strength_intervals,
)

PRELIMINARY = 100
"""Votes below which a system's place is called preliminary."""
_NUM_DRAWS = 4000


@dataclass(frozen=True, kw_only=True)
class BoardSettings:
    """What a leaderboard is about, and how votes count."""

    question: str = OVERALL
    """Which answers."""
    tag: str | None = None
    """Only prompts of this category; None for all."""
    model: RankingModel = "davidson"
    """What a tie counts."""
    weighting: Literal["none", "reliability", "sampling"] = "none"
    """"reliability" weighs raters by their accuracy on gold pairs and against each other, "sampling" undoes that some
    pairs were drawn more often than others."""
    both_bad: Literal["tie", "drop"] = "tie"
    """What it counts when both clips were called unacceptable."""
    prior_sd: float = 1.0
    """Of strengths in log-odds: keeps an undefeated system finite; weighs about as much as four votes per system."""
    votes_per_prompt: int | None = None
    """Votes that complete a prompt for the stopping rule, which runs over complete prompts; a study's boards take its
    overlap (study_board.py). With None it runs over single votes, which errs where votes share prompts."""
    error_rate: float = 0.05
    """Of the stopping rule."""
    num_systems: int | None = None
    """Systems that share it, those without votes included; None for those with votes."""
    overlap: int | None = None
    """Votes after which a pair is drawn no more; None where there is no such limit."""


@dataclass(frozen=True)
class BoardRow:
    """One system."""

    system: str
    rating: float
    """400 points are odds of 10 to 1; 1000 is the mean of all."""
    low: float
    high: float
    """95% interval of the rating, clustered by prompt and rater."""
    rank: int
    best_rank: int
    worst_rank: int
    """Ranks that hold for all systems at once (95%)."""
    probability_best: float
    num_votes: int
    unacceptable: Interval
    """Share of its votes in which both clips were called unacceptable."""

    @property
    def is_preliminary(self) -> bool:
        """Whether it has few votes."""
        return self.num_votes < PRELIMINARY


@dataclass(frozen=True)
class Match:
    """Two systems against each other."""

    first: str
    second: str
    wins: int
    """Of `first`."""
    ties: int
    losses: int
    share: Interval
    """Points of `first`: wins and half of the ties, of all; clustered by prompt."""
    decision: PairDecision
    """Where the stopping rule stands."""


@dataclass(frozen=True)
class Board:
    """A leaderboard."""

    settings: BoardSettings
    rows: tuple[BoardRow, ...]
    """Best first."""
    matches: tuple[Match, ...]
    tie_share: float
    alpha: Interval | None
    """Krippendorff's alpha (ordinal) of this question; None where no pair has two raters."""
    votes_to_flip: float
    """The fewest votes known whose removal changes the leader; inf where none do."""
    num_votes: int
    num_raters: int
    warnings: tuple[str, ...]

    @property
    def num_pairs(self) -> int:
        """Pairs of systems that share the stopping rule's chance of a false call."""
        count = max(len(self.rows), self.settings.num_systems or 0)
        return count * (count - 1) // 2


def make_board(
    votes: Sequence[CleanVote],
    settings: BoardSettings,
    *,
    gold: Mapping[str, tuple[int, int]] | None = None,
    seed: int = 0,
) -> Board:
    """Compute a leaderboard.

    Args:
        votes: Those that count, in the order in which they came.
        settings: What it is about.
        gold: Rater -> gold pairs answered right and in all, for weighting "reliability".
        seed: Of the draws behind ranks.

    Raises:
        DataError: No vote, or systems that never met, directly or through others.
        ConfigError: A setting that is not known.
    """
    chosen = [vote for vote in votes if settings.tag is None or settings.tag in vote.tags]
    answered = [(vote, answer) for vote in chosen if (answer := answer_of(vote, settings)) is not None]
    if not answered:
        category = f" with the tag '{settings.tag}'" if settings.tag else ""
        raise DataError(f"There is no vote on '{settings.question}' yet{category}.")
    table = _table(answered, settings, gold or {})
    ranking = fit_ranking(table, model=_fitting_model(table, settings.model), prior_sd=settings.prior_sd)
    warnings = [] if ranking.separation is None else [f"Only the prior keeps ratings finite: {ranking.separation}."]
    clusters = _clusters(table)
    warnings += [f"All votes share one {by}." for by in get_args(ClusterBy) if by not in clusters]
    warnings += _sampling_warnings(chosen, settings)
    covariance = clustered_covariance(ranking, *clusters)
    intervals = strength_intervals(ranking, covariance)
    lines = rank_systems(normal_draws(ranking, covariance, num_draws=_NUM_DRAWS, seed=seed))
    played = Counter(name for vote, _ in answered for name in vote.systems)
    rows = []
    for line in lines:
        low, high = elo([intervals[line.system].low, intervals[line.system].high])
        mine = [vote for vote in chosen if line.system in vote.systems]
        rows.append(
            BoardRow(
                system=line.system,
                rating=float(elo(line.strength)),
                low=float(low),
                high=float(high),
                rank=line.rank,
                best_rank=line.best_rank,
                worst_rank=line.worst_rank,
                probability_best=line.probability_best,
                num_votes=played[line.system],
                unacceptable=share_interval([vote.both_bad for vote in mine], [vote.prompt for vote in mine]),
            )
        )
    return Board(
        settings=settings,
        rows=tuple(rows),
        matches=_matches(table, settings),
        tie_share=float((table.outcome == 0).mean()),
        alpha=_alpha(answered),
        votes_to_flip=float(fewest_votes_to_flip(table, model=ranking.model, prior_sd=settings.prior_sd).num_votes),
        num_votes=len(answered),
        num_raters=len({vote.rater for vote, _ in answered}),
        warnings=tuple(warnings),
    )


def make_matches(votes: Sequence[CleanVote], settings: BoardSettings) -> tuple[Match, ...]:
    """Return only who stands how against whom, which is much quicker than a board; empty where nobody voted."""
    answered = [(vote, answer) for vote in votes if (answer := answer_of(vote, settings)) is not None]
    return _matches(_table(answered, settings, {}), settings) if answered else ()


def answer_of(vote: CleanVote, settings: BoardSettings) -> str | None:
    """Return A, tie or B for the board's question; None where the vote does not count for it."""
    if vote.both_bad and settings.both_bad == "drop":
        return None
    if vote.both_bad and settings.question == OVERALL:
        return "tie"
    return vote.answers.get(settings.question)


def _table(
    answered: Sequence[tuple[CleanVote, str]], settings: BoardSettings, gold: Mapping[str, tuple[int, int]]
) -> Comparisons:
    def build(weights: NDArray[np.float64] | None) -> Comparisons:
        return Comparisons.from_labels(
            [vote.systems[0] for vote, _ in answered],
            [vote.systems[1] for vote, _ in answered],
            [answer for _, answer in answered],
            weights=weights,
            prompts=np.array([vote.prompt for vote, _ in answered]),
            raters=np.array([vote.rater for vote, _ in answered]),
        )

    if settings.weighting == "none":
        return build(None)
    if settings.weighting == "sampling":
        chances = [vote.probability for vote, _ in answered]
        return build(inverse_propensity_weights(chances, [vote.num_choices for vote, _ in answered]))
    if settings.weighting != "reliability":
        raise ConfigError(f"weighting={settings.weighting!r} is not known: none, reliability or sampling.")
    table = build(None)
    raters = sorted({vote.rater for vote, _ in answered})
    right, total = np.array([gold.get(rater, (0, 0)) for rater in raters]).T
    crowd = fit_crowd_bt(table, gold_right=right, gold_total=total)
    weight_of = dict(zip(crowd.raters, reliability_weights(crowd.accuracy), strict=True))
    return build(np.array([weight_of[vote.rater] for vote, _ in answered]))


def _sampling_warnings(votes: Sequence[CleanVote], settings: BoardSettings) -> list[str]:
    """Return what is wrong with weights by the chance to be drawn where the number of votes no longer follows it."""
    if settings.weighting != "sampling" or settings.overlap is None:
        return []
    counts = Counter(vote.pair for vote in votes)
    full = sum(count >= settings.overlap for count in counts.values())
    if not full:
        return []
    return [
        f"{full} of {len(counts)} pairs have the {settings.overlap} votes that the study wants of each: how often they "
        "were judged no longer follows from how likely they were drawn, and weights by that chance mislead. Count all "
        "votes the same."
    ]


def _clusters(table: Comparisons) -> list[ClusterBy]:
    kinds: tuple[ClusterBy, ...] = get_args(ClusterBy)
    clusters = [by for by in kinds if table.cluster_index(by).max() > 0]
    if not clusters:
        raise DataError("All votes are of one prompt and one rater: nothing tells how much others would differ.")
    return clusters


def _fitting_model(table: Comparisons, model: RankingModel) -> RankingModel:
    """Return Bradley-Terry where every vote is a tie, which no tie model can scale."""
    return model if table.outcome.any() else "bradley_terry"


def _matches(table: Comparisons, settings: BoardSettings) -> tuple[Match, ...]:
    matches = []
    decisions = decided(
        table,
        votes_per_prompt=settings.votes_per_prompt,
        level=1.0 - settings.error_rate,
        num_systems=settings.num_systems,
    )
    for decision in decisions:
        a, b = table.systems.index(decision.first), table.systems.index(decision.second)
        straight, swapped = (table.first == a) & (table.second == b), (table.first == b) & (table.second == a)
        met = straight | swapped
        if not met.any():
            continue
        outcome = np.where(swapped, -table.outcome, table.outcome)[met]
        assert table.prompt is not None
        share = share_interval((outcome + 1) / 2, table.prompt[met])
        wins, ties, losses = (int((outcome == value).sum()) for value in (1, 0, -1))
        matches.append(Match(decision.first, decision.second, wins, ties, losses, share, decision))
    return tuple(matches)


def _alpha(answered: Sequence[tuple[CleanVote, str]]) -> Interval | None:
    """Return the agreement of raters on the same pair; a rater who judged a pair twice counts once, the first time."""
    first: dict[tuple[str, str], int] = {}
    for vote, answer in answered:
        first.setdefault((vote.pair, vote.rater), {"A": 1, "tie": 0, "B": -1}[answer])
    items, raters = [pair for pair, _ in first], [rater for _, rater in first]
    try:
        return krippendorff_alpha(items, raters, list(first.values()), metric="ordinal")
    except DataError:
        return None  # no pair has two raters, or everyone said the same
