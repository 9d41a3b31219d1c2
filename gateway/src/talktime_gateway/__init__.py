"""The front door: token endpoint, admission, media choice."""
