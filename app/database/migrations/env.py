"""Run by Alembic: migrates over the connection it is given (app/database/schema.py)."""

from typing import Any, Literal

from alembic import context

from app.database.tables import Base, UtcTime


def _name_type(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Write our time type as what it is in the database: a migration must not change with this program's classes."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcTime) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_item=_name_type,
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
