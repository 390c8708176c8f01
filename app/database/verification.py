"""Is the arena as it was written? Database, audit log, and every clip's hash."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.database.audit_log import first_broken_entry
from app.database.tables import Video
from rlhf_video.data.files import sha256_file


def find_problems(session: Session, data: Path) -> Iterator[str]:
    """Yield one sentence for each thing that is not as it should be.

    Args:
        session: Only read from.
        data: The arena's data folder.
    """
    yield from _database_problems(session)
    yield from _clip_problems(session, data)


def _database_problems(session: Session) -> Iterator[str]:
    if session.get_bind().dialect.name == "sqlite":
        found = session.execute(text("PRAGMA integrity_check")).scalars().all()
        yield from (f"database: {line}" for line in found if line != "ok")
    broken = first_broken_entry(session)
    if broken is not None:
        yield f"audit log: entry {broken} does not follow from the one before"


def _clip_problems(session: Session, data: Path) -> Iterator[str]:
    for video in session.scalars(select(Video)):
        file = data / video.source_path
        if not file.is_file():
            yield f"clip {video.source_path} is missing"
        elif sha256_file(file) != video.source_sha256:
            yield f"clip {video.source_path} is not the file that was imported"
        yield from (f"clip {path} is missing" for path in video.play_files.values() if not (data / path).is_file())
