"""Rooms over their life, with real participants on a real livekit-server: re-ask, observers, transport, the watcher."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import jwt
import pytest
from livekit import api, rtc
from talktime_gateway.reask import HELD_SEC
from talktime_gateway.rooms import NewRoom, Rooms, dispatch_metadata
from talktime_gateway.tokens import SfuKeys

TOKEN = "/v1/projects/team/study/token"
SECRET = "secret-of-at-least-thirty-two-characters"
KEYS = SfuKeys("APItest", SECRET)
FAST = {"census_interval_sec": 0.2, "transport_interval_sec": 0.2, "join_timeout_sec": 2.0, "redispatch_after_sec": 0.5}


@asynccontextmanager
async def joined(answer: Any) -> AsyncIterator[rtc.Room]:
    """A real participant in the room of a 201."""
    room = rtc.Room()
    await room.connect(answer.json()["server_url"], answer.json()["participant_token"])
    try:
        yield room
    finally:
        await room.disconnect()


@pytest.fixture
async def sfu(node: Any) -> AsyncIterator[Rooms]:
    async with aiohttp.ClientSession() as http:
        yield Rooms(http, node.url, KEYS)


def claims(answer: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(answer.json()["participant_token"], SECRET, algorithms=["HS256"])
    return decoded


def identity(answer: Any) -> str:
    return str(claims(answer)["sub"])


async def opened(http: Any, ledger: Any, as_: Any) -> tuple[str, Any]:
    answer = await http.post(TOKEN, headers=as_.server, json={})
    assert answer.status_code == 201, answer.text
    session_id = str(claims(answer)["video"]["room"])
    assert session_id in ledger.open_ids()
    return session_id, answer


async def test_the_room_carries_the_dispatch_of_its_session(gateway: Any, ledger: Any, as_: Any, sfu: Rooms) -> None:
    async with gateway() as http:
        session_id, _ = await opened(http, ledger, as_)
        (dispatch,) = await sfu.dispatches(session_id)
        assert dispatch.metadata == f'{{"session": "{session_id}", "epoch": 1}}'
        assert not dispatch.alive, "no worker is registered here"


async def test_asking_again_moves_back_into_the_room_while_it_is_there(
    gateway: Any, ledger: Any, as_: Any, sfu: Rooms
) -> None:
    async with gateway() as http:
        session_id, first = await opened(http, ledger, as_)
        body = {"room_name": session_id}
        old = {"X-Talktime-Previous-Token": first.json()["participant_token"]}
        again = await http.post(TOKEN, headers=as_.server | old, json=body)
        assert again.status_code == 201
        assert (identity(again), again.json()["moved"]) == ("participant-1", False)
        assert "moved" not in first.json(), "a new session has nowhere to move from"
        began = time.monotonic()
        kept = await http.post(TOKEN, headers=as_.server | old | {"X-Talktime-Waiting": "true"}, json=body)
        assert (kept.status_code, kept.json()["moved"]) == (201, False)
        assert time.monotonic() - began >= HELD_SEC, "who hears nothing is held: the operator may find out why"
        used_ticket = {"Authorization": "Bearer ttt_" + "u" * 43}
        in_body = body | {"previous_token": first.json()["participant_token"]}
        assert (await http.post(TOKEN, headers=used_ticket, json=in_body)).status_code == 201
        assert len(ledger.sessions) == 1, "the same session goes on"

        await sfu.delete(session_id)
        wait = await http.post(TOKEN, headers=as_.server | old, json=body)
        assert (wait.status_code, wait.headers["retry-after"]) == (425, "2")

        ledger.sessions[session_id]["state"] = "closed"
        assert (await http.post(TOKEN, headers=as_.server | old, json=body)).status_code == 404


async def test_asking_again_needs_the_old_token_of_that_room(gateway: Any, ledger: Any, as_: Any) -> None:
    async with gateway() as http:
        session_id, _ = await opened(http, ledger, as_)
        _, other = await opened(http, ledger, as_)
        body = {"room_name": session_id}
        foreign = {"X-Talktime-Previous-Token": other.json()["participant_token"]}
        assert (await http.post(TOKEN, headers=as_.server, json=body)).status_code == 400
        assert (await http.post(TOKEN, headers=as_.server | foreign, json=body)).status_code == 401
        foreign_project = "/v1/projects/team/other/token"
        assert (await http.post(foreign_project, headers=as_.other | foreign, json=body)).status_code == 404


async def test_observers_sit_on_fixed_seats_unseen(gateway: Any, ledger: Any, as_: Any) -> None:
    async with gateway() as http:
        session_id, participant = await opened(http, ledger, as_)
        body = {"room_name": session_id}
        seats = [await http.post(TOKEN, headers=as_.observer, json=body) for _ in range(2)]
        assert {identity(seat) for seat in seats} < {f"observer-{n}" for n in range(1, 9)}
        assert identity(seats[0]) != identity(seats[1])
        async with joined(seats[0]), joined(participant) as room:
            assert not room.remote_participants
            third = await http.post(TOKEN, headers=as_.observer, json=body)
            assert identity(third) not in {identity(seats[0]), identity(seats[1])}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"room_name": "00000000-0000-4000-8000-000000000000"}, 404),
        ({"room_name": "00000000-0000-4000-8000-000000000000", "participant_name": "x"}, 400),
        ({"participant_key": "x"}, 400),
    ],
)
async def test_what_an_observer_must_say(gateway: Any, as_: Any, body: dict[str, str], status: int) -> None:
    async with gateway() as http:
        assert (await http.post(TOKEN, headers=as_.observer, json=body)).status_code == status


async def test_participant_seconds_reach_the_ledger_the_same_from_two_replicas(
    gateway: Any, ledger: Any, as_: Any, eventually: Any
) -> None:
    fast = FAST | {"join_timeout_sec": 60, "redispatch_after_sec": 60}
    async with gateway(**fast) as http, gateway(**fast):
        session_id, answer = await opened(http, ledger, as_)
        began = time.monotonic()
        async with joined(answer):

            async def counted() -> bool:
                return any(value >= 2 for value in ledger.transport.get(session_id, {}).values())

            await eventually(counted)
        (key,) = ledger.transport[session_id]
        assert key.startswith("participant-1/PA_")
        assert ledger.transport[session_id][key] <= time.monotonic() - began + 1


async def test_a_session_nobody_joins_is_closed_and_its_room_deleted(
    gateway: Any, ledger: Any, as_: Any, sfu: Rooms, eventually: Any
) -> None:
    async with gateway() as http:
        session_id, _ = await opened(http, ledger, as_)
        assert session_id in await sfu.names([session_id])
    async with gateway(**FAST):

        async def closed() -> bool:
            return not ledger.open_ids() and not await sfu.names([session_id])

        await eventually(closed)
        assert ledger.sessions[session_id]["close_reason"] == "nobody_joined"


async def test_a_session_without_a_room_is_closed_unless_an_agent_has_it(
    gateway: Any, ledger: Any, as_: Any, sfu: Rooms, eventually: Any
) -> None:
    async with gateway() as http:
        lost, _ = await opened(http, ledger, as_)
        talking, _ = await opened(http, ledger, as_)
        ledger.sessions[talking]["attached_at"] = datetime.now(UTC).isoformat()
        for session_id in (lost, talking):
            await sfu.delete(session_id)
    async with gateway(**FAST):

        async def closed() -> bool:
            return lost not in ledger.open_ids()

        await eventually(closed)
        assert ledger.sessions[lost]["close_reason"] == "room_vanished"
        assert ledger.open_ids() == [talking], "an agent's session is the agent's to close"


async def test_rooms_of_closed_sessions_go_and_others_stay(
    gateway: Any, ledger: Any, as_: Any, sfu: Rooms, eventually: Any
) -> None:
    stranger = "11111111-0000-4000-8000-000000000000"
    for name in ("probe-1", stranger):
        await sfu.create(NewRoom(name, "", 1, "nobody"))
    async with gateway(**FAST) as http:
        session_id, _ = await opened(http, ledger, as_)
        ledger.sessions[session_id]["state"] = "closed"

        async def gone() -> bool:
            return not await sfu.names([session_id])

        await eventually(gone)
        assert await sfu.names() >= {"probe-1", stranger}


async def test_a_participant_without_an_agent_is_dispatched_again_once_for_two_replicas(
    gateway: Any, ledger: Any, as_: Any, sfu: Rooms, eventually: Any
) -> None:
    patient = FAST | {"join_timeout_sec": 60}  # until the participant is in
    async with gateway(**patient) as http, gateway(**patient):
        session_id, answer = await opened(http, ledger, as_)
        async with joined(answer):

            async def again() -> bool:
                return bool(ledger.sessions[session_id]["epoch"] >= 3)

            await eventually(again)

            async def alone() -> bool:
                """A replica may look between the other's claim and its dispatch: the next one takes back both."""
                return len(await sfu.dispatches(session_id)) <= 1

            await eventually(alone)
            assert session_id in ledger.open_ids(), "somebody is waiting: not a no-show"
            ledger.sessions[session_id]["attached_at"] = datetime.now(UTC).isoformat()


