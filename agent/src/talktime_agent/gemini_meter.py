"""The meter of Gemini Live: what its session does and hears -> facts about money. Pure but for its own memory.

Gemini says neither that a generation begins nor which request asked for it, and it tells usage as growing snapshots: in
the middle of a turn, with its end, after it, or twice. Generations are counted here, per connection; the last snapshot
of each is its usage, posted when its turn is over and again, under the same key, when a later one differs.

Events (made by `gemini_model` from the plugin's session, in the order in which they happen):
    {"type": "connected", "connection": id}                 a socket is set up, the first or a later one
    {"type": "asked", "request": id}                        we asked for an answer
    {"type": "forwarded", "seconds": s, "speech": bool}     the user's audio went out; `speech`: not silence alone
    {"type": "message", "output": bool, "interrupted": bool, "turnComplete": bool, "usageMetadata": {...}?}
    {"type": "tick"}                                        time has passed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from talktime_ledger.core.usage import Usage, UsageError, UsageKind, UsageStatus
from talktime_ledger.core.usage_gemini import usage_from_gemini_metadata

from talktime_agent.facts import HEARD_STEP_SECONDS, Billed, Connected, Fact, Free, Heard, Opened, Unmeterable

# The plugin gives up waiting for an answer after 5 s; one that comes later still is ours.
ASKED_MOST = timedelta(seconds=20)
# Usage comes with the end of the turn or about a second after it. Later than this it is not waited for any more.
USAGE_MOST = timedelta(seconds=15)
# The answer to what the user said begins within a second or two, on a connection that lives. What is not answered by
# then was no turn to the provider: a noise, or a word in the middle of which the user left. Not longer than a session's
# close waits for usage, so that who hangs up with a goodbye is charged no answer.
HEARD_MOST = timedelta(seconds=9)
# Shorter than any silence that ends a turn; and the answers that are paid for ahead (`Bounds.hold`).
PAUSE_SECONDS = 0.2
HEARD_AT_ONCE = 2


@dataclass(slots=True)
class Generation:
    """One turn of the model. `metered`: its last usage; `ended`: its turn is over, only usage may still come."""

    key: str
    number: int
    pending_before: float
    ended: bool = False
    interrupted: bool = False
    metered: Usage | None = None
    told: Usage | None = None
    waits_since: datetime | None = None
    given_up: bool = False


@dataclass(slots=True)
class GeminiMeter:
    """Meter of one Gemini session, over all its connections. ``answer_tokens``: the output cap of one answer."""

    provider: str
    model: str
    answer_tokens: int
    kind: UsageKind = UsageKind.RESPONSE
    _connection: str = ""
    _count: int = 0
    _connections: int = 0
    _names: set[str] = field(default_factory=set)
    _open: list[Generation] = field(default_factory=list)
    _last: Generation | None = None
    _asked: dict[str, datetime] = field(default_factory=dict)
    _known_tokens: int = 0
    _pending: float = 0.0
    _heard: list[str] = field(default_factory=list)
    _heard_at: datetime | None = None
    _heard_pending: float = 0.0
    _heard_count: int = 0
    _pause: float = 0.0

    @property
    def connected(self) -> bool:
        """Whether the provider has ever taken us in."""
        return bool(self._connection)

    @property
    def open_responses(self) -> frozenset[str]:
        """Requests that may still be answered, and generations whose last usage has not come."""
        return frozenset({*self._asked, *(generation.key for generation in self._open)})

    @property
    def context_tokens(self) -> int:
        """Tokens of the conversation at most: after the last metered answer, instructions included, and open ones."""
        return self._known_tokens + self.answer_tokens * len(self._open)

    def text_added(self, tokens: int) -> None:
        """Text we put into the conversation ourselves, in tokens (an upper bound)."""
        self._known_tokens += tokens

    @property
    def pending_seconds(self) -> float:
        """Seconds of audio forwarded and not in a metered prompt yet."""
        return self._pending

    def feed(self, event: Mapping[str, Any], at: datetime) -> list[Fact]:
        """The facts in one event, received ``at`` (UTC)."""
        facts = self._expired(at)
        match event.get("type"):
            case "connected":
                facts += self._connected(self._unused(str(event["connection"])))
            case "asked":
                self._asked[str(event["request"])] = at
            case "forwarded":
                self._pending += float(event["seconds"])
                if event.get("speech"):
                    facts += self._listened(at)
                    self._pause = 0.0
                else:
                    self._pause += float(event["seconds"])
            case "message":
                facts += self._message(event, at)
        return facts

    def _unused(self, connection: str) -> str:
        """A resumed session may keep its id, while generations are counted anew: the keys of before must not return."""
        self._connections += 1
        return connection if connection not in self._names else f"{connection}~{self._connections}"

    def _connected(self, connection: str) -> list[Fact]:
        facts: list[Fact] = [Connected(connection, replaced=bool(self._connection))]
        if self._connection:
            lost = "the connection was lost"
            facts += [Unmeterable(generation.key, lost) for generation in self._open if not generation.given_up]
            facts += [Unmeterable(request, lost) for request in self._asked]
            facts += [Unmeterable(heard, lost) for heard in self._heard]
            self._heard.clear()
            self._open.clear()
            self._asked.clear()
            self._last = None
        self._connection, self._count = connection, 0
        self._names.add(connection)
        return facts

    def _listened(self, at: datetime) -> list[Fact]:
        """The user speaks, or must have spoken: an answer may come. After a pause another one may, since the provider
        may have begun to answer what was said before it; we let it hear more while two are paid for.
        """
        self._heard_at = at
        if not self._heard or (self._pause >= PAUSE_SECONDS and len(self._heard) < HEARD_AT_ONCE):
            self._heard_count += 1
            self._heard.append(f"heard_{self._connection}/{self._heard_count}")
        elif self._pending < self._heard_pending + HEARD_STEP_SECONDS:
            return []
        self._heard_pending = self._pending
        return [Heard(heard) for heard in self._heard]

    def _answered(self) -> list[Fact]:
        """All that was heard is being answered, or never will be."""
        freed: list[Fact] = [Free(heard) for heard in self._heard]
        self._heard.clear()
        return freed

    def _expired(self, at: datetime) -> list[Fact]:
        gone = [request for request, asked in self._asked.items() if at - asked > ASKED_MOST]
        for request in gone:
            del self._asked[request]
        facts: list[Fact] = [Unmeterable(request, "never answered") for request in gone]
        if self._heard_at is not None and at - self._heard_at > HEARD_MOST:
            facts += self._answered()
        for generation in self._open:
            since = generation.waits_since
            if since is not None and at - since > USAGE_MOST and not generation.given_up:
                # It stays first in line: should its usage come after all, it replaces the bound.
                generation.given_up = True
                facts.append(Unmeterable(generation.key, "no usage after its end"))
        return facts

    def _message(self, event: Mapping[str, Any], at: datetime) -> list[Fact]:
        facts: list[Fact] = []
        # What was heard meanwhile is answered after the turn that is still going on.
        self._heard_at = at
        current = next((generation for generation in self._open if not generation.ended), None)
        over = bool(event.get("turnComplete"))
        if event.get("output") and current is not None and current.interrupted:
            # An interrupted turn that was not completed: what comes now is the next one.
            facts += self._end(current, at)
            current = None
        if current is None and (event.get("output") or over):
            # A turn can end before anything of it was said: interrupted while it was thinking, billed all the same.
            current, opened = self._begin()
            facts += opened
        if event.get("interrupted") and current is not None:
            current.interrupted = True
            if not self._asked and not self._heard:
                # The user spoke, perhaps before we knew of this turn at all: that is answered next.
                facts += self._listened(at)
        if (metadata := event.get("usageMetadata")) is not None:
            alone = not event.get("output") and not over
            facts += self._snapshot(metadata, None if alone else current, at)
        if over and current is not None:
            facts += self._end(current, at)
        return facts

    def _begin(self) -> tuple[Generation, list[Fact]]:
        self._count += 1
        generation = Generation(f"{self._connection}/{self._count}", self._count, self._pending)
        self._open.append(generation)
        request = next(iter(self._asked), None)
        if request is not None:
            del self._asked[request]
            return generation, [Opened(generation.key, request)]
        return generation, [Opened(generation.key, None), *self._answered()]

    def _snapshot(self, metadata: Mapping[str, Any], current: Generation | None, at: datetime) -> list[Fact]:
        facts: list[Fact] = []
        generation = current or next(iter(self._open), None) or self._last
        if generation is None:
            generation, opened = self._begin()
            generation.ended = True
            facts += opened
        try:
            generation.metered = usage_from_gemini_metadata(
                metadata,
                connection=self._connection,
                generation=generation.number,
                provider=self.provider,
                model=self.model,
                occurred_at=at,
                status=UsageStatus.CANCELLED if generation.interrupted else UsageStatus.COMPLETED,
                kind=self.kind,
            )
        except UsageError as error:
            if generation in self._open:
                self._open.remove(generation)
            return [*facts, Unmeterable(generation.key, str(error))]
        return facts + (self._end(generation, at) if generation.ended else [])

    def _end(self, generation: Generation, at: datetime) -> list[Fact]:
        """The turn is over: with a usage it is billed, without one it stays open until that comes."""
        generation.ended = True
        usage = generation.metered
        if usage is None:
            generation.waits_since = generation.waits_since or at
            return []
        if generation in self._open:
            self._open.remove(generation)
            self._pending = max(0.0, self._pending - generation.pending_before)
        self._last = generation
        if generation.told is not None and generation.told.meters == usage.meters:
            return []
        generation.told = usage
        # The prompt of the next answer begins with this one's: its prompt, and what was said.
        self._known_tokens = sum(usage.meters.values())
        return [Billed(usage)]
