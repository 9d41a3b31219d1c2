"""What one raw provider event means for money. The meter turns events into these; the session acts on them."""

from __future__ import annotations

from dataclasses import dataclass

from talktime_ledger.core.usage import Usage

# A bound that grew with every frame would be written fifty times a second.
HEARD_STEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Connected:
    """A provider connection is up. ``replaced``: it took the place of one that was lost with its open responses."""

    provider_session: str
    replaced: bool


@dataclass(frozen=True, slots=True)
class Committed:
    """User audio became part of the conversation (and is being transcribed). Seconds of audio."""

    item: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Heard:
    """A provider that answers by itself has heard the user: an answer may be on its way of which nothing is known yet.

    Told again with every HEARD_STEP_SECONDS that are heard. Its answer opens under a key of its own; then this one is
    free.
    """

    key: str


@dataclass(frozen=True, slots=True)
class Opened:
    """The provider started a response. ``request``: our event id of the response.create that asked for it, if told."""

    key: str
    request: str | None


@dataclass(frozen=True, slots=True)
class Billed:
    """A usage, exactly as the provider told it."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Free:
    """A response ended, or a transcription failed, without anything billed."""

    key: str


@dataclass(frozen=True, slots=True)
class Unmeterable:
    """A response whose cost the provider did not tell, or told malformed: it stays at its bound."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The provider refused one of our requests: no response was started for it."""

    request: str
    code: str


@dataclass(frozen=True, slots=True)
class Fault:
    """The provider cannot serve us (key, quota, rate). ``code`` as the provider names it."""

    code: str
    message: str


Fact = Connected | Committed | Heard | Opened | Billed | Free | Unmeterable | Refused | Fault
