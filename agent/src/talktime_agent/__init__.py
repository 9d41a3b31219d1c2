"""The livekit-agents worker: one session = talk + meter + charge."""
