"""Where interviews get their room, with rooms and a ledger that only remember."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from talktime_gateway import tokens
from talktime_gateway.admission import Caller
from talktime_gateway.credentials import Kind
from talktime_gateway.directory import CUT_SEC, Cache, View
from talktime_gateway.interviews import Interviews
from talktime_gateway.keyring import KeyRing
from talktime_gateway.media import Media, Sfu
from talktime_gateway.metrics import Metrics
from talktime_gateway.places import Issued, Limits, Places
from talktime_gateway.problems import Problem
from talktime_gateway.reask import HELD_SEC
from talktime_gateway.rejoining import Asker, Rejoining
from talktime_gateway.rooms import NewRoom, Rooms
from talktime_gateway.tokens import SfuKeys
from talktime_ledger.client import LedgerClient
from talktime_ledger.wire import Claim, Directory, DirectoryPool, MediaChoice, Session

ROOM = "7e3c1d3e-0000-4000-8000-000000000001"
KEYS = SfuKeys("APItest", "secret-of-at-least-thirty-two-characters")


@dataclass
class Remembered:
    """A LiveKit's room service."""

    known: set[str] = field(default_factory=set)
    made: list[NewRoom] = field(default_factory=list)
    adopted: list[tuple[str, str]] = field(default_factory=list)

    async def names(self, only: Sequence[str]) -> set[str]:
        return self.known & set(only)

    async def create(self, room: NewRoom, within_sec: float | None = None) -> None:
        assert room.session not in self.known, "LiveKit would hand out the one that is there"
        self.made.append(room)
        self.known.add(room.session)

    async def adopt(self, room: str, node_id: str) -> None:
        """The node that had it is dead."""
        self.adopted.append((room, node_id))

    async def delete(self, room: str) -> bool:
        assert self.adopted, "no call about a dead node's room works"
        self.known.discard(room)
        return True


class Shelf(Media):
    """Each pool's LiveKit, by the pool's name."""

    def __init__(self, rooms: dict[str, Remembered]) -> None:
        super().__init__(cast(Any, None), KeyRing(Path("/none")))
        self._rooms = rooms

    def on(self, pool: DirectoryPool) -> Sfu | None:
        rooms = self._rooms.get(pool.name)
        return Sfu(pool, KEYS, cast(Rooms, rooms)) if rooms is not None else None


@dataclass
class Book:
    """The ledger, as far as a session that goes on needs it."""

    media: MediaChoice
    epoch: int = 1

    async def session(self, session_id: str) -> Session:
        return Session.model_validate(
            {
                "session_id": session_id,
                "namespace": "team",
                "project": "study",
                "provider": "main",
                "api": "OpenAIRealtime",
                "model": "mini",
                "epoch": self.epoch,
                "state": "open",
                "opened_at": datetime(2026, 11, 29, tzinfo=UTC),
                "participant_identity": tokens.PARTICIPANT,
                "observers": [],
                "media": self.media,
                "posted": "0",
                "reserved": "0",
                "limit": "1",
            }
        )

    async def claim(self, session_id: str, claim: Claim) -> Session:
        assert claim.media is not None
        self.epoch, self.media = claim.epoch, claim.media
        return await self.session(session_id)


def directory(nodes: dict[str, tuple[str, int]], **pool: Any) -> Directory:
    """`nodes`: state and rooms by node id."""
    told = [{"name": f"pod-{n}", "nodeID": n, "state": state, "rooms": rooms} for n, (state, rooms) in nodes.items()]
    eu = {"namespace": "talktime", "name": "eu", "publicURL": "wss://eu", "internalURL": "ws://eu", "nodes": told}
    project = {
        "namespace": "team",
        "name": "study",
        "paused": False,
        "deleted": False,
        "providers": [],
        "pool": {"namespace": "talktime", "name": "eu"},
        "accessKeys": [],
        "maxParticipants": 1,
        "microphoneOnly": True,
    }
    return Directory.model_validate({"projects": [project], "pools": [eu | {"health": "good"} | pool]})


def caller(view: View) -> Caller:
    return Caller(Kind.SERVER, view.projects["team", "study"])


class House:
    """A gateway with a pool `eu` and, where it is said, a fallback."""

    def __init__(self, node_id: str = "a", rooms_per_node: int = 500) -> None:
        self.own, self.cloud = Remembered({ROOM}), Remembered()
        self.book = Book(MediaChoice(mode="selfhosted", pool="eu", node_id=node_id))
        self.now = time.monotonic()
        ledger, metrics = cast(LedgerClient, self.book), Metrics()
        shelf, places = (
            Shelf({"eu": self.own, "eu_fallback": self.cloud}),
            Places(Limits(600, rooms_per_node), metrics),
        )
        self.interviews = Interviews(ledger, shelf, places, metrics, Random(1))
        self.rejoining = Rejoining(ledger, shelf, places, metrics, lambda: self.now, self._wait)

    async def _wait(self, seconds: float) -> None:
        self.now += seconds

    def admits(self, told: Directory) -> str:
        """What a newcomer is told before the ledger is asked."""
        view = View.of(told)
        try:
            self.interviews.ready_for(view, caller(view))
        except Problem as problem:
            return problem.reason
        return "yes"

    async def again(self, *told: Directory | View, every_sec: float = 1.0, waiting: bool = False) -> Issued | int:
        """The participant of the one session asks again; the ledger's directory is another one ``every_sec``."""
        views, token = [one if isinstance(one, View) else View.of(one) for one in told], _token()
        began = self.now

        async def view_now() -> View:
            return views[min(int((self.now - began) / every_sec), len(views) - 1)]

        try:
            asker = Asker(caller(views[0]), ROOM, token, waiting=waiting)
            return await self.rejoining.rejoin(asker, view_now)
        except Problem as problem:
            return problem.status


