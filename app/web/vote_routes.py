"""Raters' API: who am I, consent, the next pair, the vote, skip and report (docs/arena.md has the protocol)."""

import asyncio
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.database.tables import Assignment, Rater, Study
from app.studies.study import policy_of
from app.voting.assignments import give_up, next_assignment, progress_of
from app.voting.raters import agreed_versions, consent, erase, find_rater, is_somebody_else, new_cookie
from app.voting.tokens import TokenError
from app.voting.votes import store_vote, undo_until
from app.web.api_errors import ApiError
from app.web.bodies import AssignmentBody, ConsentBody, Id, RefusalBody, VoteBody
from app.web.cookies import RATER_COOKIE
from app.web.limits import limited
from app.web.sessions import (
    PANEL_HEADER,
    arena_of,
    is_test,
    network_hash,
    panel_hash,
    session_cookie,
    set_session_cookie,
)
from app.web.vote_views import assignment_plain, feedback, study_plain

router = APIRouter(prefix="/api/v1")


@router.get("/session")
def read_session(request: Request) -> dict[str, Any]:
    """Return who the caller is and what there is to judge."""
    arena = arena_of(request)
    with arena.reading() as session:
        rater = find_rater(session, session_cookie(request))
        external = panel_hash(arena, unquote(request.headers.get(PANEL_HEADER, "")))
        if rater is not None and external is not None and rater.external_sha256 != external:
            rater = None  # they agree first: then the browser is theirs, or the id becomes this rater's
        studies = session.scalars(select(Study).where(Study.status != "closed").order_by(Study.created_at)).all()
        is_active = rater is not None and rater.status == "active"
        versions = {policy_of(study).consent_version for study in studies}
        agreed = agreed_versions(session, rater, versions) if rater is not None and is_active else frozenset()
        return {
            "rater": rater.pseudonym if rater else None,
            "consented": is_active,
            "studies": [study_plain(session, study, rater, agreed) for study in studies],
        }


@router.post("/consent", dependencies=[limited("consent")])
async def give_consent(request: Request, response: Response, body: ConsentBody) -> dict[str, Any]:
    """Store consent and give the browser its cookie."""
    arena, given, fresh = arena_of(request), session_cookie(request), new_cookie()
    external = panel_hash(arena, body.panel.get("PROLIFIC_PID"))
    network, never_counts = network_hash(request, arena), is_test(request, arena)

    def change(session: Session) -> tuple[str, str]:
        # Only a value of ours becomes a session: one that was planted in the browser is known to somebody else.
        known = find_rater(session, given)
        cookie = given if given and known is not None and not is_somebody_else(known, external) else fresh
        rater = consent(
            session,
            cookie,
            version=body.version,
            network_sha256=network,
            external_sha256=external,
            is_test=never_counts,
        )
        return rater.pseudonym, cookie

    pseudonym, cookie = await asyncio.wrap_future(arena.writer.submit(change))
    set_session_cookie(response, arena, cookie)
    return {"rater": pseudonym, "consented": True}


@router.post("/assignments", response_model=None, dependencies=[limited("assignment")])
async def ask_for_pair(request: Request, response: Response, body: AssignmentBody) -> dict[str, Any] | Response:
    """Lease the next pair, or return the one that is open."""
    arena, cookie = arena_of(request), session_cookie(request)

    def change(session: Session) -> tuple[dict[str, Any], bool] | None:
        rater = _consented(session, cookie)
        study = session.scalar(select(Study).where(Study.slug == body.study))
        if study is None:
            raise ApiError(404, "unknown_study", f"There is no study '{body.study}'.")
        if not _has_agreed(session, arena, rater, policy_of(study).consent_version):
            raise ApiError(403, "not_consented", "Please read and accept this study's information first.")
        leased = next_assignment(session, study, rater, arena.rng, arena.tally, arena.pairs)
        if leased is None:
            return None
        assignment, is_new = leased
        return assignment_plain(session, arena, study, rater, assignment), is_new

    leased = await asyncio.wrap_future(arena.writer.submit(change))
    if leased is None:
        return Response(status_code=204)
    plain, is_new = leased
    response.status_code = 201 if is_new else 200
    return plain


