"""Room for ids of votes with dashes, as browsers make them; PostgreSQL refused them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    _change(sa.String(length=32), sa.String(length=36))


def downgrade() -> None:
    """Go back; PostgreSQL refuses where there are votes with dashes."""
    _change(sa.String(length=36), sa.String(length=32))


def _change(old: sa.String, new: sa.String) -> None:
    with op.batch_alter_table("vote") as table:
        table.alter_column("id", existing_type=old, type_=new, existing_nullable=False)
    with op.batch_alter_table("exclusion") as table:
        table.alter_column("vote_id", existing_type=old, type_=new, existing_nullable=True)