def _token() -> str:
    return tokens.participant_token(KEYS, ROOM, tokens.PARTICIPANT, "", 600)


@pytest.mark.parametrize(
    ("pool", "answer"),
    [
        ({"sessionsPerNode": 100}, "PoolFull"),
        ({"sessionsPerNode": 101}, "yes"),
        ({}, "yes"),  # an operator that does not say: the gateway's own setting, 500
        ({"sessionsPerNode": 600}, "yes"),
        ({"sessionsPerNode": 100, "fallbackURL": "wss://cloud", "fallbackMode": "Auto"}, "PoolFull"),
    ],
)
def test_a_node_is_full_where_its_pool_says_so(pool: dict[str, Any], answer: str) -> None:
    assert House().admits(directory({"a": ("Ready", 100), "b": ("Ready", 120)}, **pool)) == answer


def test_a_setting_of_the_gateway_is_for_pools_that_do_not_say() -> None:
    assert House(rooms_per_node=90).admits(directory({"a": ("Ready", 90)})) == "PoolFull"
    assert House(rooms_per_node=90).admits(directory({"a": ("Ready", 90)}, sessionsPerNode=100)) == "yes"


async def test_a_live_interview_goes_on_in_a_full_pool() -> None:
    """Half of a pool died: what is left of it is full, and its new sessions are refused."""
    told = {"a": ("Sick", 100), "b": ("Ready", 100), "c": ("Ready", 110)}
    alone = House()
    assert isinstance(await alone.again(directory(told, sessionsPerNode=100)), Issued)
    assert [room.node_id for room in alone.own.made] == ["b"]

    second = House()
    moved = await second.again(directory(told, sessionsPerNode=100, fallbackURL="wss://cloud", fallbackMode="Auto"))
    assert isinstance(moved, Issued)
    assert (moved.server_url, len(second.cloud.made), second.own.made) == ("wss://cloud", 1, [])


def after(*told: Directory, at: float | None = None) -> View:
    """What a gateway knows that read these directories one after the other, the last one at a time (now)."""
    cache, now = Cache(), time.monotonic() if at is None else at
    for count, one in enumerate(told):
        cache.replace(one, None, now - (len(told) - 1 - count) * 2)
    assert cache.view is not None
    return cache.view


async def test_who_was_cut_off_with_the_node_goes_on_at_another_one_though_its_pod_is_no_longer_told() -> None:
    moving, without = directory({"a": ("Moving", 3), "b": ("Ready", 2)}), directory({"b": ("Ready", 2)})
    house = House()
    moved = await house.again(after(moving, without))
    assert isinstance(moved, Issued)
    assert (house.book.epoch, house.book.media.node_id) == (2, "b")
    assert house.own.adopted == [(ROOM, "b")], "Redis named the dead node"
    assert [(room.node_id, room.epoch) for room in house.own.made] == [("b", 2)]


async def test_a_node_that_nobody_cut_is_unknown_and_its_room_stays() -> None:
    """Restarted in its place it has another id, and its sessions are kept."""
    ready, other = directory({"a": ("Ready", 3), "b": ("Ready", 2)}), directory({"c": ("Ready", 0), "b": ("Ready", 2)})
    house = House()
    assert isinstance(await house.again(after(ready, other)), Issued)
    assert (house.book.epoch, house.own.made, house.own.adopted) == (1, [], [])


def test_a_cut_is_forgotten_after_a_while() -> None:
    moving, without = directory({"a": ("Moving", 3), "b": ("Ready", 2)}), directory({"b": ("Ready", 2)})
    view = after(moving, without, at=100.0)
    assert view.was_cut("a", 100.0 + CUT_SEC)
    assert not view.was_cut("a", 101.0 + CUT_SEC)
    assert not view.was_cut("b", 100.0)
    assert after(moving, at=100.0).was_cut("a", 999.0), "it still is"
    assert not after(moving, without, without, at=300.0).was_cut("a", 300.0 + CUT_SEC)


CLOUD = {"fallbackURL": "wss://cloud", "fallbackMode": "Auto"}
WELL = directory({"a": ("Ready", 3)}, **CLOUD)
BLOCKED = directory({"a": ("Sick", 3)}, **CLOUD, active="Fallback", health="bad")


async def test_who_hears_nothing_is_held_until_the_operator_has_found_that_no_udp_comes_through() -> None:
    house, began = House(), time.monotonic()
    moved = await house.again(WELL, WELL, BLOCKED, waiting=True)
    assert isinstance(moved, Issued)
    assert (moved.server_url, moved.moved, house.book.epoch) == ("wss://cloud", True, 2)
    assert house.now - began == pytest.approx(2.0, abs=0.3)


async def test_who_hears_nothing_in_a_pool_that_is_well_keeps_what_they_have() -> None:
    house, began = House(), time.monotonic()
    here = await house.again(WELL, waiting=True)
    assert isinstance(here, Issued)
    assert (here.server_url, here.moved, house.book.epoch) == ("wss://eu", False, 1)
    assert house.now - began == pytest.approx(HELD_SEC, abs=0.3)


async def test_whose_connection_is_lost_is_told_at_once_that_the_room_is_there() -> None:
    house, began = House(), time.monotonic()
    here = await house.again(WELL, BLOCKED)
    assert isinstance(here, Issued)
    assert (here.moved, house.book.epoch) == (False, 1)
    assert house.now - began == pytest.approx(0.0, abs=0.3)
