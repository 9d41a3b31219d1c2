"""SQL, and nothing else: each function is one or few statements on a connection the caller holds."""
