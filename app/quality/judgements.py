"""What every rater answered, clean or not: what reliability and risk are read from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Prompt, Study, Video
from app.studies.study import StudyPolicy, policy_of
from app.voting.answers import displayed
from app.voting.clean_votes import CurrentRow, current_rows
from rlhf_video.preferences.pair import OVERALL


@dataclass(frozen=True)
class Judgement:
    """The answer that stands for one assignment, whether it counts for the board or not; practice is not among them."""

    assignment: str
    """Id."""
    rater: str
    """Id."""
    pair: str
    """Id."""
    systems: tuple[str, str] | None
    """Names of the systems of A and B; None for gold pairs."""
    expected: Mapping[str, str] | None
    """Known answers of a gold pair to the study's questions, question -> A, tie or B."""
    repeats: str | None
    """Assignment whose answers this one checks, with the sides swapped."""
    answers: Mapping[str, str]
    """Question -> A, tie or B."""
    both_bad: bool
    a_is_left: bool
    decision_s: float
    """From seeing the pair to the vote: the browser's claim or the server's clock, whichever is shorter."""
    least_s: float
    """How long both clips must have played before."""
    stored_at: datetime

    @property
    def overall(self) -> str | None:
        """A, tie or B; both unacceptable is a tie."""
        return "tie" if self.both_bad else self.answers.get(OVERALL)

    @property
    def is_real(self) -> bool:
        """Whether it is the first answer to a pair that compares systems."""
        return self.expected is None and self.repeats is None

    @property
    def side(self) -> str | None:
        """Where the preferred clip was: left, right or same; None without an overall answer."""
        answer = self.answers.get(OVERALL)
        return None if answer is None else displayed({OVERALL: answer}, a_is_left=self.a_is_left)[OVERALL]


def read_judgements(session: Session, study: Study) -> list[Judgement]:
    """Return the standing answers of a study in the order in which they were stored, without test raters'.

    Args:
        session: Only read from.
        study: Whose answers.
    """
    clips = session.execute(
        select(Video.id, Video.num_frames, Video.fps)
        .join(Prompt, Prompt.id == Video.prompt_id)
        .where(Prompt.study_id == study.id)
    )
    lasts_s = {name: num_frames / fps for name, num_frames, fps in clips}
    policy = policy_of(study)
    return [
        _judgement(row, policy, min(policy.min_watch_s, max(lasts_s[row[2].a_id], lasts_s[row[2].b_id])))
        for row in current_rows(session, study)
        if not row[0].withdrawn and not row[3] and row[2].kind != "practice"
    ]


def _judgement(row: CurrentRow, policy: StudyPolicy, least_s: float) -> Judgement:
    vote, assignment, pair, _, _, first, second = row
    claimed = float(vote.telemetry.get("decision_ms") or math.inf) / 1000
    # After an undo the pair was seen before: only the browser knows how long.
    seen = (vote.stored_at - assignment.issued_at).total_seconds() if vote.revision == 0 else math.inf
    return Judgement(
        assignment=assignment.id,
        rater=assignment.rater_id,
        pair=pair.id,
        systems=(first.name, second.name) if pair.kind == "real" else None,
        expected=policy.asked(pair.expected or {}) if pair.kind == "gold" else None,
        repeats=assignment.repeats,
        answers=vote.answers,
        both_bad=vote.both_bad,
        a_is_left=assignment.a_is_left,
        decision_s=min(claimed, seen),
        least_s=least_s,
        stored_at=vote.stored_at,
    )
