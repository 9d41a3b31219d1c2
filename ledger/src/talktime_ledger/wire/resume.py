"""What travels when an agent is lost: its last report, the pods' heartbeats, checkpoints of the conversation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from talktime_ledger.wire.base import Label, Wire
from talktime_ledger.wire.metering import Unmetered, Usage
from talktime_ledger.wire.sessions import SessionEvent

MAX_ITEMS = 400
MAX_TEXT = 20_000
MOST_LOSSES = 3
"""So many agents of one session are replaced; when the next one dies, the reason is hardly in the agent. Who comes then
only says goodbye, and nobody is sent after that."""


class ContextItem(Wire):
    """Something that was said, as text."""

    role: Literal["user", "assistant"]
    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT)]


class Checkpoint(Wire):
    """The conversation so far, oldest first; takes the place of the one before."""

    epoch: int = Field(ge=1)
    items: tuple[ContextItem, ...] = Field((), max_length=MAX_ITEMS)


class Kept(Wire):
    """Whether a checkpoint was kept: not when the Project does not want it, or the ledger has no key."""

    kept: bool


class Lost(Wire):
    """The last word of an agent whose process died, said by its pod: the session stays open for the next agent."""

    epoch: int = Field(ge=1)
    n: int = Field(0, ge=0)
    usages: tuple[Usage, ...] = Field((), max_length=500)
    reason: Label
    turns: int = Field(0, ge=0)
    unmetered: tuple[Unmetered, ...] = Field((), max_length=100)
    events: tuple[SessionEvent, ...] = Field((), max_length=100)
