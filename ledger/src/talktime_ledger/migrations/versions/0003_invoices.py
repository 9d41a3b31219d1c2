"""Bills of providers: lines, settlements, and entries that answer to them."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the tables; entries may answer to a bill."""
    for statement in statements("0003_invoices.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Only for tests, on a ledger without invoices."""
    for table in ("invoice_groups", "invoice_lines", "invoices"):
        op.execute(f"DROP TABLE {table}")
    op.execute("ALTER TABLE entries DROP CONSTRAINT entries_session_or_invoice")
    op.execute("ALTER TABLE entries DROP CONSTRAINT entries_kind_check")
    op.execute("DROP INDEX entries_by_invoice")
    op.execute("ALTER TABLE entries DROP COLUMN invoice_group")
    op.execute(
        "ALTER TABLE entries ADD CONSTRAINT entries_kind_check"
        " CHECK (kind IN ('usage', 'correction', 'unmetered', 'assumed', 'reversal', 'transport'))"
    )
    op.execute("ALTER TABLE entries ALTER COLUMN meters DROP DEFAULT")
    op.execute("ALTER TABLE entries ALTER COLUMN session_id SET NOT NULL")
