"""What the check before a response costs in the agent: the real `Till.may_respond`, on an account in mid-session.

The account holds what a busy session holds: open responses and transcriptions, usages the ledger has not answered, a
context near its cap. That no network is on the way is not measured but shown: the check is a plain function, and while
it runs every socket call, and every audit event of opening a file or a process, raises.
Every decision is timed by the thread's CPU clock (a shared machine's other work is not ours) and by the wall clock;
the bar is asserted on the CPU time, both are printed. Last line: `RESULT {json}`.

    python -m bench.gate --decisions 200000
"""

from __future__ import annotations

import argparse
import inspect
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from talktime_agent.clock import system_clock
from talktime_agent.facts import Committed, Opened
from talktime_agent.gate import Bounds
from talktime_agent.meter import ProviderMeter
from talktime_agent.till import Till
from talktime_ledger.core.meters import Meter
from talktime_ledger.core.usage import Usage, UsageKind
from talktime_ledger.wire import Attachment

from bench import bars

MODEL, HEARD = "gpt-realtime-mini", "gpt-4o-mini-transcribe"
PRICES = {
    MODEL: {"text_in": "0.6", "text_cached_in": "0.06", "audio_in": "10", "audio_cached_in": "0.3", "text_out": "2.4",
            "audio_out": "20"},
    HEARD: {"text_in": "1.25", "audio_in": "3", "text_out": "5"},
}  # fmt: skip
BARS = {"gate_p99_us": "< 1000"}
FORBIDDEN = ("socket.", "open", "subprocess.", "os.fork", "os.posix_spawn", "ssl.")


class Nowhere:
    """A spool that is not written: the check does not write."""

    def write(self, kind: str, at: float, **fields: object) -> None:
        """Nothing."""


def attachment(now: datetime) -> Attachment:
    """A session of 1 USD under the default caps, with an outage reserve."""
    budget = ("session_limit", "session_posted", "project_amount", "project_posted", "project_available")
    return Attachment.model_validate(
        {
            "session": {
                "session_id": "s", "namespace": "ns", "project": "p", "provider": "main", "api": "OpenAIRealtime",
                "model": MODEL, "epoch": 1, "state": "open", "opened_at": now, "participant_identity": "participant-1",
                "observers": ["observer-1"], "posted": "0.2", "reserved": "0.6", "limit": "1",
            },
            "config": {
                "instructions": "Ask about the last purchase. " * 40, "language": "en", "wrapUp": "Wrap up.",
                "closing": "Thank you for your time.", "voice": "marin", "transcriptionModel": HEARD,
                "caps": {"contextTokens": 8000, "responseSeconds": 60, "outputTokens": 1500},
                "costUpdateSeconds": 10, "onLedgerOutage": "Drain",
            },
            "grant": {
                "n": 7, "state": "ok", "reserved": "0.6", "goodbye": "0.006", "posted": "0.2", "session_limit": "1",
                "limit_state": "ok", "w": "0.12", "outage_reserve": "0.1", "budget": dict.fromkeys(budget, "1"),
            },
            "rates": [
                {"card": model, "vendor": "openai", "model": model, "effective_from": now, "prices": prices}
                for model, prices in PRICES.items()
            ],
        }
    )  # fmt: skip


def busy_till(open_ones: int = 4, queued: int = 20) -> Till:
    """A till in mid-session: things open at the provider, usages waiting for the ledger."""
    clock = system_clock()
    told = attachment(datetime.now(UTC))
    meter = ProviderMeter(provider="main", model=MODEL, transcription_model=HEARD)
    till = Till(told, Bounds.of(told), meter, Nowhere(), clock, clock.monotonic())
    for index in range(queued):
        usage = Usage(f"sess/q{index}", UsageKind.RESPONSE, "main", MODEL, {Meter.AUDIO_OUT: 10}, clock.wall())
        till.account = till.account.billed(usage.key, Decimal("0.0002"))
    for index in range(open_ones):
        till.apply([Committed(f"item{index}", 4.0)])
    till.request("event", Decimal("0.01"))
    till.apply([Opened("sess/r1", "event")])
    return till


class NetworkError(AssertionError):
    """The check wanted to leave the process."""


@dataclass
class Guard:
    """An audit hook cannot be removed: it is switched."""

    on: bool = False

    def __call__(self, event: str, _: object) -> None:
        """Raises at whatever leads out of the process."""
        if self.on and event.startswith(FORBIDDEN):
            raise NetworkError(event)


_GUARD = Guard()


@contextmanager
def no_way_out() -> Iterator[None]:
    """While it lasts nothing here can open a socket, a file or a process."""
    if _GUARD not in _INSTALLED:
        sys.addaudithook(_GUARD)
        _INSTALLED.append(_GUARD)
    _GUARD.on = True
    try:
        yield
    finally:
        _GUARD.on = False


_INSTALLED: list[Guard] = []


@dataclass(frozen=True)
class Timing:
    """Microseconds."""

    p50_us: float
    p99_us: float


def percentiles(nanoseconds: list[int]) -> Timing:
    """p50 and p99."""
    cuts = statistics.quantiles(nanoseconds, n=100)
    return Timing(round(cuts[49] / 1000, 2), round(cuts[98] / 1000, 2))


def time_decisions(check: Callable[[], object], count: int) -> tuple[Timing, Timing]:
    """(CPU time, wall time) of so many decisions."""
    used: list[int] = []
    passed: list[int] = []
    for _ in range(count):
        cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
        check()
        passed.append(time.perf_counter_ns() - wall)
        used.append(time.thread_time_ns() - cpu)
    return percentiles(used), percentiles(passed)


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=200_000)
    count = max(100_000, parser.parse_args().decisions)
    till = busy_till()
    assert not inspect.iscoroutinefunction(till.may_respond)
    assert till.may_respond().allowed
    with no_way_out():
        used, passed = time_decisions(till.may_respond, count)
    print(f"{count} decisions, {len(till.account.holds)} things open, {len(till.account.unsettled)} usages not settled")
    print(f"CPU  p50 {used.p50_us:8.2f} us   p99 {used.p99_us:8.2f} us")
    print(f"wall p50 {passed.p50_us:8.2f} us   p99 {passed.p99_us:8.2f} us")
    print("no socket, file or process was touched meanwhile (an audit hook would have raised)")
    result = {
        "gate_p50_us": used.p50_us,
        "gate_p99_us": used.p99_us,
        "gate_wall_p50_us": passed.p50_us,
        "gate_wall_p99_us": passed.p99_us,
        "decisions": count,
    }
    print("RESULT " + json.dumps(result))
    return 1 if bars.missed(result, BARS) else 0


if __name__ == "__main__":
    sys.exit(main())
