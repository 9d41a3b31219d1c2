"""Parts of bench/ledger.py: the servers, the HTTP load, the same transaction without us."""
