"""Admins' API: who rates how, what was reported, leaving votes out and in again, opening and closing studies.

Everybody else gets 401. Every change writes an audit entry in its own transaction.
"""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import Assignment, Exclusion, Pair, Rater, Refusal, Study
from app.quality.agreement import question_agreement
from app.quality.exclusions import exclude, lift_exclusion
from app.quality.reliability import rater_reports
from app.studies.study import StudyStatus, set_status
from app.voting.clean_votes import clean_votes
from app.web.admin_session import require_admin
from app.web.api_errors import ApiError
from app.web.plain_numbers import finite
from app.web.sessions import arena_of

router = APIRouter(prefix="/api/v1/admin")
Admin = Annotated[str, Depends(require_admin)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ExclusionBody(_Body):
    """What to leave out, and why."""

    kind: Literal["rater", "vote"]
    id: Annotated[str, Field(max_length=36)]
    reason: Annotated[str, Field(min_length=1, max_length=64)]


class StatusBody(_Body):
    """What a study shall be."""

    status: StudyStatus


@router.get("/session")
def read_admin(admin: Admin) -> dict[str, str]:
    """Return who the caller is."""
    return {"admin": admin}


@router.get("/studies/{slug}/raters")
def read_raters(request: Request, slug: str, _: Admin) -> list[Any]:
    """Return a report on every rater of a study, most risk first."""
    with arena_of(request).reading() as session:
        return [finite(asdict(report)) for report in rater_reports(session, _study(session, slug))]


@router.get("/studies/{slug}/agreement")
def read_agreement(request: Request, slug: str, _: Admin) -> list[Any]:
    """Return how far raters agree on every question of a study."""
    with arena_of(request).reading() as session:
        return [finite(asdict(row)) for row in question_agreement(clean_votes(session, _study(session, slug)))]


@router.get("/studies/{slug}/refusals")
def read_refusals(request: Request, slug: str, _: Admin) -> list[dict[str, Any]]:
    """Return what raters skipped or reported, latest first."""
    with arena_of(request).reading() as session:
        rows = session.execute(
            select(Refusal, Rater.pseudonym, Pair.id)
            .join(Assignment, Assignment.id == Refusal.assignment_id)
            .join(Rater, Rater.id == Assignment.rater_id)
            .join(Pair, Pair.id == Assignment.pair_id)
            .where(Assignment.study_id == _study(session, slug).id)
            .order_by(Refusal.stored_at.desc(), Refusal.id)
        )
        return [
            {
                "kind": refusal.kind,
                "reason": refusal.reason,
                "note": refusal.note,
                "rater": pseudonym,
                "pair": pair,
                "stored_at": refusal.stored_at.isoformat(),
            }
            for refusal, pseudonym, pair in rows
        ]


@router.post("/studies/{slug}/status")
def change_status(request: Request, slug: str, body: StatusBody, admin: Admin) -> dict[str, str]:
    """Open, pause or close a study."""

    def change(session: Session) -> str:
        study = _study(session, slug)
        set_status(session, study, body.status, actor=admin)
        return study.status

    return {"study": slug, "status": arena_of(request).writer.run(change)}


@router.get("/exclusions")
def read_exclusions(request: Request, _: Admin) -> list[dict[str, Any]]:
    """Return every exclusion, lifted ones too, latest first."""
    with arena_of(request).reading() as session:
        rows = session.scalars(select(Exclusion).order_by(Exclusion.created_at.desc(), Exclusion.id))
        return [_plain(exclusion) for exclusion in rows]


@router.post("/exclusions", status_code=201)
def add_exclusion(request: Request, body: ExclusionBody, admin: Admin) -> dict[str, Any]:
    """Leave a vote, or all of a rater, out of analyses."""
    rater, vote = (body.id, None) if body.kind == "rater" else (None, body.id)
    return arena_of(request).writer.run(
        lambda session: _plain(exclude(session, actor=admin, reason=body.reason, rater_id=rater, vote_id=vote))
    )


@router.post("/exclusions/{exclusion_id}/lift")
def lift(request: Request, exclusion_id: str, admin: Admin) -> dict[str, Any]:
    """Count the votes of an exclusion again."""
    return arena_of(request).writer.run(lambda session: _plain(lift_exclusion(session, exclusion_id, actor=admin)))


def _study(session: Session, slug: str) -> Study:
    study = session.scalar(select(Study).where(Study.slug == slug))
    if study is None:
        raise ApiError(404, "unknown_study", f"There is no study '{slug}'.")
    return study


def _plain(exclusion: Exclusion) -> dict[str, Any]:
    return {
        "id": exclusion.id,
        "rater": exclusion.rater_id,
        "vote": exclusion.vote_id,
        "reason": exclusion.reason,
        "score": exclusion.score,
        "details": exclusion.details,
        "actor": exclusion.actor,
        "created_at": exclusion.created_at.isoformat(),
        "lifted_at": exclusion.lifted_at.isoformat() if exclusion.lifted_at else None,
        "lifted_by": exclusion.lifted_by,
    }
