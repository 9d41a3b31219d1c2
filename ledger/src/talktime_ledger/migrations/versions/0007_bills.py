"""Bills without amounts, and the billing project of a session as it was at open."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing is rewritten."""
    for statement in statements("0007_bills.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Only for tests."""
    op.execute("ALTER TABLE sessions DROP COLUMN billing")
    op.execute("ALTER TABLE invoice_lines DISABLE TRIGGER invoice_lines_append_only")
    op.execute("DELETE FROM invoice_lines WHERE amount_usd IS NULL")
    op.execute("ALTER TABLE invoice_lines ENABLE TRIGGER invoice_lines_append_only")
    op.execute("ALTER TABLE invoice_lines ALTER COLUMN amount_usd SET NOT NULL")
