"""OpenAI Realtime server with billing ground truth, and synthetic participants."""
