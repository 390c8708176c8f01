"""Has a rater come to the end of a study?"""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database.tables import Assignment, Pair, Rater, Study
from app.studies.study import policy_of


def has_nothing_left(session: Session, study: Study, rater: Rater) -> bool:
    """Return whether a rater holds no pair and would be given none: assignments.py's rule, without drawing one."""
    mine = select(Assignment.pair_id).where(Assignment.rater_id == rater.id, Assignment.state != "expired")
    held = select(Assignment.id).where(
        Assignment.study_id == study.id, Assignment.rater_id == rater.id, Assignment.state == "open"
    )
    full = (
        select(Assignment.pair_id)
        .where(Assignment.study_id == study.id, Assignment.policy == "sampled")
        .where(Assignment.state.in_(("open", "voted")))
        .where(Assignment.rater_id.not_in(select(Rater.id).where(Rater.is_test)))
        .group_by(Assignment.pair_id)
        .having(func.count() >= policy_of(study).overlap)
    )
    left = select(Pair.id).where(
        Pair.study_id == study.id, Pair.kind == "real", Pair.id.not_in(mine), Pair.id.not_in(full)
    )
    return session.scalar(held.limit(1)) is None and session.scalar(left.limit(1)) is None
