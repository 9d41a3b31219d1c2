"""Gemini Live (BidiGenerateContent) as the Google client libraries speak it, with billing truth."""
