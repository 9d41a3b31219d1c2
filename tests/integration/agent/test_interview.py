"""One worker, a real room, the simulator as provider: what is billed is what is counted, and the ends are in order."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import wave
from typing import Any

import numpy as np
import pytest
from livekit import api, rtc
from livekit.protocol.models import ParticipantInfo
from talktime_simulator.participants.person import Person, Plan
from talktime_simulator.participants.watcher import Watcher
from talktime_simulator.speech import Voice

from .conftest import KEY, LIVE, SECRET, until

pytestmark = [pytest.mark.real_session, pytest.mark.asyncio(loop_scope="module")]

WRAP_UP = "You are approaching the time limit."
CLOSING = "we have covered everything we need"
AGAIN = "The connection was lost for a moment. Say so and ask your last question again."


def person(stage: Any, **plan: Any) -> Person:
    defaults: dict[str, Any] = {
        "turns": 2, "min_seconds": 1, "stay": False, "max_seconds": 300, "first_audio_seconds": 180,
        "out": stage.spool.parent,
    }  # fmt: skip
    return Person(0, Plan(**(defaults | plan)), Voice("en-gb+m3", 150))


async def started(stage: Any, taking_part: asyncio.Task[None], seconds: float = 200) -> None:
    """Until the agent's first answer begins; fails with the participant when they could not take part."""
    async with asyncio.timeout(seconds):
        while not any(row["event"] == "response.created" for row in await stage.simulated("log")):
            if taking_part.done():
                taking_part.result()
                raise AssertionError("the participant left before the agent had said a word")
            await asyncio.sleep(0.1)


async def test_an_interview_is_billed_to_the_token(stage: Any) -> None:
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    await stage.dispatch(session)
    someone = person(stage)
    await someone.take_part(stage.entry(session))
    book = await stage.closed(session)

    counted, true = await stage.billed(session)
    assert counted == true
    assert book.closed.reason == "participant_left"
    assert book.closed.unmetered == ()
    assert book.closed.turns >= 2
    assert session not in await stage.rooms()
    assert [report.ok for report in stage.ledger.reports] == [True]
    log = await stage.simulated("log")
    talking = next(row["provider_session"] for row in log if row["event"] == "input_audio_buffer.committed")
    told = [row for row in log if row["event"] == "session.update" and row["provider_session"] == talking]
    assert {row["max_output_tokens"] for row in told} == {book.config.caps.outputTokens}
    assert all(row["truncation"]["token_limits"] == {"post_instructions": 1000} for row in told)
    assert all(row["turn_detection"]["create_response"] is False for row in told)
    # The agent removes it when it has the answer to its close, which the ledger had given before.
    await until(lambda: not list(stage.spool.glob("*.jsonl")), 60)


async def test_an_interview_on_gemini_live_is_billed_to_the_token(stage: Any) -> None:
    """The same worker, the Google plugin, TLS: an agent's job and a participant in a real room."""
    session = stage.ledger.open(limit="2", endpoint=stage.live, provider="backup", kind=LIVE)
    await stage.dispatch(session)
    someone = person(stage)
    await someone.take_part(stage.entry(session))
    book = await stage.closed(session)

    counted, true = await stage.billed(session)
    assert counted == true
    assert set(true) == {LIVE.talk.model}
    assert true[LIVE.talk.model]["audio_out"] > 0
    assert someone.turns >= 2
    assert (book.closed.reason, book.closed.unmetered) == ("participant_left", ())
    assert session not in await stage.rooms()
    assert [report.ok for report in stage.ledger.reports] == [True]


async def test_the_limits_wrap_up_once_and_close_gracefully(stage: Any) -> None:
    session = stage.ledger.open(limit="0.07", endpoint=stage.endpoint)
    await stage.dispatch(session)
    someone, watcher = person(stage, stay=True, max_seconds=200), Watcher()
    await watcher.join(stage.entry(session, "observer-3"))
    await someone.take_part(stage.entry(session))
    book = await stage.closed(session)
    await watcher.leave(linger=1)

    log = await stage.simulated("log", wrap_up=WRAP_UP, closing=CLOSING)
    asked = [row for row in log if row["event"] == "response.create"]
    hard = book.event("hard_limit")
    assert sum(row["wrap_up"] for row in asked) == 1
    assert hard is not None
    assert [row for row in asked if row["at"] > hard.isoformat() and not row["closing"]] == []
    assert book.closed.reason == "budget"
    assert someone.left_at is not None
    # When the room was over for the participant; what this process does afterwards is its own time.
    assert someone.left_at - hard.timestamp() <= 10
    assert book.posted <= book.limit
    assert session not in await stage.rooms()
    counted, true = await stage.billed(session)
    assert counted == true
    assert _speech_seconds(stage.spool.parent / f"{session}.wav", since=hard.timestamp() - someone.joined_at) >= 1.0

    updates = watcher.cost_updates()
    assert len(updates) >= 4
    assert updates[-1]["limit_state"] == "hard"
    assert updates[-1]["total_usd"] == pytest.approx(float(book.posted), abs=0.002)
    seen = repr([someone.received.events, someone.received.data, stage.entry(session).claims])
    assert not re.search(r"cost|budget|usd|\$", seen, re.IGNORECASE)


