"""Taking a vote: once, whatever is sent twice, and never one that was not asked for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from app.database.audit_log import append_entry
from app.database.tables import Assignment, Rater, Study, Vote, utc_now
from app.studies.study import StudyPolicy, policy_of
from app.voting.answers import answer_problem, canonical, clip_of, displayed

CLOCK_SLACK = 0.8  # a browser's clock and ours, and the way of the request


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """What a rater's browser sends."""

    vote_id: str
    assignment_id: str
    revision: int
    answers: Mapping[str, str]
    """Question -> left, same or right."""
    both_unacceptable: bool = False
    withdrawn: bool = False
    watched_ms: Mapping[str, float] = field(default_factory=dict)
    """Side -> how long its clip played."""
    moments: tuple[Mapping[str, Any], ...] = ()
    """Bad moments: {side, frame, tag}."""
    comment: str | None = None
    telemetry: Mapping[str, Any] = field(default_factory=dict)

    def sha256(self) -> str:
        """Return a hash of all of it: a retry has the same, another vote has not."""
        plain = json.dumps(self.__dict__, sort_keys=True, default=list)
        return hashlib.sha256(plain.encode()).hexdigest()


Code = Literal["foreign", "conflict", "expired", "invalid", "watched_too_little"]


class BallotRefusedError(Exception):
    """A vote that was not stored, with the code that the browser acts on."""

    def __init__(self, code: Code, message: str, stored: Vote | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.stored = stored
        """The vote that stands where this one wanted to."""


def current_vote(session: Session, assignment_id: str) -> Vote | None:
    """Return the highest revision of an assignment's votes; None where nobody voted."""
    return session.scalar(
        select(Vote).where(Vote.assignment_id == assignment_id).order_by(Vote.revision.desc()).limit(1)
    )


def store_vote(session: Session, ballot: Ballot, rater: Rater, *, now: datetime | None = None) -> tuple[Vote, bool]:
    """Store a vote, or find that it is stored.

    Args:
        session: Of the writer.
        ballot: What was sent; its token has been checked.
        rater: Who sent it.
        now: The time; None for the clock.

    Returns:
        The stored vote, and whether it is new.

    Raises:
        BallotRefusedError: It is not theirs, comes too late, another vote stands in its place, or it is not complete.
    """
    now = now or utc_now()
    assignment = session.get(Assignment, ballot.assignment_id)
    if assignment is None or assignment.rater_id != rater.id:
        raise BallotRefusedError("foreign", "This assignment is not yours.")
    body = ballot.sha256()
    known = session.get(Vote, ballot.vote_id)
    if known is not None:
        if known.body_sha256 == body and known.assignment_id == assignment.id:
            return known, False
        raise BallotRefusedError("conflict", "Another vote has this id.", known)
    study = session.get_one(Study, assignment.study_id)
    policy = policy_of(study)
    last = current_vote(session, assignment.id)
    if not ballot.withdrawn and assignment.repeats is None:
        _check_only_vote(session, assignment)
    _check_place(assignment, ballot, last, policy, now)
    if not ballot.withdrawn:
        _check_content(assignment, ballot, policy, now, is_first=last is None)
    vote = Vote(
        id=ballot.vote_id,
        assignment_id=assignment.id,
        revision=ballot.revision,
        withdrawn=ballot.withdrawn,
        answers={} if ballot.withdrawn else canonical(ballot.answers, a_is_left=assignment.a_is_left),
        both_bad=ballot.both_unacceptable and not ballot.withdrawn,
        moments=[
            {
                "clip": clip_of(str(moment["side"]), a_is_left=assignment.a_is_left),
                "frame": moment["frame"],
                "tag": moment["tag"],
            }
            for moment in ballot.moments
        ],
        comment=ballot.comment,
        telemetry={**ballot.telemetry, "watched_ms": dict(ballot.watched_ms)},
        body_sha256=body,
        is_late=now > assignment.expires_at,
        stored_at=now,
    )
    session.add(vote)
    if ballot.withdrawn:
        _end_other_leases(session, assignment, policy, now)
        assignment.state = "open"
        assignment.expires_at = now + timedelta(seconds=policy.lease_s)
    else:
        if assignment.repeats is None:
            # A late vote: this pair may be on its rater's screen again, where an answer would be refused.
            _end_other_leases(
                session, assignment, policy, now, Assignment.pair_id == assignment.pair_id, Assignment.repeats.is_(None)
            )
        assignment.state = "voted"
    session.flush()
    append_entry(
        session,
        actor=rater.pseudonym,
        action="vote.withdrawn" if ballot.withdrawn else "vote.stored",
        subject=vote.id,
        details={**facts_on_record(vote), "body_sha256": body},
    )
    return vote, True


def facts_on_record(vote: Vote) -> dict[str, Any]:
    """Return what the audit log holds of a vote: all that counts, and nothing that erasing a rater takes away."""
    return {
        "assignment": vote.assignment_id,
        "revision": vote.revision,
        "answers": dict(vote.answers),
        "both_bad": vote.both_bad,
        "withdrawn": vote.withdrawn,
    }


def answers_on_screen(vote: Vote, assignment: Assignment) -> dict[str, str]:
    """Return a stored vote as its rater gave it: question -> left, same or right."""
    return displayed(vote.answers, a_is_left=assignment.a_is_left)


def undo_until(vote: Vote, policy: StudyPolicy) -> datetime:
    """Return until when a vote can be taken back."""
    return vote.stored_at + timedelta(seconds=policy.undo_s)


def _end_other_leases(
    session: Session, assignment: Assignment, policy: StudyPolicy, now: datetime, *where: ColumnElement[bool]
) -> None:
    """Give back the pair that came after the one that is taken up again: a rater holds one at a time.

    It ends without grace: nothing is answered to it any more, so its rater can be given the pair again at once.
    """
    session.execute(
        update(Assignment)
        .where(Assignment.study_id == assignment.study_id, Assignment.rater_id == assignment.rater_id)
        .where(Assignment.state == "open", Assignment.id != assignment.id, *where)
        .values(state="expired", expires_at=now - timedelta(seconds=policy.grace_s))
    )


def _check_only_vote(session: Session, assignment: Assignment) -> None:
    """Refuse a second answer of a rater to a pair, unless it is asked as a repeat: each would count."""
    other = session.scalar(
        select(Assignment.id)
        .where(Assignment.pair_id == assignment.pair_id, Assignment.rater_id == assignment.rater_id)
        .where(Assignment.state == "voted", Assignment.repeats.is_(None), Assignment.id != assignment.id)
        .limit(1)
    )
    if other is not None:
        raise BallotRefusedError("conflict", "You have answered this pair before.", current_vote(session, other))


def _check_place(assignment: Assignment, ballot: Ballot, last: Vote | None, policy: StudyPolicy, now: datetime) -> None:
    expected = 0 if last is None else last.revision + 1
    if ballot.revision != expected:
        raise BallotRefusedError("conflict", f"The next revision of this vote is {expected}.", last)
    if ballot.withdrawn:
        if last is None or last.withdrawn:
            raise BallotRefusedError("invalid", "There is no vote to take back.")
        if now > undo_until(last, policy):
            raise BallotRefusedError("expired", f"A vote can be taken back for {policy.undo_s:g} s.", last)
        return
    if last is not None and not last.withdrawn:
        raise BallotRefusedError("conflict", "This pair has your vote; take it back first.", last)
    if assignment.state not in ("open", "expired"):
        raise BallotRefusedError("conflict", f"This pair was {assignment.state} by you.")
    if now > assignment.expires_at + timedelta(seconds=policy.grace_s):
        raise BallotRefusedError("expired", "This pair is yours no longer: please judge a new one.")


def _check_content(
    assignment: Assignment, ballot: Ballot, policy: StudyPolicy, now: datetime, *, is_first: bool
) -> None:
    problem = answer_problem(ballot.answers, policy.questions, both_bad=ballot.both_unacceptable)
    if problem:
        raise BallotRefusedError("invalid", problem)
    pair = assignment.pair
    longest = max(video.num_frames / video.fps for video in (pair.a, pair.b))
    least_s = min(policy.min_watch_s, longest) * CLOCK_SLACK
    watched = [float(ballot.watched_ms.get(side, 0.0)) / 1000 for side in ("left", "right")]
    too_soon = is_first and (now - assignment.issued_at).total_seconds() < least_s
    if min(watched) < least_s or too_soon:
        raise BallotRefusedError(
            "watched_too_little", f"Please watch both clips for {policy.min_watch_s:g} s before you vote."
        )
    for moment in ballot.moments:
        clip = pair.a if clip_of(str(moment["side"]), a_is_left=assignment.a_is_left) == "A" else pair.b
        if not 0 <= int(moment["frame"]) < clip.num_frames:
            raise BallotRefusedError("invalid", f"Frame {moment['frame']} is not in the clip.")