@asynccontextmanager
async def shown_agent(node: Any, session_id: str) -> AsyncIterator[rtc.Room]:
    """An agent in the room, as LiveKit shows one whose process was killed."""
    grants = api.VideoGrants(room_join=True, room=session_id, agent=True)
    token = api.AccessToken("APItest", SECRET).with_identity("agent-AJ_old").with_kind("agent").with_grants(grants)
    room = rtc.Room()
    await room.connect(node.url, token.to_jwt())
    try:
        yield room
    finally:
        await room.disconnect()


async def test_when_a_replica_dies_between_its_claim_and_its_dispatch_another_one_sends_the_next_agent(
    gateway: Any, ledger: Any, as_: Any, sfu: Rooms, node: Any, eventually: Any
) -> None:
    patient = FAST | {"join_timeout_sec": 60}
    async with gateway(**patient) as http:
        session_id, answer = await opened(http, ledger, as_)
        attached = {"attached_at": datetime.now(UTC).isoformat()}
        ledger.sessions[session_id] |= attached
        async with joined(answer), shown_agent(node, session_id):
            # Its agent is reported, and nobody has claimed yet: that is not the census's to do.
            ledger.sessions[session_id] |= {"lost": True}
            await asyncio.sleep(1.5)
            assert ledger.sessions[session_id]["epoch"] == 1
            # Claimed, and then nothing.
            ledger.sessions[session_id]["epoch"] = 2

            async def sent() -> bool:
                return [one.metadata for one in await sfu.dispatches(session_id)] == [dispatch_metadata(session_id, 3)]

            await eventually(sent)
            assert not [one for one in await sfu.participants(session_id) if one.agent]
            ledger.sessions[session_id] |= {"lost": False}


