"""The talktime command line for finance and SREs."""
