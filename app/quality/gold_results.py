"""How raters did on pairs whose answer is known."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Assignment, Pair, Study, Vote
from app.studies.study import policy_of


def is_right(answers: Mapping[str, str], expected: Mapping[str, str]) -> bool | None:
    """Return whether an answer to a gold pair is right; None where it does not say.

    Whoever calls both clips unacceptable may leave questions open. Of identical clips that is right, they are equally
    bad; which of two different ones is better stays unsaid.

    Args:
        answers: Question -> A, tie or B.
        expected: Known answers to questions of the study, see `StudyPolicy.asked`.
    """
    if wrong_answers(answers, expected):
        return False
    is_identical = set(expected.values()) == {"tie"}
    return True if is_identical or (expected and expected.keys() <= answers.keys()) else None


def wrong_answers(answers: Mapping[str, str], expected: Mapping[str, str]) -> dict[str, str]:
    """Return what was expected of the questions that were answered otherwise."""
    return {question: answer for question, answer in expected.items() if answers.get(question, answer) != answer}


def gold_results(session: Session, study: Study, *, at: datetime | None = None) -> dict[str, tuple[int, int]]:
    """Return rater -> (gold pairs answered right, answered in all); answers that say nothing are left out.

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
    policy, results = policy_of(study), dict[str, tuple[int, int]]()
    for rater, vote, expected in current.values():
        verdict = None if vote.withdrawn else is_right(vote.answers, policy.asked(expected))
        if verdict is not None:
            right, total = results.get(rater, (0, 0))
            results[rater] = (right + verdict, total + 1)
    return results
