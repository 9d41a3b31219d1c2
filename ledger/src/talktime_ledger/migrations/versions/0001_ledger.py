"""The ledger's tables (hand-written SQL beside this file)."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "heartbeat jwks_cache outbox clips tickets provider_reports refusals revisions pools rate_cards session_costs"
    " budget_audit entries usage_events sessions price_snapshots accounts projects"
)


def upgrade() -> None:
    """Creates everything."""
    for statement in statements("0001_ledger.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Drops everything; only for tests, a ledger is never taken down."""
    for table in TABLES.split():
        op.execute(f"DROP TABLE {table}")
    op.execute("DROP FUNCTION append_only()")
