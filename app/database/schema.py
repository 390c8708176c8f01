"""Bringing a database to this program's tables, by Alembic's migrations."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from rlhf_video.errors import DataError

logging.getLogger("alembic").setLevel(logging.WARNING)  # its progress is for its own command line
MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Create or migrate the tables; nothing happens where they are as this program wants them."""
    with engine.connect() as connection:
        # SQLite changes a table by dropping it for a changed copy, which it refuses while other rows refer to it.
        _check_references(connection, is_on=False)
        try:
            with connection.begin():
                settings = _settings()
                settings.attributes["connection"] = connection
                command.upgrade(settings, "head")
                _refuse_loose_rows(connection)
        finally:
            _check_references(connection, is_on=True)


def check_version(engine: Engine) -> None:
    """Refuse a database that another version of this program made.

    Raises:
        DataError: It cannot be reached, or its tables are missing, older or newer.
    """
    try:
        with engine.connect() as connection:
            there = MigrationContext.configure(connection).get_current_revision()
    except OperationalError as error:
        raise DataError(
            f"The arena's database {engine.url.render_as_string()} cannot be opened ({error.orig}): make it "
            "with `python app/arena.py init`, or correct --data or --database-url."
        ) from error
    wanted = ScriptDirectory.from_config(_settings()).get_current_head()
    if there != wanted:
        raise DataError(
            f"The arena's database is at version {there or 'none'} and this program wants {wanted}: make a copy of it, "
            "then run `python app/arena.py init` with the same --data or --database-url, which migrates it."
        )


def _check_references(connection: Connection, *, is_on: bool) -> None:
    """Switch SQLite's check of foreign keys, which it allows outside of transactions only."""
    if connection.dialect.name == "sqlite":
        cursor = connection.connection.cursor()
        cursor.execute(f"PRAGMA foreign_keys={'ON' if is_on else 'OFF'}")
        cursor.close()


def _refuse_loose_rows(connection: Connection) -> None:
    """Check what SQLite did not check meanwhile: a migration that loses rows is undone."""
    if connection.dialect.name == "sqlite":
        loose = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if loose:
            tables = ", ".join(sorted({row[0] for row in loose}))
            raise DataError(
                f"{len(loose)} rows of {tables} refer to rows that are not there: nothing was migrated. "
                "Go back to a copy of the database."
            )


def _settings() -> Config:
    settings = Config()
    settings.set_main_option("script_location", str(MIGRATIONS))
    return settings
