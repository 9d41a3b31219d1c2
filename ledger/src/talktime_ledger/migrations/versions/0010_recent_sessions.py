"""What the last sessions of a Project cost, without reading all that ever ended."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Another index, the same rows."""
    for statement in statements("0010_recent_sessions.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Only for tests."""
    op.execute("DROP INDEX sessions_recent")
