"""Daily sums, so that reports over millions of sessions answer at once."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the sums; the first roll-up of what is there is the ledger's."""
    for statement in statements("0004_rollups.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Only for tests."""
    op.execute("DROP TABLE rollup_mark")
    op.execute("DROP TABLE spend_daily")
    op.execute("DROP TRIGGER sessions_closed ON sessions")
    op.execute("DROP FUNCTION mark_closed()")
    op.execute("ALTER TABLE sessions DROP COLUMN closed_tx")
    op.execute("ALTER TABLE entries DROP COLUMN tx")
