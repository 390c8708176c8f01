"""The database by its URL: SQLite in one file, or PostgreSQL."""

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from rlhf_video.errors import ConfigError

BUSY_MS = 10_000  # a reader of another process may hold the file this long


def sqlite_url(file: Path) -> str:
    """Return the URL of a SQLite file."""
    return URL.create("sqlite", database=str(file)).render_as_string()


def open_engine(url: str) -> Engine:
    """Open a database; nothing is created.

    Args:
        url: `sqlite:///FILE` or `postgresql+psycopg://USER:PASSWORD@HOST/NAME`.

    Raises:
        ConfigError: Another database, a SQLite URL without a file, or PostgreSQL's driver is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"The database URL '{url}' cannot be read: write sqlite:///arena.sqlite.") from error
    if parsed.drivername == "postgresql":  # the plain name would look for another driver
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg":
        try:
            return create_engine(parsed, pool_size=10, max_overflow=20, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise ConfigError("PostgreSQL needs its driver: pip install 'rlhf-video[arena-pg]'.") from error
    if parsed.drivername in ("sqlite", "sqlite+pysqlite") and parsed.database not in (None, "", ":memory:"):
        engine = create_engine(parsed, connect_args={"timeout": BUSY_MS / 1000})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    raise ConfigError(
        f"The database URL '{parsed.render_as_string()}' is neither a SQLite file (sqlite:///arena.sqlite) nor "
        "PostgreSQL (postgresql+psycopg://user@host/name)."
    )


def _prepare_sqlite(connection: Any, _: object) -> None:
    # Python's driver begins transactions late and by itself; SQLAlchemy's way out is to do it by hand.
    connection.isolation_level = None
    cursor = connection.cursor()
    # FULL: what was acknowledged survives a power cut. WAL: readers do not wait for the writer.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # A transaction that will write must say so at once: one that begins by reading may find the file taken later.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
