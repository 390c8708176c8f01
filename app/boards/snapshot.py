"""Leaderboards that can be computed again: settings, where the audit log stood, and what came out."""

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.arena_state import Arena
from app.boards.board import Board, BoardSettings, make_board
from app.boards.study_board import study_settings
from app.database.audit_log import append_entry, read_head
from app.database.tables import Snapshot, Study, utc_now
from app.quality.gold_results import gold_results
from app.studies.study import find_study
from app.voting.clean_votes import clean_votes
from rlhf_video.settings import to_plain
from rlhf_video.settings.building import build_config


def take_snapshot(arena: Arena, slug: str, choices: Mapping[str, object], *, actor: str = "admin") -> str:
    """Compute a leaderboard and keep it.

    Args:
        arena: Open.
        slug: Of the study.
        choices: As of `study_settings`.
        actor: Who does it, for the audit log.

    Returns:
        The snapshot's id.

    Raises:
        DataError: There is no such study, or nothing to rank.
        ConfigError: A choice is not known.
    """

    def change(session: Session) -> str:
        study, now = find_study(session, slug), utc_now()
        head, settings = read_head(session), study_settings(session, study, choices)
        row = Snapshot(
            study_id=study.id,
            settings=to_plain(settings),
            last_audit_number=head.number,
            last_audit_sha256=head.sha256,
            code_version=importlib.metadata.version("rlhf-video"),
            result=board_plain(_board_at(session, study, settings, None)),
            created_at=now,
        )
        session.add(row)
        session.flush()
        details = {"study": slug, "audit_head": head.sha256}
        append_entry(session, actor=actor, action="snapshot.taken", subject=row.id, details=details)
        return row.id

    return arena.writer.run(change)


def check_snapshot(session: Session, snapshot: Snapshot) -> bool:
    """Return whether the votes of then still give the leaderboard of then; exclusions made since do not count."""
    study = session.get_one(Study, snapshot.study_id)
    settings = build_config(BoardSettings, snapshot.settings)
    # A snapshot from before a setting existed has none of it; the settings of then are kept beside the result.
    again = {**board_plain(_board_at(session, study, settings, snapshot)), "settings": snapshot.settings}
    return json.dumps(again, sort_keys=True) == json.dumps(snapshot.result, sort_keys=True)


def board_plain(board: Board) -> dict[str, Any]:
    """Return a board as dicts, lists and numbers; numbers that are not finite become None."""
    plain: dict[str, Any] = json.loads(json.dumps(_finite(board)))
    return plain


def _board_at(session: Session, study: Study, settings: BoardSettings, snapshot: Snapshot | None) -> Board:
    at = snapshot.created_at if snapshot else None
    return make_board(clean_votes(session, study, at=at), settings, gold=gold_results(session, study, at=at))


def _finite(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _finite(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    return value
