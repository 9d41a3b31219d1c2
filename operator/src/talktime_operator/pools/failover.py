"""SelfHosted or Fallback: where a pool's new rooms go. Pure: evidence and time in, a decision and its reason out.

Over: after `failure_threshold` rounds in a row in which no node could take a room. Back: only after `failback_after` of
health without one round that was not good, and not before the stay on the fallback lasted as long. So two failovers are
at least `failback_after` apart, and a node that dies every 30 s stays out. Unknown keeps things as they are (law 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from talktime_ledger.resources.pool import FallbackMode

Verdict = Literal["good", "bad", "unknown"]
Target = Literal["SelfHosted", "Fallback"]

STARTUP_GRACE = 60.0
"""Seconds. A pool that was never seen good is starting, not failing, for this long."""


class Reason(StrEnum):
    """Why new rooms go where they go."""

    STARTED = "Started"
    POOL_SICK = "PoolSick"
    FORCED = "Forced"
    NO_LONGER_FORCED = "NoLongerForced"
    POOL_RECOVERED = "PoolRecovered"
    FALLBACK_OFF = "FallbackOff"
    TAKEN_OVER = "TakenOver"


@dataclass(frozen=True)
class Streak:
    """The last verdict, and for how many rounds and seconds (monotonic) in a row it was the same.

    `proven`: the pool was seen good before, by this operator or by the one before it.
    """

    verdict: Verdict = "unknown"
    rounds: int = 0
    seconds: float = 0.0
    proven: bool = False

    def then(self, verdict: Verdict, elapsed: float, rounds: int = 1) -> Streak:
        """One more round, `elapsed` seconds after the last one, that counts as so many."""
        proven = self.proven or verdict == "good"
        if verdict != self.verdict:
            return Streak(verdict, rounds, 0.0, proven)
        return Streak(verdict, self.rounds + rounds, self.seconds + elapsed, proven)


@dataclass(frozen=True)
class Policy:
    """From `spec.fallback` and `spec.health`. `usable`: URL and keys of the fallback are known."""

    mode: FallbackMode
    usable: bool
    failure_threshold: int
    failback_after: timedelta


@dataclass(frozen=True)
class Active:
    """Where new rooms go, since when and why. `count`: switches so far."""

    target: Target
    since: datetime
    reason: Reason = Reason.STARTED
    message: str = ""
    count: int = 0

    @classmethod
    def parse(cls, status: Mapping[str, Any], now: datetime) -> Active:
        """From `status.active`; what cannot be read is a pool that has just started."""
        try:
            since = datetime.strptime(status["since"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            return cls(
                "Fallback" if status["target"] == "Fallback" else "SelfHosted",
                since,
                Reason(status.get("reason") or Reason.STARTED),
                str(status.get("message", "")),
                int(status.get("count", 0)),
            )
        except (KeyError, TypeError, ValueError):
            return cls("SelfHosted", now.replace(microsecond=0))

    def render(self) -> dict[str, Any]:
        """`status.active`."""
        return {
            "target": self.target,
            "since": self.since.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "reason": self.reason.value,
            "message": self.message,
            "count": self.count,
        }


def recall(told: Active, pushed: Target | None, now: datetime) -> Active:
    """Where a new operator begins. `told`: by the status; `pushed`: what the ledger, and so the gateways, heard last.

    Who decides tells the gateways first, so an operator that dies while it cannot write the status leaves an old one
    behind. Since when rooms have gone to the fallback nobody knows then: the stay begins anew.
    """
    if pushed != "Fallback" or told.target == "Fallback":
        return told
    text = "the operator before this one had switched and could not write it here; since when is not known"
    return Active("Fallback", now.replace(microsecond=0), Reason.TAKEN_OVER, text, told.count + 1)


def pool_is_sick(pool: Streak, failure_threshold: int) -> bool:
    """Bad for so many rounds in a row; one that has never been good gets its time to start."""
    if pool.verdict != "bad" or pool.rounds < failure_threshold:
        return False
    return pool.proven or pool.seconds >= STARTUP_GRACE


def decide(before: Active, policy: Policy, pool: Streak, why_sick: str, fallback: Verdict, now: datetime) -> Active:
    """Where new rooms go from now on. `why_sick` is the cause in words; `fallback` is the second LiveKit's health.

    Both sick: nothing moves, because nothing would be better.
    """
    if policy.mode is FallbackMode.NEVER:
        return _to(before, "SelfHosted", Reason.FALLBACK_OFF, "spec.fallback.mode is Never", now)
    if policy.mode is FallbackMode.FORCE:
        if not policy.usable:
            return before
        return _to(before, "Fallback", Reason.FORCED, "spec.fallback.mode is Force: a planned switch", now)
    if before.target == "SelfHosted":
        if policy.usable and fallback != "bad" and pool_is_sick(pool, policy.failure_threshold):
            return _to(before, "Fallback", Reason.POOL_SICK, why_sick, now)
        return before
    wait = policy.failback_after
    if pool.verdict == "good" and pool.seconds >= wait.total_seconds() and now - before.since >= wait:
        text = f"the pool has been good for {wait.total_seconds():.0f} s without a break"
        return _to(before, "SelfHosted", Reason.POOL_RECOVERED, text, now)
    if before.reason is Reason.FORCED:
        text = "spec.fallback.mode is Auto again: back when the pool has been good for spec.fallback.failbackAfter"
        return replace(before, reason=Reason.NO_LONGER_FORCED, message=text)
    return before


def _to(before: Active, target: Target, reason: Reason, message: str, now: datetime) -> Active:
    if before.target != target:
        return Active(target, now.replace(microsecond=0), reason, message, before.count + 1)
    if target == "Fallback" and before.reason is not reason:
        return replace(before, reason=reason, message=message)
    return before
