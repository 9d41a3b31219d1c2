"""A ticket knows the session it opened, so that a session without a room gives it back."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the session to tickets; old ones that were used stay used."""
    op.execute("ALTER TABLE tickets ADD COLUMN session_id UUID UNIQUE REFERENCES sessions(id)")


def downgrade() -> None:
    """Only for tests."""
    op.execute("ALTER TABLE tickets DROP COLUMN session_id")
