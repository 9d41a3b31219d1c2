"""Two real livekit-servers with one Redis, one pool: an interview whose node is lost goes on at the other one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import jwt
import pytest
from livekit import api, rtc
from talktime_gateway.rooms import Rooms
from talktime_gateway.tokens import SfuKeys

TOKEN = "/v1/projects/team/study/token"
API_KEY, SECRET = "APItest", "secret-of-at-least-thirty-two-characters"


@pytest.fixture
def nodes(start_node: Callable[..., Any], redis_server: str) -> tuple[Any, Any]:
    """The one that will be lost, and the one that participants reach then, as a Service would lead them there."""
    return start_node(redis_server), start_node(redis_server)


@pytest.fixture
def pool(ledger: Any, nodes: tuple[Any, Any]) -> dict[str, Any]:
    """The pool as the operator tells about it."""
    told: dict[str, Any] = ledger.pools[0]
    told |= {"publicURL": nodes[1].url, "internalURL": nodes[1].url, "nodes": [node(nodes[0]), node(nodes[1], rooms=5)]}
    return told


@pytest.fixture
async def rooms(nodes: tuple[Any, Any]) -> AsyncIterator[Rooms]:
    async with aiohttp.ClientSession() as http:
        yield Rooms(http, nodes[1].url, SfuKeys(API_KEY, SECRET))


def node(server: Any, state: str = "Ready", rooms: int = 0) -> dict[str, Any]:
    return {"name": f"pod-{server.port}", "nodeID": server.node_id(), "state": state, "rooms": rooms}


def room_of(answer: Any) -> str:
    assert answer.status_code == 201, answer.text
    claims = jwt.decode(answer.json()["participant_token"], SECRET, algorithms=["HS256"])
    return str(claims["video"]["room"])


async def agent_in(room: str, url: str) -> rtc.Room:
    """Somebody who is there as an agent."""
    grants = api.VideoGrants(room_join=True, room=room, agent=True)
    token = api.AccessToken(API_KEY, SECRET).with_identity("agent-AJ_old").with_kind("agent").with_grants(grants)
    joined = rtc.Room()
    await joined.connect(url, token.to_jwt())
    return joined


async def goes_on(http: Any, as_: Any, first: Any) -> tuple[Any, float]:
    """Asks as the helpers do, every 2 s; the answer and how long it took."""
    body = {"room_name": room_of(first), "previous_token": first.json()["participant_token"]}
    began = time.monotonic()
    while (answer := await http.post(TOKEN, headers=as_.server, json=body)).status_code == 425:
        assert time.monotonic() - began < 60, "nobody got in again"
        await asyncio.sleep(2)
    return answer, time.monotonic() - began


@pytest.mark.parametrize("told", ["Moving, then gone", "Sick"])
async def test_a_cut_nodes_interview_goes_on_at_the_other_node(
    gateway: Any,
    ledger: Any,
    as_: Any,
    nodes: tuple[Any, Any],
    pool: dict[str, Any],
    rooms: Rooms,
    seen_again: Any,
    told: str,
) -> None:
    """Its pod leaves the push a moment after the kill, while Redis names the room for a day."""
    lost, other = nodes
    async with gateway(room_timeout_sec=2.0, sfu_timeout_sec=5.0) as http:
        first = await http.post(TOKEN, headers=as_.server, json={})
        room = room_of(first)
        assert ledger.sessions[room]["media"]["node_id"] == lost.node_id()
        there, gone = node(lost), node(lost, "Moving")
        agent = await agent_in(room, lost.url)
        if told == "Moving, then gone":
            pool["nodes"] = [gone, node(other)]
            await seen_again(ledger)
        lost.process.kill()
        lost.process.wait(10)
        await agent.disconnect()
        pool["nodes"] = [node(other)] if told != "Sick" else [{**there, "state": "Sick"}, node(other)]
        await seen_again(ledger)
        assert await rooms.names([room]) == {room}, "Redis remembers it"

        again, took = await goes_on(http, as_, first)
        assert room_of(again) == room
        print(f"{told}: {took:.1f} s")
        session = ledger.sessions[room]
        assert took < 9
        assert session["epoch"] == 2
        assert other.rooms() == 1
        (dispatch,) = await rooms.dispatches(room)
        assert dispatch.metadata == f'{{"session": "{room}", "epoch": 2}}'
        assert await rooms.participants(room) == (), "nobody is left over from before"
