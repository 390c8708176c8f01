"""Does what a reward model likes please people? The alarm of a reward that rises while people see nothing of it.

A model that is trained against a reward learns what fools it (reward over-optimisation, arXiv:2210.10760): the score
rises on, and people's preference stalls or falls. Both are measured here on the same two systems.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Prompt, RewardScore, Study, System, Video
from app.lineage.head_to_head import answer_to, head_to_head
from app.lineage.systems import TRAINED_PROMPTS
from app.voting.clean_votes import CleanVote, clean_votes
from rlhf_video.preferences.pair import OVERALL
from rlhf_video.stats.agreement import credit_without_ties, cross_fit_threshold
from rlhf_video.stats.bootstrap import Interval, bootstrap_mean, paired_bootstrap
from rlhf_video.stats.rater_agreement import leave_one_rater_out

_SIDE = {"A": 1, "tie": 0, "B": -1}
_NUM_RESAMPLES = 2_000


class RewardDimension(NamedTuple):
    """One number that a reward gives a clip."""

    reward: str
    version: str
    dimension: str

    def __str__(self) -> str:
        """Return "name@version/dimension"."""
        return f"{self.reward}@{self.version}/{self.dimension}"


Verdict = Literal["alarm", "people agree", "reward does not rise", "nobody compared them"]


@dataclass(frozen=True)
class RewardReading:
    """A trained system against its parent, by a reward and by people."""

    system: str
    parent: str
    reward: RewardDimension
    reward_difference: Interval
    """System minus parent on clips of the same prompt and number, without prompts that it was trained on, in the
    reward's unit; clustered by prompt."""
    win_rate: Interval | None
    """People's, of the system; None where nobody compared them."""
    verdict: Verdict

    def __str__(self) -> str:
        """Return one sentence with both numbers."""
        people = "nobody compared them"
        if self.win_rate is not None:
            people = f"people prefer it in {self.win_rate.mean:.0%} [{self.win_rate.low:.0%}, {self.win_rate.high:.0%}]"
        return f"{self.system} against {self.parent}: {self.reward} changes by {self.reward_difference}, {people}"


@dataclass(frozen=True)
class RewardAgreement:
    """How well a reward says what people say of pairs; compare with the ceiling, never with 1."""

    reward: RewardDimension
    question: str
    accuracy: Interval | None
    """Share of decided votes whose side the reward likes better; None where every vote is a tie."""
    accuracy_with_ties: Interval | None
    """Share of all votes said right, ties by a threshold that was fitted on other prompts; None with one prompt."""
    ceiling: Interval | None
    """How often a rater says what most of the others say, ties included; None where no pair has two raters."""
    num_votes: int


def reward_readings(session: Session, study: Study, *, question: str = OVERALL) -> tuple[RewardReading, ...]:
    """Compare every trained system with its parent by every reward that scored both.

    The alarm is raised where the reward's interval lies above 0 and the people's does not lie above one half. Prompts
    that a system was trained on count in neither: what is remembered is not learned.

    Args:
        session: Only read from.
        study: Whose systems.
        question: Which answer of people counts.
    """
    votes, scores = clean_votes(session, study), _scores(session, study)
    systems = {row.id: row for row in session.scalars(select(System).where(System.study_id == study.id))}
    readings = []
    for row in sorted(systems.values(), key=lambda row: row.name):
        parent = systems.get(row.parent_id or "")
        if parent is None:
            continue
        trained = set(row.origin.get(TRAINED_PROMPTS, ()))
        people = head_to_head(votes, row.name, parent.name, question=question, without_prompts=trained)
        win_rate = None if people is None else people.win_rate
        for reward, by_clip in scores.items():
            places = sorted(
                (prompt, number)
                for system, prompt, number in by_clip
                if system == row.id and prompt not in trained and (parent.id, prompt, number) in by_clip
            )
            if places:
                gaps = [
                    by_clip[row.id, prompt, number] - by_clip[parent.id, prompt, number] for prompt, number in places
                ]
                difference = paired_bootstrap(gaps, [prompt for prompt, _ in places], num_resamples=_NUM_RESAMPLES)
                verdict = _verdict(difference, win_rate)
                readings.append(RewardReading(row.name, parent.name, reward, difference, win_rate, verdict))
    return tuple(readings)


def reward_agreement(session: Session, study: Study, *, question: str = OVERALL) -> tuple[RewardAgreement, ...]:
    """Hold every reward against the votes of a study.

    Args:
        session: Only read from.
        study: Whose votes.
        question: Which answer of people counts.
    """
    votes = [vote for vote in clean_votes(session, study) if answer_to(vote, question) is not None]
    by_video: dict[RewardDimension, dict[str, float]] = {}
    rows = session.execute(
        select(RewardScore)
        .join(Video, Video.id == RewardScore.video_id)
        .join(Prompt, Prompt.id == Video.prompt_id)
        .where(Prompt.study_id == study.id)
    ).scalars()
    for row in rows:
        by_video.setdefault(RewardDimension(row.reward, row.version, row.dimension), {})[row.video_id] = row.value
    lines = []
    for reward, values in sorted(by_video.items()):
        scored = [vote for vote in votes if all(video in values for video in vote.videos)]
        if scored:
            lines.append(_agreement(reward, values, scored, question))
    return tuple(lines)


def _agreement(
    reward: RewardDimension, values: Mapping[str, float], votes: Sequence[CleanVote], question: str
) -> RewardAgreement:
    labels = np.array([_SIDE[str(answer_to(vote, question))] for vote in votes])
    margins = np.array([values[vote.videos[0]] - values[vote.videos[1]] for vote in votes])
    prompts = np.array([vote.prompt for vote in votes])
    accuracy = with_ties = ceiling = None
    if labels.any():
        credit = credit_without_ties(labels, margins, tie_credit=0.5)
        accuracy = bootstrap_mean(credit, prompts[labels != 0], num_resamples=_NUM_RESAMPLES)
    if len(set(prompts.tolist())) > 1:
        correct = cross_fit_threshold(labels, margins, prompts).correct
        with_ties = bootstrap_mean(correct, prompts, num_resamples=_NUM_RESAMPLES)
    pairs, raters = [vote.pair for vote in votes], [vote.rater for vote in votes]
    if len(set(pairs)) < len(pairs):
        ceiling = leave_one_rater_out(pairs, raters, labels, prompts, num_resamples=_NUM_RESAMPLES)
    return RewardAgreement(reward, question, accuracy, with_ties, ceiling, len(votes))


_Scores = dict[RewardDimension, dict[tuple[str, str, int], float]]


def _scores(session: Session, study: Study) -> _Scores:
    """Return reward -> (system, prompt, number of the clip) -> score, rewards in order."""
    rows = session.execute(
        select(RewardScore, Video.system_id, Video.prompt_id, Video.sample)
        .join(Video, Video.id == RewardScore.video_id)
        .join(Prompt, Prompt.id == Video.prompt_id)
        .where(Prompt.study_id == study.id, Video.system_id.is_not(None))
        .order_by(RewardScore.reward, RewardScore.version, RewardScore.dimension)
    )
    scores: _Scores = {}
    for row, system, prompt, number in rows:
        reward = RewardDimension(row.reward, row.version, row.dimension)
        scores.setdefault(reward, {})[str(system), prompt, number] = row.value
    return scores


def _verdict(difference: Interval, win_rate: Interval | None) -> Verdict:
    if not difference.is_above_zero:
        return "reward does not rise"
    if win_rate is None:
        return "nobody compared them"
    return "people agree" if win_rate.low > 0.5 else "alarm"
