"""What an admin looks at each morning: the database, leases, exclusions, free disk, and whether the log holds."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.database.audit_log import Head, first_broken_entry, read_head
from app.database.tables import Assignment, AuditEntry, Exclusion, Rater, Study, Vote, utc_now


@dataclass(frozen=True)
class OpenLeases:
    """Pairs that are with raters."""

    study: str
    num_running: int
    num_overdue: int
    """Past their time; others get those pairs with the next request."""


@dataclass(frozen=True)
class ArenaHealth:
    """Facts, not judgements."""

    database: str
    """sqlite or postgresql."""
    database_bytes: int
    free_bytes: int
    """Of the disk of the data folder."""
    head: Head
    broken_entry: int | None
    """First entry of the audit log that does not follow from the one before."""
    num_raters: int
    """Active ones, test raters aside."""
    num_votes: int
    """Rows, corrections and withdrawals included."""
    excluded_votes: int
    excluded_raters: int
    leases: tuple[OpenLeases, ...]
    """By study; only those that have any."""


def read_health(session: Session, data: Path) -> ArenaHealth:
    """Return how the arena is.

    Args:
        session: Only read from.
        data: The arena's data folder.
    """
    kind = session.get_bind().dialect.name
    size = (
        "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        if kind == "sqlite"
        else "SELECT pg_database_size(current_database())"
    )
    active = Exclusion.lifted_at.is_(None)
    return ArenaHealth(
        database=kind,
        database_bytes=int(session.scalar(text(size)) or 0),
        free_bytes=shutil.disk_usage(data).free,
        head=read_head(session),
        broken_entry=first_broken_entry(session),
        num_raters=session.scalar(select(func.count(Rater.id)).where(Rater.status == "active", ~Rater.is_test)) or 0,
        num_votes=session.scalar(select(func.count(Vote.id))) or 0,
        excluded_votes=session.scalar(select(func.count(func.distinct(Exclusion.vote_id))).where(active)) or 0,
        excluded_raters=session.scalar(select(func.count(func.distinct(Exclusion.rater_id))).where(active)) or 0,
        leases=_leases(session),
    )


def last_entries(session: Session, *, count: int = 30) -> list[AuditEntry]:
    """Return the newest entries of the audit log, newest first."""
    return list(session.scalars(select(AuditEntry).order_by(AuditEntry.number.desc()).limit(count)))


def _leases(session: Session) -> tuple[OpenLeases, ...]:
    rows = session.execute(
        select(Study.slug, Assignment.expires_at)
        .join(Study, Study.id == Assignment.study_id)
        .where(Assignment.state == "open")
        .order_by(Study.slug)
    )
    now, counts = utc_now(), dict[str, list[int]]()
    for slug, expires in rows:
        counts.setdefault(slug, [0, 0])[expires < now] += 1
    return tuple(OpenLeases(slug, running, overdue) for slug, (running, overdue) in counts.items())
