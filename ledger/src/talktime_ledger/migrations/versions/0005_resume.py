"""Resume: lost agents, heartbeats of pods, encrypted checkpoints of conversations."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns and tables; sessions that are open have lost nobody."""
    for statement in statements("0005_resume.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Only for tests."""
    op.execute("DROP TRIGGER sessions_forget ON sessions")
    op.execute("DROP FUNCTION forget_context()")
    op.execute("DROP TABLE session_contexts")
    op.execute("DROP TABLE worker_beats")
    op.execute("DROP INDEX sessions_lost")
    op.execute("ALTER TABLE sessions DROP COLUMN lost_epoch")
    op.execute("ALTER TABLE sessions DROP COLUMN losses")
