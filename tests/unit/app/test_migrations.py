"""Migrations: old databases of both kinds become what this program's tables say, with all that is in them."""

import uuid
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from app.arena_config import ArenaConfig
from app.database import schema
from app.database.engine import open_engine
from app.database.tables import (
    Assignment,
    Base,
    Exclusion,
    Pair,
    Prompt,
    Rater,
    Study,
    Video,
    Vote,
    new_id,
    utc_now,
)
from rlhf_video.errors import DataError
from tests.unit.app.conftest import on_both_databases


def make_old(config: ArenaConfig, revision: str) -> Engine:
    """Return a database as an earlier version of this program made it."""
    config.data.mkdir(parents=True)
    engine = open_engine(config.url)
    with engine.begin() as connection:
        settings = schema._settings()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)
    return engine


def fill(engine: Engine, vote_id: str) -> None:
    """Store one vote that is excluded, and all that it needs."""
    study, prompt, first, second, pair, rater, assignment = (new_id() for _ in range(7))
    now = utc_now()
    clip = {"prompt_id": prompt, "sample": 0, "source_path": "x", "source_sha256": "x", "play_files": {}, "fps": 8.0}
    clip |= {"num_frames": 8, "height": 16, "width": 16}
    rows: list[tuple[Any, dict[str, Any]]] = [
        (Study, {"id": study, "slug": "old", "name": "old", "policy": {}, "status": "open"}),
        (Prompt, {"id": prompt, "study_id": study, "text": "x", "text_sha256": "x"}),
        (Video, {"id": first, **clip}),
        (Video, {"id": second, **clip}),
        (Pair, {"id": pair, "study_id": study, "prompt_id": prompt, "a_id": first, "b_id": second, "kind": "real"}),
        (Rater, {"id": rater, "pseudonym": "old", "consent_version": "1", "status": "active"}),
        (
            Assignment,
            {
                "id": assignment,
                "study_id": study,
                "pair_id": pair,
                "rater_id": rater,
                "a_is_left": True,
                "probability": 1.0,
                "num_choices": 1,
                "policy": "sampled",
                "issued_at": now,
                "expires_at": now,
                "state": "voted",
            },
        ),
        (
            Vote,
            {
                "id": vote_id,
                "assignment_id": assignment,
                "revision": 0,
                "answers": {"overall": "A"},
                "body_sha256": "x",
                "stored_at": now,
            },
        ),
        (Exclusion, {"id": new_id(), "vote_id": vote_id, "reason": "too fast", "actor": "admin"}),
    ]
    with engine.begin() as connection:
        for table, row in rows:
            connection.execute(insert(table).values(**row))


@on_both_databases
def test_migrations_make_the_tables_of_this_program(config: ArenaConfig) -> None:
    config.data.mkdir(parents=True)
    engine = open_engine(config.url)
    schema.upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    schema.check_version(engine)
    engine.dispose()


@on_both_databases
def test_an_old_database_keeps_its_votes_and_takes_ids_with_dashes(config: ArenaConfig) -> None:
    engine = make_old(config, "0001")
    old, new = uuid.uuid4().hex, str(uuid.uuid4())
    fill(engine, old)
    checks = {check["name"] for check in inspect(engine).get_check_constraints("exclusion")}
    schema.upgrade(engine)
    with engine.begin() as connection:
        connection.execute(insert(Vote).from_select(*_copy_of_vote(old, new)))
        connection.execute(insert(Exclusion).values(id=new_id(), vote_id=new, reason="x", actor="admin"))
        assert set(connection.scalars(select(Vote.id))) == {old, new}
        assert set(connection.scalars(select(Exclusion.vote_id))) == {old, new}
    assert {check["name"] for check in inspect(engine).get_check_constraints("exclusion")} == checks
    with pytest.raises(IntegrityError), engine.begin() as connection:  # foreign keys are checked again
        connection.execute(insert(Exclusion).values(id=new_id(), vote_id="nobody", reason="x", actor="admin"))
    engine.dispose()


def test_a_database_with_loose_rows_is_not_migrated(config: ArenaConfig) -> None:
    engine = make_old(config, "0001")
    fill(engine, new_id())
    with engine.connect() as connection:
        schema._check_references(connection, is_on=False)
        connection.execute(text("DELETE FROM vote"))
        connection.commit()
        schema._check_references(connection, is_on=True)
    with pytest.raises(DataError, match="1 rows of exclusion"):
        schema.upgrade(engine)
    with pytest.raises(DataError, match="at version 0001"):
        schema.check_version(engine)
    engine.dispose()


def _copy_of_vote(old: str, new: str) -> tuple[list[str], Any]:
    """Return columns and values of a vote's next revision."""
    columns = [column for column in Vote.__table__.columns if column.name not in ("id", "revision")]
    names = ["id", "revision", *(column.name for column in columns)]
    return names, select(text(f"'{new}'"), text("1"), *columns).where(Vote.id == old)