async def test_words_that_a_break_cut_short_are_said_again_to_who_comes_back(stage: Any) -> None:
    """Their connection breaks while the agent speaks, so neither knows what was heard, and each would wait."""
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint, resume=AGAIN)
    await stage.dispatch(session)
    before, back = person(stage), person(stage, turns=1)
    taking_part = asyncio.create_task(before.take_part(stage.entry(session)))
    await until(lambda: before.first_audio is not None, 60)
    gone = api.RoomParticipantIdentity(room=session, identity="participant-1")
    await stage.livekit.room.remove_participant(gone)
    await taking_part
    assert before.disconnect_reason == "PARTICIPANT_REMOVED"
    await back.take_part(stage.entry(session))
    await stage.closed(session)

    # The simulator marks what carries this text.
    asked = [row for row in await stage.simulated("log", wrap_up=AGAIN) if row["event"] == "response.create"]
    assert [row["wrap_up"] for row in asked if not row["closing"]].count(True) == 1
    assert back.first_audio is not None
    counted, true = await stage.billed(session)
    assert counted == true


async def test_a_killed_job_loses_no_usage(stage: Any) -> None:
    # However late the kill comes, the answer is open.
    await stage.fault(fault="late_done", seconds=90, count=2)
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    await stage.dispatch(session)
    taking_part = asyncio.create_task(person(stage, stay=True).take_part(stage.entry(session)))
    await started(stage, taking_part)
    await until(lambda: _job_pid(stage, session) is not None, 30)
    os.kill(_job_pid(stage, session), signal.SIGKILL)
    book = stage.ledger.books[session]
    await until(lambda: book.lost is not None, 90)

    assert book.lost.reason == "agent_died"
    # The open response is at its bound, everything that ended is counted; the room waits for the next agent.
    assert book.lost.unmetered
    assert book.closed is None
    assert session in await stage.rooms()
    await until(lambda: not list(stage.spool.glob("*.jsonl")), 60)
    await stage.livekit.room.delete_room(api.DeleteRoomRequest(room=session))
    await taking_part


async def test_a_ledger_that_is_away_ends_nothing_and_loses_nothing(stage: Any) -> None:
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    await stage.dispatch(session)
    taking_part = asyncio.create_task(person(stage, turns=2).take_part(stage.entry(session)))
    await started(stage, taking_part)
    stage.ledger.away = True
    await taking_part
    assert stage.ledger.books[session].closed is None
    await asyncio.sleep(12)
    stage.ledger.away = False
    await stage.closed(session)

    counted, true = await stage.billed(session)
    assert counted == true


@pytest.mark.parametrize(("provider", "code"), [("mistyped", "invalid_api_key"), ("unpaid", "insufficient_quota")])
async def test_a_provider_that_refuses_is_reported_and_the_session_ends(stage: Any, provider: str, code: str) -> None:
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint, provider=provider)
    # Joined first: a newcomer to the room that such an agent has deleted would make it anew.
    someone = person(stage, stay=True)
    taking_part = asyncio.create_task(someone.take_part(stage.entry(session)))
    await until(lambda: someone.joined_at is not None or taking_part.done(), 60)
    await stage.dispatch_into(session)
    await taking_part
    book = await stage.closed(session)

    assert book.closed.reason == "provider_error"
    report = stage.ledger.reports[0]
    assert (report.provider, report.ok, report.code) == (provider, False, code)
    assert book.posted == 0
    assert session not in await stage.rooms()


async def _agents(stage: Any, session: str) -> list[str]:
    listed = await stage.livekit.room.list_participants(api.ListParticipantsRequest(room=session))
    return [one.identity for one in listed.participants if one.kind == ParticipantInfo.Kind.AGENT]


