"""Is the arena as it was written? Database, audit log, votes, snapshots, and every clip's hash."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.boards.snapshot import check_snapshot
from app.database.audit_log import first_broken_entry
from app.database.tables import AuditEntry, Snapshot, Video, Vote
from app.voting.votes import facts_on_record
from rlhf_video.data.files import sha256_file
from rlhf_video.errors import RlhfVideoError

_VOTE_ACTIONS = ("vote.stored", "vote.withdrawn")


def find_problems(session: Session, data: Path) -> Iterator[str]:
    """Yield one sentence for each thing that is not as it should be.

    Args:
        session: Only read from.
        data: The arena's data folder.
    """
    yield from _database_problems(session)
    yield from _vote_problems(session)
    yield from _snapshot_problems(session)
    yield from _clip_problems(session, data)


def votes_without_facts(session: Session) -> int:
    """Return how many votes were logged before the log held their answers: no change of those can be found."""
    return sum("answers" not in facts for _, facts in _logged_votes(session))


def _database_problems(session: Session) -> Iterator[str]:
    if session.get_bind().dialect.name == "sqlite":
        found = session.execute(text("PRAGMA integrity_check")).scalars().all()
        yield from (f"database: {line}" for line in found if line != "ok")
    broken = first_broken_entry(session)
    if broken is not None:
        yield f"audit log: entry {broken} does not follow from the one before"


def _logged_votes(session: Session) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a vote's id and what the log holds of it, entry by entry."""
    wanted = select(AuditEntry.subject, AuditEntry.details).where(AuditEntry.action.in_(_VOTE_ACTIONS))
    for subject, details in session.execute(wanted.order_by(AuditEntry.number)).yield_per(1000):
        yield subject, json.loads(details)


def _vote_problems(session: Session) -> Iterator[str]:
    """Compare every vote with its one entry of the audit log, and every entry with its vote."""
    logged: dict[str, dict[str, Any]] = {}
    for name, facts in _logged_votes(session):
        if name in logged:
            yield f"vote {name} has two entries in the audit log"
        logged[name] = facts
    for vote in session.scalars(select(Vote)).yield_per(1000):
        known = logged.pop(vote.id, None)
        if known is None:
            yield f"vote {vote.id} is not in the audit log"
            continue
        changed = [name for name, value in facts_on_record(vote).items() if name in known and known[name] != value]
        if changed:
            yield f"vote {vote.id} is not as the audit log has it: {', '.join(changed)}"
    yield from (f"vote {name} is in the audit log and nowhere else" for name in logged)


def _snapshot_problems(session: Session) -> Iterator[str]:
    for snapshot in session.scalars(select(Snapshot).order_by(Snapshot.created_at, Snapshot.id)):
        entry = session.get(AuditEntry, snapshot.last_audit_number)
        if snapshot.last_audit_number and (entry is None or entry.sha256 != snapshot.last_audit_sha256):
            yield f"audit log: entry {snapshot.last_audit_number} is not the one that snapshot {snapshot.id} saw"
        try:
            if not check_snapshot(session, snapshot):
                yield f"snapshot {snapshot.id} (version {snapshot.code_version}) does not come out again"
        except RlhfVideoError as error:
            yield f"snapshot {snapshot.id} cannot be computed again: {error}"


def _clip_problems(session: Session, data: Path) -> Iterator[str]:
    for video in session.scalars(select(Video)):
        file = data / video.source_path
        if not file.is_file():
            yield f"clip {video.source_path} is missing"
        elif sha256_file(file) != video.source_sha256:
            yield f"clip {video.source_path} is not the file that was imported"
        for path in video.play_files.values():
            file = data / path
            if not file.is_file():
                yield f"clip {path} is missing"
            elif sha256_file(file) != file.stem:
                yield f"clip {path} is not the file that was made for raters: its name is its hash"
