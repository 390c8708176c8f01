"""Pairs that raters reported as broken or unfit, with what an admin needs to look at them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from app.database.tables import Assignment, Pair, Prompt, Refusal, Study, System, Video


@dataclass(frozen=True)
class ReportedClip:
    """One side of a reported pair."""

    video: str
    """Id."""
    system: str | None
    """None: made for a gold pair."""


@dataclass(frozen=True)
class PairReport:
    """One report."""

    stored_at: datetime
    study: str
    prompt: str
    kind: str
    """real, gold or practice."""
    left: ReportedClip
    """As the rater saw it."""
    right: ReportedClip
    reason: str
    note: str | None
    times: int
    """Reports of this pair in all."""


def pair_reports(session: Session, *, count: int = 50) -> tuple[PairReport, ...]:
    """Return the newest reports, newest first.

    Args:
        session: Only read from.
        count: At most so many.
    """
    rows = session.execute(
        select(Refusal, Assignment, Study.slug, Prompt.text)
        .join(Assignment, Assignment.id == Refusal.assignment_id)
        .join(Pair, Pair.id == Assignment.pair_id)
        .join(Study, Study.id == Assignment.study_id)
        .join(Prompt, Prompt.id == Pair.prompt_id)
        .where(Refusal.kind == "report")
        .options(joinedload(Assignment.pair).joinedload(Pair.a), joinedload(Assignment.pair).joinedload(Pair.b))
        .order_by(Refusal.stored_at.desc(), Refusal.id)
        .limit(count)
    ).all()
    names = _system_names(session, [video for row in rows for video in (row[1].pair.a, row[1].pair.b)])
    times = _times(session, {row[1].pair_id for row in rows})
    reports = []
    for refusal, assignment, slug, prompt in rows:
        sides = [ReportedClip(video.id, names.get(video.system_id)) for video in (assignment.pair.a, assignment.pair.b)]
        left, right = sides if assignment.a_is_left else reversed(sides)
        reports.append(
            PairReport(
                stored_at=refusal.stored_at,
                study=slug,
                prompt=prompt,
                kind=assignment.pair.kind,
                left=left,
                right=right,
                reason=refusal.reason,
                note=refusal.note,
                times=times[assignment.pair_id],
            )
        )
    return tuple(reports)


def _system_names(session: Session, videos: list[Video]) -> dict[str | None, str]:
    wanted = {video.system_id for video in videos if video.system_id is not None}
    return dict(session.execute(select(System.id, System.name).where(System.id.in_(wanted))).all())


def _times(session: Session, pairs: set[str]) -> dict[str, int]:
    rows = session.execute(
        select(Assignment.pair_id, func.count())
        .join(Refusal, Refusal.assignment_id == Assignment.id)
        .where(Refusal.kind == "report", Assignment.pair_id.in_(pairs))
        .group_by(Assignment.pair_id)
    )
    return dict(rows.all())
