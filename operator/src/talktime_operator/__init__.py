"""The kopf operator: Project, SFUPool, RateCard to children, status, metrics."""
