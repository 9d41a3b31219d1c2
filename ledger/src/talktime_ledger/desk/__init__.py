"""The transactions of the ledger: open, attach, use, close, claim, sweep. Decisions come from the core, SQL from the
store.
"""