async def test_a_fenced_agent_leaves_the_room_to_its_successor_and_then_waits_for_its_usage(stage: Any) -> None:
    await stage.fault(fault="late_done", seconds=8, count=1)
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    await stage.dispatch(session)
    taking_part = asyncio.create_task(person(stage, stay=True).take_part(stage.entry(session)))
    await started(stage, taking_part)
    assert len(await _agents(stage, session)) == 1
    stage.ledger.books[session].epoch = 2
    await stage.ledger.push("fence", session_id=session, epoch=2)
    async with asyncio.timeout(7):
        while await _agents(stage, session):  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.1)
    assert list(stage.spool.glob(f"{session}.*")), "its last answer is not counted yet"
    await until(lambda: not list(stage.spool.glob(f"{session}.*")), 90)

    assert session in await stage.rooms()
    await stage.livekit.room.delete_room(api.DeleteRoomRequest(room=session))
    await taking_part


async def test_who_takes_a_session_up_puts_out_an_earlier_agent_before_it_joins(stage: Any) -> None:
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    stage.ledger.books[session].epoch = 2
    earlier, beside, put_out = rtc.Room(), [], asyncio.get_running_loop().create_future()
    earlier.on("participant_connected", lambda one: beside.append(one.kind))
    earlier.on("disconnected", lambda reason: put_out.set_result(reason))
    grants = api.VideoGrants(room_join=True, room=session)
    token = api.AccessToken(KEY, SECRET).with_identity("agent-earlier").with_kind("agent").with_grants(grants).to_jwt()
    await stage.livekit.room.create_room(api.CreateRoomRequest(name=session, empty_timeout=60, departure_timeout=60))
    await earlier.connect(stage.livekit_url, token)
    taking_part = asyncio.create_task(person(stage, turns=1).take_part(stage.entry(session)))
    await stage.dispatch_into(session, epoch=2)
    assert await asyncio.wait_for(put_out, 90) == rtc.DisconnectReason.PARTICIPANT_REMOVED
    await taking_part
    assert rtc.ParticipantKind.PARTICIPANT_KIND_AGENT not in beside
    assert (await stage.closed(session)).closed.reason == "participant_left"


def _job_pid(stage: Any, session: str) -> int | None:
    """None until the worker's log names it: the job's own words come to it by way of the worker."""
    for line in reversed(stage.worker_log.read_text().splitlines()):
        if session in line and '"pid": ' in line:
            return int(line.split('"pid": ')[1].split(",")[0].rstrip("}"))
    return None


def _speech_seconds(file: Any, since: float) -> float:
    """Seconds above -40 dBFS in what the participant heard after ``since`` seconds."""
    with wave.open(str(file)) as source:
        rate = source.getframerate()
        samples = np.frombuffer(source.readframes(source.getnframes()), dtype=np.int16).astype(np.float64)
    frame = rate // 20
    tail = samples[int(since * rate) :]
    frames = tail[: len(tail) // frame * frame].reshape(-1, frame)
    loud = np.sqrt((frames**2).mean(axis=1)) > 32768 * 10 ** (-40 / 20)
    return float(loud.sum() / 20)


async def test_leaving_in_the_middle_of_an_answer_is_counted_to_its_end(stage: Any) -> None:
    await stage.fault(fault="late_done", seconds=3, count=2)
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    await stage.dispatch(session)
    taking_part = asyncio.create_task(person(stage, stay=True).take_part(stage.entry(session)))
    await started(stage, taking_part)
    await asyncio.sleep(0.5)
    taking_part.cancel()
    await asyncio.gather(taking_part, return_exceptions=True)
    book = await stage.closed(session)

    counted, true = await stage.billed(session)
    assert counted == true
    assert book.closed.unmetered == ()


async def test_a_dropped_provider_connection_leaves_its_answer_at_the_bound(stage: Any) -> None:
    await stage.fault(fault="drop_socket", seconds=0.5, count=1)
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    await stage.dispatch(session)
    await person(stage, turns=1).take_part(stage.entry(session))
    book = await stage.closed(session)

    (lost,) = [row for row in await stage.simulated("truth") if not row["delivered"]]
    key = f"{lost['provider_session']}/{lost['response_id']}"
    (assumed,) = [item for item in book.closed.unmetered if item.key == key]
    assert assumed.usd >= stage.ledger.cost_of(lost["meters"])


async def test_a_drained_worker_ends_when_its_session_has(stage: Any) -> None:
    session = stage.ledger.open(limit="2", endpoint=stage.endpoint)
    await stage.dispatch(session)
    taking_part = asyncio.create_task(person(stage, turns=2).take_part(stage.entry(session)))
    await started(stage, taking_part)
    for _ in range(2):
        stage.worker.terminate()
        await asyncio.sleep(0.5)
    await taking_part
    book = await stage.closed(session)
    async with asyncio.timeout(120):
        assert await stage.worker.wait() == 0

    assert (book.closed.reason, book.closed.unmetered) == ("participant_left", ())
    assert book.closed.turns >= 2
