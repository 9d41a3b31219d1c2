"""A session that has ended may hold its transport reserve until everybody has left the room."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Ended sessions hold nothing so far."""
    op.execute("ALTER TABLE sessions DROP CONSTRAINT nothing_held_when_closed")
    op.execute(
        "ALTER TABLE sessions ADD CONSTRAINT only_transport_held_when_closed "
        "CHECK (state = 'open' OR reserved <= transport_hold_usd)"
    )
    op.execute("CREATE INDEX sessions_lingering ON sessions (valid_until) WHERE state = 'closed' AND reserved > 0")


def downgrade() -> None:
    """Only for tests."""
    op.execute("DROP INDEX sessions_lingering")
    op.execute("ALTER TABLE sessions DROP CONSTRAINT only_transport_held_when_closed")
    op.execute("ALTER TABLE sessions ADD CONSTRAINT nothing_held_when_closed CHECK (state = 'open' OR reserved = 0)")
