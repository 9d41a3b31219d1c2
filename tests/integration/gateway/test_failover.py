"""Two real livekit-servers, one as the pool and one as its fallback: new interviews go where one of them works."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from talktime_gateway.reask import UNREACHABLE_SEC
from talktime_gateway.rooms import Rooms
from talktime_gateway.tokens import SfuKeys

TOKEN, TICKETS = "/v1/projects/team/study/token", "/v1/projects/team/study/tickets"
API_KEY, SECRET = "APItest", "secret-of-at-least-thirty-two-characters"
BUDGET_SEC = 3.0
"""CreateRoom on the pool's own nodes: far more than it takes on a busy machine. Only a hung node uses it up."""


@pytest.fixture
def pool_node(start_node: Callable[..., Any]) -> Any:
    """The pool's only node: the test may kill it."""
    return start_node()


@pytest.fixture
def cloud(start_node: Callable[..., Any]) -> Any:
    """Plays LiveKit Cloud."""
    return start_node()


@pytest.fixture
def pool(ledger: Any, pool_node: Any, cloud: Any, keys_dir: Path) -> dict[str, Any]:
    """The pool as the operator tells about it while it notices nothing yet."""
    (keys_dir / "talktime.eu_fallback.json").write_text(json.dumps({"apiKey": API_KEY, "apiSecret": SECRET}))
    nodes = [{"name": "sfu-eu-0", "nodeID": pool_node.node_id(), "rooms": 0, "state": "Ready"}]
    told: dict[str, Any] = ledger.pools[0]
    told |= {"publicURL": pool_node.url, "internalURL": pool_node.url, "nodes": nodes}
    told |= {"fallbackURL": cloud.url, "fallbackMode": "Auto"}
    return told


@pytest.fixture
async def at_cloud(cloud: Any) -> AsyncIterator[Rooms]:
    async with aiohttp.ClientSession() as http:
        yield Rooms(http, cloud.url, SfuKeys(API_KEY, SECRET))


async def ask(http: Any, headers: dict[str, str]) -> tuple[Any, float]:
    started = time.monotonic()
    return await http.post(TOKEN, headers=headers, json={}), time.monotonic() - started


def strike(node: Any, death: signal.Signals) -> None:
    """Returns when it is dead, or stands still: a signal is sent before it has reached every thread."""
    os.kill(node.process.pid, death)
    if death == signal.SIGSTOP:
        os.waitid(os.P_PID, node.process.pid, os.WSTOPPED | os.WNOWAIT)
    else:
        node.process.wait(60)


def room_of(answer: Any) -> str:
    assert answer.status_code == 201, answer.text
    claims = jwt.decode(answer.json()["participant_token"], SECRET, algorithms=["HS256"])
    return str(claims["video"]["room"])


@pytest.mark.usefixtures("pool")
async def test_a_killed_pool_the_operator_has_not_noticed_yet(
    gateway: Any, ledger: Any, as_: Any, pool_node: Any, cloud: Any, at_cloud: Rooms
) -> None:
    async with gateway(room_timeout_sec=BUDGET_SEC) as http:
        first, _ = await ask(http, as_.server)
        assert ledger.sessions[room_of(first)]["media"]["mode"] == "selfhosted"
        assert first.json()["server_url"] == pool_node.url

        pool_node.process.kill()
        pool_node.process.wait(5)
        second, took = await ask(http, as_.server)
        room = room_of(second)
        assert took < 5
        assert second.json()["server_url"] == cloud.url
        assert ledger.sessions[room]["media"] == {"mode": "cloud", "pool": "eu", "node_id": ""}
        (dispatch,) = await at_cloud.dispatches(room)
        assert dispatch.metadata == f'{{"session": "{room}", "epoch": 1}}'
        failed = [s for s in ledger.sessions.values() if s["state"] == "closed"]
        assert [(s["close_reason"], s["media"]["mode"]) for s in failed] == [("room_failed", "selfhosted")]

        opened = len(ledger.sessions)
        third, _ = await ask(http, as_.server)
        assert ledger.sessions[room_of(third)]["media"]["mode"] == "cloud"
        assert len(ledger.sessions) == opened + 1, "what failed a moment ago is not asked first again"


@pytest.mark.usefixtures("pool")
async def test_a_hung_pool_costs_one_budget(gateway: Any, ledger: Any, as_: Any, pool_node: Any, cloud: Any) -> None:
    async with gateway(room_timeout_sec=BUDGET_SEC) as http:
        assert room_of((await ask(http, as_.server))[0])
        strike(pool_node, signal.SIGSTOP)
        try:
            answer, took = await ask(http, as_.server)
            assert ledger.sessions[room_of(answer)]["media"]["mode"] == "cloud"
            assert answer.json()["server_url"] == cloud.url
            assert BUDGET_SEC <= took < BUDGET_SEC + 4
            again, quick = await ask(http, as_.server)
            assert room_of(again)
            assert quick < took
        finally:
            os.kill(pool_node.process.pid, signal.SIGCONT)


