"""How raters did on pairs whose answer is known."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Assignment, Pair, Study, Vote


def is_right(answers: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    """Return whether an answer to a gold pair is right: every question that has a known answer."""
    return all(answers.get(question) == answer for question, answer in expected.items())


def gold_results(session: Session, study: Study, *, at: datetime | None = None) -> dict[str, tuple[int, int]]:
    """Return rater -> (gold pairs answered right, answered in all).

    Args:
        session: Only read from.
        study: Whose gold pairs.
        at: As things stood then; None for now.
    """
    rows = session.execute(
        select(Vote, Assignment.rater_id, Pair.expected)
        .join(Assignment, Assignment.id == Vote.assignment_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .where(Assignment.study_id == study.id, Pair.kind == "gold")
        .where(*([] if at is None else [Vote.stored_at <= at]))
        .order_by(Vote.assignment_id, Vote.revision)
    )
    current: dict[str, tuple[str, Vote, Mapping[str, str]]] = {}
    for vote, rater, expected in rows:
        current[vote.assignment_id] = (rater, vote, expected)
    results: dict[str, tuple[int, int]] = {}
    for rater, vote, expected in current.values():
        if vote.withdrawn:
            continue
        right, total = results.get(rater, (0, 0))
        results[rater] = (right + is_right(vote.answers, expected), total + 1)
    return results
