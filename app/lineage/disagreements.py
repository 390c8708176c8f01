"""Pairs of clips of which a reward model likes one better, and people the other: where to look first."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Prompt, RewardScore, Study, Video
from app.lineage.head_to_head import answer_to
from app.lineage.reward_alarm import RewardDimension
from app.voting.clean_votes import CleanVote, clean_votes
from rlhf_video.preferences.pair import OVERALL


@dataclass(frozen=True)
class Disagreement:
    """One pair, its clips ordered as people see them."""

    reward: RewardDimension
    prompt: str
    preferred: str
    """System of the clip that people prefer."""
    other: str
    preferred_video: str
    other_video: str
    votes: tuple[int, int, int]
    """For the preferred clip, ties, for the other one."""
    margin: float
    """By how much the reward likes the other clip better, in units of its usual (root mean square) margin here."""


def disagreements(
    session: Session, study: Study, *, question: str = OVERALL, count: int = 10
) -> tuple[Disagreement, ...]:
    """Return the pairs on which rewards contradict the majority of people most, widest margin first.

    Args:
        session: Only read from.
        study: Whose votes.
        question: Which answer of people counts.
        count: At most so many of each reward.
    """
    judged: dict[str, list[CleanVote]] = {}
    for vote in clean_votes(session, study):
        if answer_to(vote, question) is not None:
            judged.setdefault(vote.pair, []).append(vote)
    prompts = dict(session.execute(select(Prompt.id, Prompt.text).where(Prompt.study_id == study.id)).all())
    found: list[Disagreement] = []
    for reward, values in _scores(session, study).items():
        scored = {
            pair: values[votes[0].videos[0]] - values[votes[0].videos[1]]
            for pair, votes in judged.items()
            if all(video in values for video in votes[0].videos)
        }
        spread = float(np.sqrt(np.mean(np.square(list(scored.values()))))) if scored else 0.0
        against = [
            line
            for pair, margin in scored.items()
            if spread > 0.0 and (line := _against(reward, judged[pair], margin / spread, question, prompts)) is not None
        ]
        found += sorted(against, key=lambda line: (-line.margin, line.prompt))[:count]
    return tuple(found)


def _against(
    reward: RewardDimension, votes: list[CleanVote], margin: float, question: str, prompts: dict[str, str]
) -> Disagreement | None:
    """Return the pair where the reward's margin of A contradicts the majority; None where it does not."""
    counts = Counter(answer_to(vote, question) for vote in votes)
    lead = counts["A"] - counts["B"]
    if lead * margin >= 0:
        return None
    first, second = (0, 1) if lead > 0 else (1, 0)
    sides = (counts["A"], counts["B"])
    return Disagreement(
        reward=reward,
        prompt=prompts[votes[0].prompt],
        preferred=votes[0].systems[first],
        other=votes[0].systems[second],
        preferred_video=votes[0].videos[first],
        other_video=votes[0].videos[second],
        votes=(sides[first], counts["tie"], sides[second]),
        margin=abs(margin),
    )


def _scores(session: Session, study: Study) -> dict[RewardDimension, dict[str, float]]:
    """Return reward -> id of a video -> score, rewards in order."""
    rows = session.scalars(
        select(RewardScore)
        .join(Video, Video.id == RewardScore.video_id)
        .join(Prompt, Prompt.id == Video.prompt_id)
        .where(Prompt.study_id == study.id)
        .order_by(RewardScore.reward, RewardScore.version, RewardScore.dimension)
    )
    scores: dict[RewardDimension, dict[str, float]] = {}
    for row in rows:
        scores.setdefault(RewardDimension(row.reward, row.version, row.dimension), {})[row.video_id] = row.value
    return scores
