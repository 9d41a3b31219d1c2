"""livekit-agents' own numbers of the same sessions, priced by the same cards. Pure.

They are what the plugins' sessions emit as `metrics_collected`, summed by livekit's own `ModelUsageCollector` (what
`AgentSession.usage` shows). The benefit of the doubt is theirs: events are taken until the provider's socket is closed
(an AgentSession stops earlier), those of a killed process up to its death, transcription is priced as its own model,
and input tokens of no modality at the rate of audio. Gemini's are also read in a kinder way than the collector does:
the last event of each response instead of the sum of its growing snapshots.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from livekit.agents.metrics import LLMModelUsage, ModelUsageCollector, RealtimeModelMetrics, STTMetrics, STTModelUsage
from talktime_ledger.core.money import ZERO

from bench.meters.truth import Rates, cost


def parsed(line: str) -> RealtimeModelMetrics | STTMetrics | None:
    """A `metrics_collected` event as it was written; None for the kinds that tell no tokens."""
    told = json.loads(line)
    match told.get("type"):
        case "realtime_model_metrics":
            return RealtimeModelMetrics.model_validate(told)
        case "stt_metrics":
            return STTMetrics.model_validate(told)
        case _:
            return None


def cost_of(lines: Iterable[str], model: str, heard: str, rates: Rates) -> tuple[Decimal, Decimal]:
    """(as livekit sums it up, by the last event of each response) USD of the events of one session.

    ``heard``: the transcription's model.
    """
    events = [event for event in map(parsed, lines) if event is not None]
    last: dict[str, Any] = {event.request_id: event for event in events if isinstance(event, RealtimeModelMetrics)}
    kinder = [*last.values(), *(event for event in events if isinstance(event, STTMetrics))]
    return _priced(events, model, heard, rates), _priced(kinder, model, heard, rates)


def _priced(events: Iterable[Any], model: str, heard: str, rates: Rates) -> Decimal:
    collector = ModelUsageCollector()
    for event in events:
        collector.collect(event)
    total = ZERO
    for usage in collector.flatten():
        if isinstance(usage, LLMModelUsage):
            total += cost(model, _talk(usage), rates)
        elif isinstance(usage, STTModelUsage):
            audio = usage.input_audio_tokens
            meters = {"audio_in": audio, "text_in": usage.input_tokens - audio, "text_out": usage.output_tokens}
            total += cost(heard, meters, rates)
    return total


def _talk(usage: LLMModelUsage) -> Counter[str]:
    cached_text, cached_audio = usage.input_cached_text_tokens, usage.input_cached_audio_tokens
    return Counter(
        {
            "text_in": usage.input_text_tokens - cached_text,
            "text_cached_in": cached_text,
            "audio_in": usage.input_audio_tokens - cached_audio,
            "audio_cached_in": cached_audio,
            "unassigned_in": usage.input_tokens - usage.input_text_tokens - usage.input_audio_tokens,
            "text_out": usage.output_text_tokens,
            "audio_out": usage.output_audio_tokens,
        }
    )
