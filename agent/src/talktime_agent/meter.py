"""The meter: raw OpenAI Realtime server events -> facts about money. Pure but for its own memory; times are passed in.

It reads every event before the framework handles it, because the framework drops usage exactly where money is lost:
responses discarded, raced or cut by a reconnection.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from talktime_ledger.core.usage import (
    UsageError,
    UsageKind,
    UsageMissing,
    usage_from_openai_response_done,
    usage_from_openai_transcription,
)

from talktime_agent.facts import Billed, Committed, Connected, Fact, Fault, Free, Opened, Refused, Unmeterable

# A commit without speech marks (a client-side commit): assume a long turn rather than none.
UNKNOWN_TURN_SECONDS = 60.0
# Codes with which the provider says that this key or account cannot be served (fatal in the plugin, too).
FAULT_CODES = frozenset(
    {
        "invalid_api_key",
        "insufficient_quota",
        "credit_balance_exhausted",
        "account_deactivated",
        "billing_hard_limit_reached",
        "rate_limit_exceeded",
        "inference_rate_limit_exceeded",
    }
)


class ProviderMeter:
    """Meter of one provider session (over all its reconnections)."""

    def __init__(
        self, *, provider: str, model: str, transcription_model: str | None, kind: UsageKind = UsageKind.RESPONSE
    ) -> None:
        """``provider`` is the Project's name for it; ``kind`` is what its responses are posted as."""
        self._provider = provider
        self._model = model
        self._transcription_model = transcription_model
        self._kind = kind
        self._session = ""
        self._open: dict[str, frozenset[str]] = {}
        self._ended: set[str] = set()
        self._billed: set[str] = set()
        self._speech_start_ms: dict[str, float] = {}
        self._speech_ms: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._known_tokens = 0

    @property
    def connected(self) -> bool:
        """Whether the provider has ever taken us in."""
        return bool(self._session)

    @property
    def open_responses(self) -> frozenset[str]:
        """Keys of responses that the provider has started and not finished."""
        return frozenset(self._open)

    @property
    def context_tokens(self) -> int:
        """Known tokens of the conversation after the last answer."""
        return self._known_tokens

    @property
    def pending_seconds(self) -> float:
        """Seconds of user audio committed since the last metered response began."""
        return sum(self._pending.values())

    def text_added(self, tokens: int) -> None:
        """Text we put into the conversation ourselves, in tokens (an upper bound)."""
        self._known_tokens += tokens

    def feed(self, event: Mapping[str, Any], at: datetime) -> list[Fact]:
        """The facts in one raw server event received ``at`` (UTC); none for events that do not matter for money."""
        match event.get("type"):
            case "session.created":
                return self._connected(event)
            case "input_audio_buffer.speech_started":
                self._speech_start_ms[str(event.get("item_id"))] = _number(event.get("audio_start_ms"))
                return []
            case "input_audio_buffer.speech_stopped":
                item = str(event.get("item_id"))
                started = self._speech_start_ms.pop(item, None)
                if started is not None:
                    self._speech_ms[item] = max(0.0, _number(event.get("audio_end_ms")) - started)
                return []
            case "input_audio_buffer.committed":
                return self._committed(event)
            case "response.created":
                return self._created(event)
            case "response.done":
                return self._response_done(event, at)
            case "conversation.item.input_audio_transcription.completed":
                return self._transcribed(event, at)
            case "conversation.item.input_audio_transcription.failed":
                return [Free(f"{event.get('item_id')}/{event.get('content_index') or 0}")]
            case "error":
                return _error(event)
            case _:
                return []

    def _connected(self, event: Mapping[str, Any]) -> list[Fact]:
        session = event.get("session")
        new = str(session.get("id") or "") if isinstance(session, Mapping) else ""
        replaced = bool(self._session) and new != self._session
        facts: list[Fact] = [Connected(new, replaced)]
        if replaced:
            facts += [Unmeterable(key, "the connection was lost") for key in sorted(self._open)]
            self._open.clear()
            self._speech_start_ms.clear()
            self._speech_ms.clear()
        self._session = new
        return facts

    def _committed(self, event: Mapping[str, Any]) -> list[Fact]:
        item = str(event.get("item_id"))
        spoken = self._speech_ms.pop(item, None)
        seconds = UNKNOWN_TURN_SECONDS if spoken is None else spoken / 1000
        self._pending[item] = seconds
        return [Committed(item, seconds)]

    def _created(self, event: Mapping[str, Any]) -> list[Fact]:
        response = event.get("response")
        if not isinstance(response, Mapping) or not response.get("id"):
            return []
        key = self._key(str(response["id"]))
        if key in self._open or key in self._ended:
            return []
        self._open[key] = frozenset(self._pending)
        metadata = response.get("metadata")
        request = metadata.get("client_event_id") if isinstance(metadata, Mapping) else None
        return [Opened(key, str(request) if request else None)]

    def _response_done(self, event: Mapping[str, Any], at: datetime) -> list[Fact]:
        response = event.get("response")
        if not isinstance(response, Mapping) or not response.get("id"):
            return []
        key = self._key(str(response["id"]))
        if key in self._billed:
            return []
        # One that told nothing may be told again with its usage; again without one, it says nothing new.
        repeated = key in self._ended
        self._ended.add(key)
        heard = self._open.pop(key, frozenset(self._pending))
        try:
            usage = usage_from_openai_response_done(
                event,
                provider_session=self._session,
                provider=self._provider,
                model=self._model,
                occurred_at=at,
                kind=self._kind if self._in_conversation(response) else UsageKind.CLOSING_RENDER,
            )
        except UsageError as error:
            free = isinstance(error, UsageMissing) and response.get("status") == "failed"
            fact = Free(key) if free else Unmeterable(key, str(error))
            return [] if repeated else [fact, *_failure(response)]
        self._billed.add(key)
        if self._in_conversation(response):
            self._known_tokens = sum(usage.meters.values())
            for item in heard:
                self._pending.pop(item, None)
        return [Billed(usage), *_failure(response)]

    @staticmethod
    def _in_conversation(response: Mapping[str, Any]) -> bool:
        """An out-of-band response (the closing) says nothing about the conversation's size."""
        metadata = response.get("metadata")
        return not (isinstance(metadata, Mapping) and metadata.get("talktime") == "closing")

    def _transcribed(self, event: Mapping[str, Any], at: datetime) -> list[Fact]:
        key = f"{event.get('item_id')}/{event.get('content_index') or 0}"
        if key in self._billed or self._transcription_model is None:
            return []
        try:
            usage = usage_from_openai_transcription(
                event, provider=self._provider, model=self._transcription_model, occurred_at=at
            )
        except UsageError as error:
            return [Unmeterable(key, str(error))]
        self._billed.add(key)
        return [Billed(usage)]

    def _key(self, response_id: str) -> str:
        return f"{self._session}/{response_id}"


def _error(event: Mapping[str, Any]) -> list[Fact]:
    error = event.get("error")
    if not isinstance(error, Mapping):
        return []
    code, message = str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")
    facts: list[Fact] = []
    if error.get("event_id"):
        facts.append(Refused(str(error["event_id"]), code))
    if code in FAULT_CODES:
        facts.append(Fault(code, message))
    return facts


def _failure(response: Mapping[str, Any]) -> list[Fact]:
    """A fault told inside a failed response."""
    details = response.get("status_details")
    error = details.get("error") if isinstance(details, Mapping) else None
    if response.get("status") != "failed" or not isinstance(error, Mapping):
        return []
    code = str(error.get("code") or error.get("type") or "")
    return [Fault(code, str(error.get("message") or ""))] if code in FAULT_CODES else []


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
