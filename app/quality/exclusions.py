"""Leaving votes out of every analysis, and taking them in again: rows with a reason and an actor, never a deletion.

The rater notices nothing, votes stay stored, and a board can be computed again as it was (voting/clean_votes.py).
"""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.audit_log import append_entry
from app.database.tables import Exclusion, Rater, Vote, utc_now
from rlhf_video.errors import DataError


def exclude(
    session: Session,
    *,
    actor: str,
    reason: str,
    rater_id: str | None = None,
    vote_id: str | None = None,
    score: float | None = None,
    details: Mapping[str, object] | None = None,
) -> Exclusion:
    """Leave one vote, or all votes of a rater, out of analyses from now on.

    Args:
        session: Of the writer.
        actor: Who says so: an admin's name, or "sweep".
        reason: In a few words; boards list it with the number of votes.
        rater_id: Whose votes; or else
        vote_id: which vote.
        score: Of the risk, where a sweep excludes.
        details: What was seen.

    Raises:
        DataError: There is no such rater or vote, or it is excluded already.
    """
    assert (rater_id is None) != (vote_id is None), "one target"
    if rater_id is not None and session.get(Rater, rater_id) is None:
        raise DataError(f"There is no rater '{rater_id}'.")
    if vote_id is not None and session.get(Vote, vote_id) is None:
        raise DataError(f"There is no vote '{vote_id}'.")
    target = Exclusion.rater_id == rater_id if rater_id is not None else Exclusion.vote_id == vote_id
    known = session.scalar(select(Exclusion.id).where(target, Exclusion.lifted_at.is_(None)))
    if known is not None:
        raise DataError(f"It is excluded already (exclusion {known}): lift that one first.")
    exclusion = Exclusion(
        rater_id=rater_id, vote_id=vote_id, reason=reason[:64], actor=actor[:64], score=score, details=details or {}
    )
    session.add(exclusion)
    session.flush()
    told = {"rater": rater_id, "vote": vote_id, "reason": exclusion.reason, "score": score, **(details or {})}
    append_entry(session, actor=exclusion.actor, action="exclusion.made", subject=exclusion.id, details=told)
    return exclusion


def lift_exclusion(session: Session, exclusion_id: str, *, actor: str) -> Exclusion:
    """Count the votes of an exclusion again; the exclusion stays on record.

    Args:
        session: Of the writer.
        exclusion_id: Which.
        actor: Who says so.

    Raises:
        DataError: There is none, or it was lifted before.
    """
    exclusion = session.get(Exclusion, exclusion_id)
    if exclusion is None:
        raise DataError(f"There is no exclusion '{exclusion_id}'.")
    if exclusion.lifted_at is not None:
        raise DataError(f"This exclusion was lifted by {exclusion.lifted_by} already.")
    exclusion.lifted_at, exclusion.lifted_by = utc_now(), actor[:64]
    details = {"rater": exclusion.rater_id, "vote": exclusion.vote_id}
    append_entry(session, actor=actor[:64], action="exclusion.lifted", subject=exclusion.id, details=details)
    return exclusion