@pytest.mark.usefixtures("pool")
async def test_both_dead_is_a_503_that_says_when_to_ask_again(
    gateway: Any, ledger: Any, as_: Any, pool_node: Any, cloud: Any
) -> None:
    async with gateway(room_timeout_sec=BUDGET_SEC) as http:
        body = {"expires_in_sec": 3600}
        ticket = (await http.post(TICKETS, headers=as_.server, json=body)).json()["ticket"]
        for node in (pool_node, cloud):
            node.process.kill()
            node.process.wait(5)
        answer, _ = await ask(http, as_.server)
        assert (answer.status_code, answer.json()["reason"]) == (503, "RoomFailed")
        assert int(answer.headers["retry-after"]) >= 1
        guest = await http.post(TOKEN, params={"ticket": ticket}, json={})
        assert (guest.status_code, guest.json()["detail"]) == (503, "interview not available")
        assert int(guest.headers["retry-after"]) >= 1
        assert set(guest.json()) == {"type", "title", "status", "detail"}
        assert ledger.open_ids() == [], "nothing stays reserved"
        assert all(kept["used"] is None for kept in ledger.tickets.values()), "the invitation stays good"


async def test_over_and_back_at_the_operators_word(
    gateway: Any, ledger: Any, as_: Any, pool: dict[str, Any], pool_node: Any, cloud: Any, seen_again: Any
) -> None:
    """Rooms never move: a session on the fallback stays there after the way back."""
    async with gateway(room_timeout_sec=BUDGET_SEC) as http:
        pool |= {"active": "Fallback", "health": "bad"}
        await seen_again(ledger)
        there = (await ask(http, as_.server))[0]
        assert there.json()["server_url"] == cloud.url
        assert len(ledger.sessions) == 1, "the sick pool was not tried"

        pool |= {"active": "SelfHosted", "health": "good"}
        await seen_again(ledger)
        assert (await ask(http, as_.server))[0].json()["server_url"] == pool_node.url

        body = {"room_name": room_of(there), "previous_token": there.json()["participant_token"]}
        back = await http.post(TOKEN, headers=as_.server, json=body)
        assert (back.status_code, back.json()["server_url"]) == (201, cloud.url)
        seat = await http.post(TOKEN, headers=as_.observer, json={"room_name": room_of(there)})
        assert (seat.status_code, seat.json()["server_url"]) == (201, cloud.url)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_first_question_after_the_death_is_answered_with_another_place(
    gateway: Any, ledger: Any, as_: Any, pool_node: Any, cloud: Any, at_cloud: Rooms, death: signal.Signals
) -> None:
    """Nobody is told to ask again only because the silence was young."""
    async with gateway(room_timeout_sec=BUDGET_SEC) as http:
        first = (await ask(http, as_.server))[0]
        room = room_of(first)
        other = (await ask(http, as_.server))[0]
        strike(pool_node, death)
        try:
            began = time.monotonic()
            body = {"room_name": room, "previous_token": first.json()["participant_token"]}
            moved = await http.post(TOKEN, headers=as_.server, json=body)
            took = time.monotonic() - began
            assert (moved.status_code, moved.json()["server_url"], room_of(moved)) == (201, cloud.url, room)
            assert moved.json()["moved"] is True
            assert ledger.sessions[room]["epoch"] == 2

            began = time.monotonic()
            body = {"room_name": room_of(other), "previous_token": other.json()["participant_token"]}
            moved = await http.post(TOKEN, headers=as_.server, json=body)
            assert (moved.status_code, moved.json()["server_url"]) == (201, cloud.url)
            quick = time.monotonic() - began
            assert took >= UNREACHABLE_SEC and quick < took, "what one has seen the next need not see again"
            (dispatch,) = await at_cloud.dispatches(room)
            assert dispatch.metadata == f'{{"session": "{room}", "epoch": 2}}'
        finally:
            pool_node.process.kill()


async def test_a_dead_fallback_gives_way_to_a_recovered_pool_but_not_during_a_planned_switch(
    gateway: Any, ledger: Any, as_: Any, pool: dict[str, Any], pool_node: Any, cloud: Any, seen_again: Any
) -> None:
    cloud.process.kill()
    cloud.process.wait(5)
    async with gateway(room_timeout_sec=BUDGET_SEC) as http:
        pool |= {"active": "Fallback", "health": "good", "fallbackMode": "Force"}
        await seen_again(ledger)
        assert (await ask(http, as_.server))[0].status_code == 503
        pool |= {"fallbackMode": "Auto"}
        await seen_again(ledger)
        assert (await ask(http, as_.server))[0].json()["server_url"] == pool_node.url


async def test_rounds_look_after_sessions_on_the_fallback(
    gateway: Any, ledger: Any, as_: Any, pool: dict[str, Any], at_cloud: Rooms, eventually: Any
) -> None:
    """Their rooms are looked for where they are: nothing is closed as vanished, and a no-show ends."""
    pool |= {"active": "Fallback", "health": "bad"}
    async with gateway(census_interval_sec=0.2, join_timeout_sec=1.0) as http:
        room = room_of((await ask(http, as_.server))[0])

        async def closed() -> bool:
            return not ledger.open_ids()

        await eventually(closed)
        assert ledger.sessions[room]["close_reason"] == "nobody_joined"

        async def no_room() -> bool:
            return not await at_cloud.names([room])

        await eventually(no_room)


async def test_never_means_never(gateway: Any, as_: Any, pool: dict[str, Any], pool_node: Any) -> None:
    pool["fallbackMode"] = "Never"
    pool_node.process.kill()
    pool_node.process.wait(5)
    async with gateway(room_timeout_sec=BUDGET_SEC) as http:
        assert (await ask(http, as_.server))[0].status_code == 503
