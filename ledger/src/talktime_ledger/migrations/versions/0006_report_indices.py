"""Reports find what came after the daily sums at once, and a day of entries without reading all of them."""

from __future__ import annotations

from alembic import op

from talktime_ledger.migrations.statements import statements

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Other indices, the same rows."""
    for statement in statements("0006_report_indices.sql"):
        op.execute(statement)


def downgrade() -> None:
    """Only for tests."""
    op.execute("ALTER INDEX entries_by_day RESET (autosummarize)")
    op.execute("DROP INDEX entries_by_tx")
    op.execute("CREATE INDEX entries_by_tx ON entries USING BRIN (tx) WITH (pages_per_range = 16)")
