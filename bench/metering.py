"""Every billed token is in the books: sessions with everything that goes wrong, on both providers' own plugins.

Each session is the agent's budget (gate, meter, till, charging loop, spool) on the unmodified plugin's session, audio
from memory, against the simulator (which knows what it billed) and the real ledger on PostgreSQL, with seeded
faults. Some processes are killed, and their spools replayed. Then the simulator's invoices go through `talktime
reconcile`, and the ledger's total is the invoice. livekit-agents' own usage numbers of the same sessions stand beside.
With --real also sessions over WebRTC through the agent worker. Last line: `RESULT {json}`; exit 1 unless ours is exact.

    python -m bench.metering --sessions 60 --lanes 8 --real 4
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from talktime_agent.recovery import Recovery
from talktime_ledger.client import LedgerClient
from talktime_ledger.core.money import ZERO
from talktime_ledger.wire import Close, SessionOpen

from bench import bars
from bench.enforcers.database import postgres
from bench.meters import bills, plans, room, study, talk, theirs
from bench.meters.plans import Plan, Vendor
from bench.meters.stage import COMPRESSED, Books, Simulator, books, simulator
from bench.meters.truth import Outcome, Rates, compare

REPOSITORY = Path(__file__).resolve().parents[1]
PROGRESS_SECONDS = 10.0
# A session that hangs is a finding, not a reason to wait for ever.
SESSION_SECONDS = 240.0
BARS = {
    "interviews.openai": ">= 60",
    "interviews.google": ">= 60",
    "interviews.webrtc": ">= 8",
    "ours_token_difference": "== 0",
    "ours_after_reconcile_usd_difference": "== 0",
}
OBSERVERS = tuple(f"observer-{number}" for number in range(1, 9))


@dataclass(slots=True)
class Tally:
    """What all sessions of a vendor came to. `theirs`: livekit's sum, `kinder`: by its last events, USD."""

    sessions: int = 0
    outcome: Outcome = field(default_factory=Outcome)
    theirs: Decimal = ZERO
    kinder: Decimal = ZERO
    worst: Decimal = ZERO
    lost_replies: int = 0
    replayed: int = 0


@dataclass(slots=True)
class Lane:
    """One simulator and one Project; its sessions one after another, so that a fault meets the one it is for."""

    name: str
    provider: Simulator
    home: Path
    truth: list[dict[str, Any]] = field(default_factory=list)

    async def new_truth(self) -> list[dict[str, Any]]:
        """What was billed since the last call, when all of it is."""
        idle = await self.provider.idle()
        assert idle, f"lane {self.name}: a socket stays open"
        everything = await self.provider.truth()
        fresh = everything[len(self.truth) :]
        self.truth = everything
        return fresh


SESSIONS = 60
"""Per provider; what --only draws from."""


async def held(lane: Lane, plan: Plan, book: Books, rates: Rates, tallies: dict[str, Tally]) -> None:
    """One session from opening to settled and compared."""
    tally = tallies[plan.vendor]
    session_id = str(uuid4())
    await book.gateway.open_session(
        SessionOpen.model_validate(
            {
                "session_id": session_id,
                "namespace": study.NAMESPACE,
                "project": lane.name,
                "provider": study.provider_name(plan.vendor, brief=plan.brief),
                "observers": OBSERVERS,
            }
        )
    )
    await lane.provider.forget_faults()
    token = book.agent_token(lane.name)
    spool, metrics = lane.home / f"spool-{session_id}", lane.home / f"{session_id}.metrics"
    metrics.touch()
    spec = talk.Spec(plan, session_id, lane.provider.url, book.url, token, str(spool), str(metrics))
    died = plan.ending == "dies"
    async with asyncio.timeout(SESSION_SECONDS):
        if died:
            await _killed(spec, lane.home / f"{session_id}.json")
        else:
            lost = await talk.hold(spec)
            tally.lost_replies += lost
        replayed = await _replayed(spool, book, token)
        tally.replayed += replayed
        if died:
            # Nobody takes the session over: its participant has left with it.
            gone = Close(epoch=1, reason="room_vanished")
            await book.gateway.close(session_id, gone)
    outcome = compare(await lane.new_truth(), await book.kept([session_id]), rates, died=died)
    summed, kinder = theirs.cost_of(
        metrics.read_text(encoding="utf-8").splitlines(), study.MODEL[plan.vendor], study.HEARD, rates
    )
    outcome.problems = [f"{plan.vendor} {plan.number} ({session_id}): {text}" for text in outcome.problems]
    tally.sessions += 1
    tally.outcome.add(outcome)
    tally.theirs += summed
    tally.kinder += kinder
    if outcome.true_usd:
        tally.worst = max(tally.worst, abs(summed - outcome.true_usd) / outcome.true_usd * 100)


