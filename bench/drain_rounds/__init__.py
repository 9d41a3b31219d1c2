"""Parts of bench/drains.py: the stand on a cluster, the acts that drain, one round, and what is made of its events."""
