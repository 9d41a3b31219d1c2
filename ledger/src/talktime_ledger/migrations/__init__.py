"""Schema of the ledger: alembic revisions of hand-written SQL."""
