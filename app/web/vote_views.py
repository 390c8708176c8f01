"""What browsers get to see of studies, assignments and votes: no system, no file, no id of a clip."""

from collections.abc import Mapping, Set
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import Assignment, Rater, Study, Video, Vote
from app.quality.gold_results import is_right, wrong_answers
from app.studies.study import QUESTIONS, StudyPolicy, policy_of
from app.voting.answers import displayed
from app.voting.assignments import has_finished, practice_left, progress_of
from app.voting.votes import answers_on_screen, current_vote

TOKEN_S = 30 * 86_400.0
"""Longer than any lease: whether a vote is too late, or stored already, is for the database to say."""


def study_plain(session: Session, study: Study, rater: Rater | None, agreed: Set[str]) -> dict[str, Any]:
    """Return a study as a rater may know it; `agreed` are the versions of the information that they accepted."""
    policy = policy_of(study)
    # Its code is what a panel pays for: only who is done gets to see it.
    is_done = policy.completion_url is not None and rater is not None and has_finished(session, study, rater)
    return {
        "slug": study.slug,
        "name": study.name,
        "is_open": study.status == "open",
        "consent_version": policy.consent_version,
        "consented": policy.consent_version in agreed,
        "questions": list(policy.questions),
        "practice_left": practice_left(session, study, rater) if rater else policy.practice,
        "completion_url": policy.completion_url if is_done else None,
    }


def assignment_plain(
    session: Session, arena: Arena, study: Study, rater: Rater, assignment: Assignment
) -> dict[str, Any]:
    """Return an assignment as its rater may know it."""
    policy, pair = policy_of(study), assignment.pair
    left, right = (pair.a, pair.b) if assignment.a_is_left else (pair.b, pair.a)
    last = current_vote(session, assignment.id)
    progress = progress_of(session, study, rater)
    return {
        "assignment": assignment.id,
        "token": arena.signer.sign("vote", assignment.id, rater.id, lasts_s=TOKEN_S),
        "study": study.slug,
        "kind": "practice" if pair.kind == "practice" else "vote",
        "prompt": pair.prompt.text,
        "questions": [vars(QUESTIONS[name]) for name in policy.questions],
        "min_watch_s": policy.min_watch_s,
        "expires_at": assignment.expires_at.isoformat(),
        "revision": 0 if last is None else last.revision + 1,
        "previous": None if last is None else _taken_back(session, assignment),
        "left": _clip_plain(arena, assignment, left, "left", policy),
        "right": _clip_plain(arena, assignment, right, "right", policy),
        "progress": {"voted": progress.voted, "wanted": progress.wanted},
    }


def _taken_back(session: Session, assignment: Assignment) -> Mapping[str, str] | None:
    """Return the answers of the vote that was withdrawn last, as they were on the screen."""
    last = session.scalar(
        select(Vote)
        .where(Vote.assignment_id == assignment.id, Vote.withdrawn.is_(False))
        .order_by(Vote.revision.desc())
        .limit(1)
    )
    return None if last is None else answers_on_screen(last, assignment)


def _clip_plain(arena: Arena, assignment: Assignment, video: Video, side: str, policy: StudyPolicy) -> dict[str, Any]:
    sources = []
    for kind in video.play_files:
        token = arena.signer.sign("clip", assignment.id, side, kind, lasts_s=policy.lease_s + policy.grace_s)
        sources.append({"url": f"/media/{token}", "type": kind})
    return {
        "sources": sources,
        "fps": video.fps,
        "num_frames": video.num_frames,
        "width": video.width,
        "height": video.height,
    }


def feedback(policy: StudyPolicy, assignment: Assignment, vote: Vote) -> dict[str, Any] | None:
    """Return whether a practice answer was right, and what was expected.

    None for every other pair, and where too little was answered to say.
    """
    pair = assignment.pair
    expected = policy.asked(pair.expected or {})
    verdict = is_right(vote.answers, expected) if pair.kind == "practice" else None
    if verdict is None:
        return None
    shown = displayed(wrong_answers(vote.answers, expected), a_is_left=assignment.a_is_left)
    told = ", ".join(f"{QUESTIONS[name].title}: {answer}" for name, answer in shown.items())
    return {"is_right": verdict, "message": "That is what we see, too." if verdict else f"We expected {told}."}
