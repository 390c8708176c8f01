"""An append-only log in which every entry hashes the one before: whoever changes a line must rewrite all after it.

    entry n: sha256(previous hash, number, time, actor, action, subject, details)

A log that was cut at its end still verifies; compare its head with one that was noted elsewhere (snapshots hold it).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database.tables import AuditEntry, utc_now

START = "0" * 64


@dataclass(frozen=True)
class Head:
    """The last entry."""

    number: int
    sha256: str


def read_head(session: Session) -> Head:
    """Return the last entry; number 0 where there is none."""
    last = session.execute(
        select(AuditEntry.number, AuditEntry.sha256).order_by(AuditEntry.number.desc()).limit(1)
    ).first()
    return Head(0, START) if last is None else Head(last.number, last.sha256)


def append_entry(session: Session, *, actor: str, action: str, subject: str, details: Mapping[str, object]) -> None:
    """Write one entry in the transaction of what it tells about; only within the writer, which serialises them.

    Args:
        session: Of the change itself.
        actor: Who: a pseudonym, "admin", or "system".
        action: What, for example "vote.stored".
        subject: Id of what was changed.
        details: Anything JSON.
    """
    head = read_head(session)
    entry = AuditEntry(
        number=head.number + 1,
        at=utc_now().isoformat(),
        actor=actor,
        action=action,
        subject=subject,
        details=json.dumps(details, ensure_ascii=False, sort_keys=True),
        previous_sha256=head.sha256,
    )
    entry.sha256 = _hash(entry)
    session.add(entry)
    session.flush()  # the next entry of this transaction must see it


def first_broken_entry(session: Session) -> int | None:
    """Return the number of the first entry that does not follow from the one before; None where all do."""
    previous = Head(0, START)
    for entry in session.scalars(select(AuditEntry).order_by(AuditEntry.number)).yield_per(1000):
        follows = entry.number == previous.number + 1 and entry.previous_sha256 == previous.sha256
        if not follows or entry.sha256 != _hash(entry):
            return entry.number
        previous = Head(entry.number, entry.sha256)
    return None


def _hash(entry: AuditEntry) -> str:
    fields = (entry.previous_sha256, entry.number, entry.at, entry.actor, entry.action, entry.subject, entry.details)
    return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).hexdigest()
