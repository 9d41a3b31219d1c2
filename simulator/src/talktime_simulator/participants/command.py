"""`participants`: holds a number of interviews against a Project and tells how they went."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from livekit import rtc

from talktime_simulator.speech import Voice

from .door import Entry, RefusedError, ask
from .person import Person, Plan
from .watcher import Watcher

log = logging.getLogger(__name__)

VOICES = ("en-gb+m3", "en-us+m1", "en-gb+f2", "en-gb-scotland+m2", "en-us+f4", "en-gb-x-rp+m5")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `participants`. Keys may come from the environment, so that they are in no process list."""
    parser.add_argument(
        "--gateway", required=True, help="base URL of the front door, e.g. http://talktime-gateway:8080"
    )
    parser.add_argument("--project", required=True, help="namespace/name")
    parser.add_argument("--server-key", default=os.environ.get("TALKTIME_SERVER_KEY"))
    parser.add_argument("--ticket", action="append", default=[], help="an invite instead of the server key; repeatable")
    parser.add_argument("--observer-key", default=os.environ.get("TALKTIME_OBSERVER_KEY"))
    parser.add_argument("--count", type=int, default=1, help="interviews in all")
    parser.add_argument("--concurrency", type=int, default=1, help="interviews at a time")
    parser.add_argument("--turns", type=int, default=6, help="turns of speech at least")
    parser.add_argument("--min-seconds", type=float, default=45.0, help="wall time of an interview at least")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="leave in any case after this")
    parser.add_argument("--stay", action="store_true", help="go on until the other side ends the interview")
    parser.add_argument("--retry-seconds", type=float, default=180.0, help="how long to heed Retry-After")
    parser.add_argument("--first-audio-seconds", type=float, default=45.0, help="how long to wait for the agent")
    parser.add_argument("--server-url", help="join this LiveKit URL instead of the token's server_url")
    parser.add_argument("--stagger", type=float, default=1.0, help="seconds between starts")
    parser.add_argument("--linger", type=float, default=0.0, help="seconds to stay after the summary (to copy files)")
    parser.add_argument("--observer-seconds", type=float, default=15.0, help="how long the observer stays for the rest")
    parser.add_argument("--out", type=Path, default=Path("interviews"), help="directory for <session>.json and .wav")


@dataclass(frozen=True, slots=True)
class Study:
    """What all interviews of one run share."""

    http: aiohttp.ClientSession
    options: argparse.Namespace
    url: str
    plan: Plan
    tell: Callable[[int, str], None]


async def run(options: argparse.Namespace) -> int:
    """0 when every interview worked, 1 otherwise, 2 for wrong options."""
    namespace, _, name = options.project.partition("/")
    if not name or not (options.server_key or options.ticket):
        print("--project is namespace/name; --server-key or --ticket is needed", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        options.turns, options.min_seconds, options.stay, options.max_seconds, options.first_audio_seconds, options.out
    )
    gate = asyncio.Semaphore(options.concurrency)
    started = time.time()
    # Gateway behind a private CA: aiohttp's default context heeds SSL_CERT_FILE.
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        url = f"{options.gateway.rstrip('/')}/v1/projects/{namespace}/{name}/token"
        study = Study(http, options, url, plan, progress(started))

        async def interview(number: int) -> dict[str, Any]:
            async with gate:
                await asyncio.sleep(options.stagger * (number % options.concurrency))
                try:
                    return await _interview(study, number)
                except Exception as error:  # one interview that fails in an unforeseen way must not hide the others
                    log.exception("interview %d", number + 1)
                    return {"participant": number, "problems": [f"{type(error).__name__}: {error}"]}

        sessions = await asyncio.gather(*(interview(number) for number in range(options.count)))
    summary = summarize(sessions, time.time() - started)
    print(json.dumps(summary), flush=True)
    await asyncio.sleep(options.linger)
    return 0 if summary["failed"] == 0 else 1


def progress(started: float) -> Callable[[int, str], None]:
    """A line per thing that happened, for the terminal."""

    def tell(number: int, text: str) -> None:
        print(f"[{time.time() - started:6.1f}s] interview {number + 1}: {text}", file=sys.stderr, flush=True)

    return tell


async def _interview(study: Study, number: int) -> dict[str, Any]:
    options = study.options
    key = options.ticket[number % len(options.ticket)] if options.ticket else options.server_key
    try:
        entry = await ask(study.http, study.url, key, {}, options.retry_seconds)
    except RefusedError as error:
        study.tell(number, f"refused ({error.status})")
        return {"participant": number, "refused": error.status, "answer": error.body, "problems": [str(error)]}
    study.tell(number, f"session {entry.room}: token after {entry.waited:.1f} s")
    person = Person(number, study.plan, Voice(VOICES[number % len(VOICES)], 200))
    watcher, watching = await _watch(study, entry, number)
    telling = asyncio.create_task(_tell_progress(study, person, number))
    try:
        await person.take_part(entry, options.server_url)
    except rtc.ConnectError as error:
        person.received.note("connect_failed", error=str(error))
    finally:
        telling.cancel()
        if watcher is not None:
            await watcher.leave(options.observer_seconds)
    result = person.result(entry)
    if watcher is not None:
        result["observer"] = {"updates": watcher.cost_updates(), "data": watcher.received.data}
        result["observer"]["disconnect_reason"] = watcher.disconnect_reason
        if not watcher.cost_updates():
            result["problems"].append("the observer got no cost update")
    if watching:
        result["problems"].append(watching)
    file = options.out / f"{entry.room}.json"
    await asyncio.to_thread(file.write_text, json.dumps(result, indent=1, default=str))
    verdict = "ok" if not result["problems"] else "; ".join(result["problems"])
    study.tell(
        number,
        f"ended after {result['seconds']} s, {result['turns']} turns, "
        f"{result['agent_speech_seconds']} s of agent speech, {result['disconnect_reason']}: {verdict}",
    )
    return result


async def _watch(study: Study, entry: Entry, number: int) -> tuple[Watcher | None, str | None]:
    """The observer, when a key was given, and why it is missing."""
    if not study.options.observer_key:
        return None, None
    watcher = Watcher()
    try:
        seat = await ask(study.http, study.url, study.options.observer_key, {"room_name": entry.room}, 30)
        await watcher.join(seat, study.options.server_url)
    except (RefusedError, rtc.ConnectError) as error:
        study.tell(number, f"observer: {error}")
        return None, f"the observer could not join: {error}"
    return watcher, None


async def _tell_progress(study: Study, person: Person, number: int) -> None:
    last = 0
    while True:
        await asyncio.sleep(0.5)
        if person.turns != last:
            last = person.turns
            heard = person.hearing.agent_seconds
            study.tell(number, f"turn {last} of {study.plan.turns}, {heard:.1f} s of agent speech heard")


def summarize(sessions: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """The run in one object: totals, and a short line per session."""
    kept = (
        "session", "participant", "seconds", "turns", "agent_turns", "agent_speech_seconds", "unanswered",
        "first_audio_seconds", "waited_for_token", "disconnect_reason", "refused", "problems",
    )  # fmt: skip
    rows = []
    for session in sessions:
        row = {name: session[name] for name in kept if name in session}
        row["cost_updates"] = len(session.get("observer", {}).get("updates", []))
        rows.append(row)
    return {
        "seconds": round(seconds, 1),
        "interviews": len(sessions),
        "refused": sum(1 for session in sessions if "refused" in session),
        "failed": sum(1 for session in sessions if session["problems"]),
        "sessions": rows,
    }
