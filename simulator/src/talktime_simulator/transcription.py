"""Input transcription: another model with a bill line of its own, a moment after the audio was committed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .conversation import Item
from .interviewer import transcript_of
from .journal import Journal, timestamp
from .line import Line
from .tokens import TranscriptionUsage


@dataclass(frozen=True, slots=True)
class Transcription:
    """The transcription of one committed user item by `options["model"]`."""

    session_id: str
    item: Item
    milliseconds: int
    options: dict[str, Any]
    committed_at: datetime

    async def run(self, line: Line, truth: Journal, seconds: float) -> None:
        """Completes after `seconds`; billed in any case, also when nobody is there to hear of it."""
        model, text = str(self.options["model"]), transcript_of(self.item.id, self.milliseconds)
        usage = TranscriptionUsage.of(model, self.milliseconds, str(self.options.get("prompt") or ""), text)
        delivered = False
        try:
            await asyncio.sleep(seconds)
            self.item.body["content"][0]["transcript"] = text
            delivered = await line.send(
                "conversation.item.input_audio_transcription.completed",
                item_id=self.item.id,
                content_index=0,
                transcript=text,
                usage=usage.wire(),
            )
        finally:
            truth.append(
                {
                    "provider_session": self.session_id,
                    "item_id": self.item.id,
                    "model": model,
                    "kind": "transcription",
                    "conversation": "auto",
                    "meters": usage.meters(),
                    "status": "completed",
                    "delivered": delivered,
                    "at": timestamp(self.committed_at),
                }
            )
