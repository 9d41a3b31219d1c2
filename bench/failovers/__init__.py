"""Parts of bench/failover.py: the stand on a cluster, its guests, its faults, and what is made of the events."""