async def test_missing_data_decides_nothing(gateway: Any, ledger: Any, as_: Any, eventually: Any) -> None:
    """Law 6: with the SFU or the ledger away, old unattended sessions stay open."""
    async with gateway() as http:
        session_id, _ = await opened(http, ledger, as_)
    ledger.pools[0]["internalURL"] = "ws://127.0.0.1:9"
    old = datetime.now(UTC) - timedelta(hours=1)
    ledger.sessions[session_id]["opened_at"] = old.isoformat()
    async with gateway(**FAST) as http:

        async def failed() -> bool:
            return 'talktime_gateway_census_failures_total{of="eu"}' in (await http.get("/metrics")).text

        await eventually(failed)
        assert ledger.open_ids() == [session_id]


async def test_rooms_spread_over_nodes_and_a_dead_node_is_passed_over(
    gateway: Any, ledger: Any, as_: Any, start_node: Any, redis_server: str
) -> None:
    first, second = start_node(redis_server), start_node(redis_server)
    ledger.pools[0] |= {
        "publicURL": first.url,
        "internalURL": first.url,
        "nodes": [
            {"name": f"sfu-eu-{n}", "nodeID": node.node_id(), "rooms": 0, "state": "Ready"}
            for n, node in enumerate((first, second))
        ],
    }
    async with gateway(room_timeout_sec=5) as http:
        for _ in range(4):
            await opened(http, ledger, as_)
        assert (first.rooms(), second.rooms()) == (2, 2)

        second.process.kill()
        second.process.wait(5)
        for _ in range(3):
            session_id, answer = await opened(http, ledger, as_)
        assert first.rooms() == 5
        assert len(ledger.open_ids()) == 4 + 3, "sessions whose room failed were closed at once"
        async with joined(answer):
            assert session_id in ledger.open_ids()