async def _killed(spec: talk.Spec, file: Path) -> None:
    """In a process of its own, which kills itself in the middle of its last answer."""
    file.write_text(spec.dump(), encoding="utf-8")  # noqa: ASYNC240 - small, and nothing else is timed
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.meters.talk", str(file), cwd=REPOSITORY, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == -9, f"the session was to be killed: {process.returncode}\n{err.decode()[-2000:]}"


async def _replayed(spool: Path, book: Books, token: str) -> int:
    """What the worker main does with spools whose process is gone, or whose ledger did not answer."""
    replayed: list[str] = []

    async def delete_room(_: str) -> None:
        """There is none."""

    async with LedgerClient(book.url, token=token, token_path=None) as agent:
        recovery = Recovery(agent, spool, delete_room=delete_room, replayed=lambda: replayed.append(spool.name))
        await recovery.once()
    assert not list(spool.glob("*.jsonl")), "a spool was not taken by the ledger"  # noqa: ASYNC240
    return len(replayed)


@asynccontextmanager
async def progress(tallies: dict[str, Tally], of: int) -> AsyncIterator[None]:
    """A line on stderr every ten seconds."""
    begun = time.monotonic()

    async def tell() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            done = sum(tally.sessions for tally in tallies.values())
            responses = sum(tally.outcome.responses for tally in tallies.values())
            wrong = sum(len(tally.outcome.problems) for tally in tallies.values())
            line = (
                f"{done}/{of} sessions, {responses} billed things, {wrong} problems, {time.monotonic() - begun:.0f} s"
            )
            print(line, file=sys.stderr, flush=True)

    task = asyncio.create_task(tell())
    try:
        yield
    finally:
        task.cancel()


async def measured(
    dsn: str, home: Path, todo: Sequence[Plan], lanes: int, real: int
) -> tuple[dict[str, Any], list[str]]:
    """The figures, and all that is wrong."""
    begun = time.monotonic()
    rates = study.rates()
    vendors: tuple[Vendor, ...] = ("openai", "google")
    tallies: dict[str, Tally] = {vendor: Tally() for vendor in vendors}
    problems: list[str] = []
    truth: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        book = await stack.enter_async_context(books(dsn, home, f"metering_{uuid4().hex[:12]}"))
        names = [f"lane-{number}" for number in range(lanes)]
        # The first makes the CA that the others share.
        servers = [await stack.enter_async_context(simulator(home, names[0], *COMPRESSED))]
        servers += await asyncio.gather(
            *(stack.enter_async_context(simulator(home, name, *COMPRESSED)) for name in names[1:])
        )
        ways = [Lane(name, server, home) for name, server in zip(names, servers, strict=True)]
        for lane in ways:
            await book.operator.put_project(study.NAMESPACE, lane.name, study.push(lane.provider.endpoints))
        # Google's client trusts what the environment names; so do agents in a cluster.
        os.environ["SSL_CERT_FILE"] = str(ways[0].provider.ca)
        waiting = list(reversed(todo))

        async def work(lane: Lane) -> None:
            while waiting:
                plan = waiting.pop()
                try:
                    await held(lane, plan, book, rates, tallies)
                except Exception as error:
                    problems.append(f"{plan.vendor} {plan.number}: {type(error).__name__}: {error}")
                    print(problems[-1], file=sys.stderr, flush=True)
                    await lane.new_truth()

        async with progress(tallies, len(todo)):
            await asyncio.gather(*(work(lane) for lane in ways))
        compressed = time.monotonic() - begun
        truth = [record for lane in ways for record in lane.truth]
        webrtc = Outcome()
        if real:
            print("sessions over WebRTC", file=sys.stderr, flush=True)
            records, webrtc = await room.held(book, home, real, rates)
            truth += records
        if stuck := await book.open_sessions():
            problems.append(f"{stuck} sessions are still open in the ledger")
        settled = await bills.settled(book, home, truth, study.price_file(rates))
    for tally in tallies.values():
        problems += tally.outcome.problems
    problems += webrtc.problems
    told = figures(tallies, webrtc, real, settled, todo)
    told["compressed_seconds"], told["seconds"] = round(compressed, 1), round(time.monotonic() - begun, 1)
    return told, problems


