"""A provider that bills nothing: OpenAI Realtime with token ground truth, and synthetic participants."""
