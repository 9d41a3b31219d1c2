"""Synthetic participants: real WebRTC, real speech, and a record of everything they received."""
