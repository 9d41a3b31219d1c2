"""Daily sums tell estimated transport from usage of providers that never came."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Sums of before keep both in one: they knew hardly any transport that was not metered."""
    for statement in statements("0008_transport_estimates.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Only for tests."""
    op.execute("ALTER TABLE spend_daily DROP COLUMN transport_unmetered_usd")
