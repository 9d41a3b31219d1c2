"""livekit's own usage numbers against ours: a difference is logged and counted, never believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def differences(model_usage: Iterable[Any], model: str, audio_in: int, audio_out: int) -> Mapping[str, int]:
    """Metered minus livekit's, by name; empty when equal. ``model_usage``: `AgentSession.usage.model_usage`."""
    told = [usage for usage in model_usage if getattr(usage, "model", None) == model]
    theirs = {
        "audio_in": sum(int(getattr(usage, "input_audio_tokens", 0) or 0) for usage in told),
        "audio_out": sum(int(getattr(usage, "output_audio_tokens", 0) or 0) for usage in told),
    }
    ours = {"audio_in": audio_in, "audio_out": audio_out}
    return {name: ours[name] - theirs[name] for name in ours if ours[name] != theirs[name]}
