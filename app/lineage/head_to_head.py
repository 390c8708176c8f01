"""One system against another: who won how often, as people say."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from app.voting.clean_votes import CleanVote
from rlhf_video.errors import DataError
from rlhf_video.preferences.pair import OVERALL
from rlhf_video.stats.bootstrap import Interval
from rlhf_video.stats.comparisons import ClusterBy, Comparisons
from rlhf_video.stats.ranking import RankingModel, fit_ranking
from rlhf_video.stats.ranking_covariance import clustered_covariance, difference_interval
from rlhf_video.stats.shares import share_interval

_POINTS = {"A": 1.0, "tie": 0.5, "B": 0.0}


@dataclass(frozen=True)
class HeadToHead:
    """The votes on pairs of two systems, seen from the first one."""

    wins: int
    ties: int
    losses: int
    win_rate: Interval
    """Wins and half of the ties over all votes, clustered by prompt."""
    rating: Interval | None
    """Difference of the strengths in log-odds, clustered by prompt and, from two raters on, by rater; None where the
    votes leave it infinite."""
    num_raters: int


def head_to_head(
    votes: Sequence[CleanVote],
    system: str,
    other: str,
    *,
    question: str = OVERALL,
    model: RankingModel = "davidson",
    without_prompts: Collection[str] = (),
) -> HeadToHead | None:
    """Compare two systems by the votes on their pairs.

    Args:
        votes: Those that count; others than of these two systems are passed over.
        system: Name; wins are its.
        other: Name.
        question: Which answer counts; who called both clips unacceptable counts as a tie overall, and of another
            question where they left it open.
        model: Of the rating.
        without_prompts: Ids of prompts that are left out, for example because the system was trained on them.

    Returns:
        None where nobody compared them.
    """
    kept = [
        (vote, answer)
        for vote in votes
        if set(vote.systems) == {system, other}
        and vote.prompt not in without_prompts
        and (answer := answer_to(vote, question)) is not None
    ]
    if not kept:
        return None
    points = np.array(
        [_POINTS[answer] if vote.systems[0] == system else 1.0 - _POINTS[answer] for vote, answer in kept]
    )
    prompts = [vote.prompt for vote, _ in kept]
    return HeadToHead(
        wins=int((points == 1.0).sum()),
        ties=int((points == 0.5).sum()),
        losses=int((points == 0.0).sum()),
        win_rate=share_interval(points, prompts),
        rating=_rating(kept, system, other, model),
        num_raters=len({vote.rater for vote, _ in kept}),
    )


def answer_to(vote: CleanVote, question: str) -> str | None:
    """Return A, tie or B; None where the rater left the question open.

    Whoever called both clips unacceptable prefers neither overall, as on the leaderboard.
    """
    if vote.both_bad and question == OVERALL:
        return "tie"
    return vote.answers.get(question, "tie" if vote.both_bad else None)


def _rating(kept: Sequence[tuple[CleanVote, str]], system: str, other: str, model: RankingModel) -> Interval | None:
    table = Comparisons.from_labels(
        [vote.systems[0] for vote, _ in kept],
        [vote.systems[1] for vote, _ in kept],
        [answer for _, answer in kept],
        prompts=[vote.prompt for vote, _ in kept],
        raters=[vote.rater for vote, _ in kept],
    )
    clusters: tuple[ClusterBy, ...] = ("prompt", "rater") if len({vote.rater for vote, _ in kept}) > 1 else ("prompt",)
    try:
        ranking = fit_ranking(table, model=model)
        return difference_interval(ranking, clustered_covariance(ranking, *clusters), system, other)
    except DataError:  # all ties, no loss at all, or a single prompt: there is no finite interval
        return None