@router.post("/votes", dependencies=[limited("vote")])
async def vote(request: Request, response: Response, body: VoteBody) -> dict[str, Any]:
    """Store a vote; the answer comes after the commit."""
    arena, cookie = arena_of(request), session_cookie(request)

    def change(session: Session) -> tuple[dict[str, Any], bool]:
        rater = _consented(session, cookie)
        _check_token(arena, body.token, body.assignment, rater)
        stored, is_new = store_vote(session, body.ballot(), rater)
        assignment = session.get_one(Assignment, body.assignment)
        study = session.get_one(Study, assignment.study_id)
        progress = progress_of(session, study, rater)
        return {
            "vote_id": stored.id,
            "assignment": assignment.id,
            "revision": stored.revision,
            "stored_at": stored.stored_at.isoformat(),
            "undo_until": undo_until(stored, policy_of(study)).isoformat(),
            "feedback": feedback(policy_of(study), assignment, stored),
            "progress": {"voted": progress.voted, "wanted": progress.wanted},
        }, is_new

    plain, is_new = await asyncio.wrap_future(arena.writer.submit(change))
    response.status_code = 201 if is_new else 200
    return plain


@router.post("/assignments/{assignment_id}/skip")
async def skip(request: Request, assignment_id: Id, body: RefusalBody) -> dict[str, str]:
    """Leave a pair to somebody else."""
    return await _refuse(request, assignment_id, body, "skip")


@router.post("/assignments/{assignment_id}/report")
async def report(request: Request, assignment_id: Id, body: RefusalBody) -> dict[str, str]:
    """Say that a pair is broken or unfit."""
    return await _refuse(request, assignment_id, body, "report")


@router.post("/erase")
async def erase_me(request: Request, response: Response) -> dict[str, bool]:
    """Forget the caller; their votes stay, of nobody."""
    arena, cookie = arena_of(request), session_cookie(request)
    await asyncio.wrap_future(arena.writer.submit(lambda session: erase(session, _consented(session, cookie))))
    response.delete_cookie(RATER_COOKIE, path="/")
    return {"erased": True}


async def _refuse(request: Request, assignment_id: str, body: RefusalBody, kind: str) -> dict[str, str]:
    arena, cookie = arena_of(request), session_cookie(request)

    def change(session: Session) -> str:
        rater = _consented(session, cookie)
        _check_token(arena, body.token, assignment_id, rater)
        assignment = session.get_one(Assignment, assignment_id)
        give_up(session, assignment, kind=kind, reason=body.reason, note=body.note)
        return assignment.state

    return {"state": await asyncio.wrap_future(arena.writer.submit(change))}


def _consented(session: Session, cookie: str | None) -> Rater:
    rater = find_rater(session, cookie)
    if rater is None:
        raise ApiError(403, "not_consented", "Please agree to take part first.")
    if rater.status != "active":
        raise ApiError(403, "blocked", "This session was closed by the organisers.")
    return rater


def _has_agreed(session: Session, arena: Arena, rater: Rater, version: str) -> bool:
    if (rater.id, version) not in arena.agreed and agreed_versions(session, rater, {version}):
        arena.agreed.add((rater.id, version))  # consent is never taken back, only erased with its rater
    return (rater.id, version) in arena.agreed


def _check_token(arena: Arena, token: str, assignment_id: str, rater: Rater) -> None:
    try:
        fits = arena.signer.read(token) == ("vote", assignment_id, rater.id)
    except TokenError:
        fits = False
    if not fits:
        raise ApiError(403, "foreign", "This token is not for this pair: reload the page.")
