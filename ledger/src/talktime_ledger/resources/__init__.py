"""Project, SFUPool and RateCard: the one source of the CRD schemas."""