def figures(
    tallies: dict[str, Tally], webrtc: Outcome, real: int, settled: bills.Settled, todo: Sequence[Plan]
) -> dict[str, Any]:
    """RESULT (pure). Percentages and USD as rounded floats, for people; the checks are on exact numbers."""
    every = Outcome()
    for tally in tallies.values():
        every.add(tally.outcome)
    every.add(webrtc)
    true = {vendor: tally.outcome.true_usd for vendor, tally in tallies.items()}
    wrong = {vendor: percent(tally.theirs, true[vendor]) for vendor, tally in tallies.items()}
    wrong["google_last_snapshots"] = percent(tallies["google"].kinder, true["google"])
    wrong["all"] = percent(sum((one.theirs for one in tallies.values()), ZERO), sum(true.values(), ZERO))
    faults: Counter[str] = Counter(plans.counted(todo))
    by_meter: defaultdict[str, int] = defaultdict(int)
    for (model, meter), count in every.difference.items():
        by_meter[f"{model} {meter}"] += count
    return {
        "interviews": {**{vendor: tally.sessions for vendor, tally in tallies.items()}, "webrtc": 2 * real},
        "billed_things": every.responses,
        "tokens": every.tokens,
        "ours_token_difference": every.difference.total(),
        "ours_by_meter": {name: count for name, count in sorted(by_meter.items()) if count},
        "ours_after_reconcile_usd_difference": str(settled.difference),
        "ours_estimate_percent": settled.estimate_percent,
        "invoice_usd": {vendor: f"{usd:f}" for vendor, usd in settled.invoices.items()},
        "livekit_error_percent": wrong,
        "livekit_worst_session_percent": {v: round(float(tally.worst), 1) for v, tally in tallies.items()},
        "undelivered": every.undelivered,
        "undelivered_usd": round(float(every.undelivered_usd), 6),
        "unmetered_usd": round(float(every.unmetered_usd), 6),
        "lost_replies": sum(tally.lost_replies for tally in tallies.values()),
        "spools_replayed": sum(tally.replayed for tally in tallies.values()),
        "billed_as": dict(sorted(every.statuses.items())),
        "faults_planned": dict(sorted(faults.items())),
    }


def percent(ours: Decimal, true: Decimal) -> float | None:
    """How far off, in percent of what is true; None when nothing was billed."""
    return round(float((ours - true) / true * 100), 2) if true else None


def missed(told: dict[str, Any], problems: Sequence[str]) -> list[str]:
    """What is not exact."""
    found = list(problems)
    if not bars.met(told["ours_token_difference"], BARS["ours_token_difference"]):
        found.append(f"{told['ours_token_difference']} tokens differ: {told['ours_by_meter']}")
    if not bars.met(told["ours_after_reconcile_usd_difference"], BARS["ours_after_reconcile_usd_difference"]):
        found.append(f"after reconciliation {told['ours_after_reconcile_usd_difference']} USD differ")
    return found


def run(todo: Sequence[Plan], lanes: int, real: int) -> tuple[dict[str, Any], list[str]]:
    """With a PostgreSQL of its own."""
    logging.disable(logging.ERROR)
    # Stopped by a signal, it still stops its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = Path(tempfile.mkdtemp(prefix="talktime-metering-"))
    try:
        with postgres(home) as dsn:
            return asyncio.run(measured(dsn, home, todo, lanes, real))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> int:
    """Exit 1 unless every token and the bill are exact."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS, help="compressed sessions per provider")
    parser.add_argument("--lanes", type=int, default=8, help="sessions at once")
    parser.add_argument("--real", type=int, default=0, help="sessions per provider over WebRTC, in real time")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument(
        "--only", metavar="VENDOR:NUMBER", help="this session alone, --sessions times: what a race does"
    )
    options = parser.parse_args()
    todo = plans.plans(options.seed, SESSIONS if options.only else options.sessions)
    if options.only:
        vendor, _, number = options.only.partition(":")
        [one] = [plan for plan in todo if (plan.vendor, str(plan.number)) == (vendor, number)]
        todo = [replace(one, number=again) for again in range(options.sessions)]
    told, problems = run(todo, options.lanes, options.real)
    wrong = missed(told, problems)
    for text in wrong:
        print(f"NOT EXACT {text}")
    for name, value in told.items():
        print(f"{name}: {value}")
    print(f"RESULT {json.dumps(told)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
