"""A Room that calls itself connected and whose path is dead: the front door is asked whether it goes on there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.clients.fakes import A, Answer, B, Clock, Front, HearingRoom, Room, Rooms, pair, place, settle

MakeFront = Callable[..., Front]
STAY, AWAY = place(A, moved=False), place(B, moved=True)


@pytest.mark.parametrize(
    ("totals", "seconds"),
    [
        ([], []),
        ([10, 10, 10, 10, 10], [0, 0, 0, 0, 0]),
        ([10, 20, 20, 20, 20], [0, 0, 1, 2, 3]),
        ([10, 20, 20, 20, 30, 30], [0, 0, 1, 2, 0, 1]),
        ([10, 20, 20, None, 20, 20], [0, 0, 1, 0, 3, 4]),
        ([None, None, None, None], [0, 0, 0, 0]),
        ([10, 20, 20, 5, 6, 6], [0, 0, 1, 2, 0, 1]),
        ([0, 0, 1, 1], [0, 0, 0, 1]),
    ],
    ids=["no look", "never grew", "fell silent", "a word between", "unknown between", "unknown", "begins anew", "late"],
)
def test_silence_counts_from_the_last_growth(client: ModuleType, totals: list[int | None], seconds: list[int]) -> None:
    silence = client.Silence()
    assert [silence.seconds(float(at), total) for at, total in enumerate(totals)] == seconds


async def test_answered_checks_are_summed_over_both_connections(client: ModuleType) -> None:
    room = HearingRoom()
    room.stats = lambda: SimpleNamespace(publisher_stats=[pair(1, 9)], subscriber_stats=[pair(20), pair(300, 9)])
    assert await client.answered(room) == 321


async def test_without_statistics_nothing_is_known(client: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, broken, hanging = HearingRoom(), HearingRoom(), HearingRoom()
    empty.stats = lambda: SimpleNamespace(publisher_stats=[], subscriber_stats=[])
    broken.stats = lambda: 1 / 0
    monkeypatch.setattr(client, "STATS_SEC", 0.0)
    monkeypatch.setattr(hanging, "get_rtc_stats", asyncio.Event().wait)
    assert [await client.answered(room) for room in (empty, broken, hanging, Room(), None)] == [None] * 5


class Talk:
    """A guest in a Room that has been heard for 5 s, then falls silent."""

    def __init__(self, client: ModuleType, clock: Clock, front: Front) -> None:
        self.room, self.next = HearingRoom(), HearingRoom()
        self.rooms = Rooms(self.room, self.next)
        self.keeper = client.Keeper(
            self.rooms, front.url, {}, on_moved=self.rooms.on_moved, sleep=clock.sleep, now=clock.now
        )
        self._clock = clock

    async def fall_silent(self) -> None:
        await self.keeper.connect(*A)
        await self._clock.to(5)
        self.room.silent = True


@pytest.fixture
async def talk(client: ModuleType, clock: Clock, front: MakeFront) -> Callable[..., Any]:
    async def make(*answers: Answer | asyncio.Future[Answer]) -> tuple[Talk, Front]:
        door = front(*answers)
        made = Talk(client, clock, door)
        await made.fall_silent()
        return made, door

    return make


async def test_as_long_as_nothing_is_heard_it_asks_and_stays_where_it_is_told_to(
    clock: Clock, talk: Callable[..., Any]
) -> None:
    it, door = await talk(STAY)
    await clock.to(8.9)
    assert door.at == []
    await clock.to(13.5)
    assert (door.at, door.waiting) == ([9, 11, 13], [True] * 3)
    it.room.silent = False
    await clock.to(60)
    assert door.at == [9, 11, 13], "it hears again"
    assert it.room.did == [A]
    it.room.silent = True
    await clock.to(64.5)
    assert door.at == [9, 11, 13, 64], "and falls silent again"


async def test_it_moves_once_when_the_interview_has_moved(clock: Clock, talk: Callable[..., Any]) -> None:
    it, door = await talk(STAY, AWAY)
    await clock.to(60)
    assert (it.room.did, it.next.did) == ([A, "disconnect"], [B])
    assert it.rooms.moved == [it.next]
    assert it.keeper.room is it.next
    assert door.at == [9, 11]


@pytest.mark.parametrize(("where", "moves"), [(A, False), (B, True)])
async def test_an_older_front_door_names_another_server_or_the_same(
    clock: Clock, talk: Callable[..., Any], where: tuple[str, str], moves: bool
) -> None:
    it, _ = await talk(place(where))
    await clock.to(10)
    assert it.rooms.moved == ([it.next] if moves else [])


async def test_a_place_that_is_being_made_is_waited_for(clock: Clock, talk: Callable[..., Any]) -> None:
    it, door = await talk((425, {"Retry-After": "1"}, {}), (503, {}, {}), AWAY)
    await clock.to(60)
    assert door.at == [9, 10, 12]
    assert it.rooms.moved == [it.next]


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_refusal_ends_no_connection(clock: Clock, talk: Callable[..., Any], status: int) -> None:
    it, door = await talk((status, {}, {}))
    await clock.to(60)
    assert door.at == [9]
    assert it.room.did == [A]
    assert not it.keeper.ended.done()


async def test_an_interview_that_has_ended_is_left(clock: Clock, talk: Callable[..., Any]) -> None:
    it, door = await talk((404, {}, {}))
    await clock.to(60)
    assert door.at == [9]
    assert it.room.did == [A, "disconnect"]
    assert it.keeper.ended.done()


async def test_who_was_never_heard_is_not_silent(client: ModuleType, clock: Clock, front: MakeFront) -> None:
    door, room = front(AWAY), HearingRoom(silent=True)
    keeper = client.Keeper(Rooms(room), door.url, {}, sleep=clock.sleep, now=clock.now)
    await keeper.connect(*A)
    await clock.to(60)
    assert door.at == []


async def test_statistics_that_fail_are_no_silence(clock: Clock, talk: Callable[..., Any]) -> None:
    it, door = await talk(AWAY)
    it.room.stats = lambda: 1 / 0
    await clock.to(60)
    assert (door.at, it.room.did) == ([], [A])


@pytest.mark.parametrize("answered", [False, True])
async def test_a_connection_that_breaks_takes_over(clock: Clock, talk: Callable[..., Any], answered: bool) -> None:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    it, door = await talk(answer, AWAY)
    await clock.to(10)
    it.room.handlers["reconnecting"]()
    if answered:
        answer.set_result(AWAY)
    await clock.to(60)
    assert (door.at, door.waiting) == (([9], [True]) if answered else ([9, 13], [True, False]))
    assert (it.room.did, it.next.did, it.rooms.moved) == ([A, "disconnect"], [B], [it.next])


@pytest.mark.parametrize("broke", [False, True])
@pytest.mark.parametrize(("answer", "moves"), [(AWAY, True), (STAY, False)])
async def test_who_hears_again_lets_the_ask_end_and_follows_where_it_moved_the_interview(
    clock: Clock, talk: Callable[..., Any], answer: Answer, moves: bool, broke: bool
) -> None:
    held: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    it, door = await talk(held, STAY)
    await clock.to(10)
    if broke:
        it.room.handlers["reconnecting"]()
        it.room.handlers["reconnected"]()
    it.room.silent = False
    await clock.to(11.5)
    held.set_result(answer)
    await clock.to(60)
    assert door.at == [9]
    assert it.rooms.moved == ([it.next] if moves else [])


async def test_who_was_told_to_stay_and_then_breaks_has_one_asker(clock: Clock, talk: Callable[..., Any]) -> None:
    it, door = await talk(STAY, (425, {}, {}))
    await clock.to(10)
    it.room.handlers["reconnecting"]()
    await clock.to(16)
    assert (door.at, door.waiting) == ([9, 13, 15], [True, False, False])


async def test_an_ask_ends_with_the_statistics_that_it_rests_on(clock: Clock, talk: Callable[..., Any]) -> None:
    it, door = await talk(STAY)
    await clock.to(11.5)
    it.room.stats = lambda: 1 / 0
    await clock.to(60)
    assert door.at == [9, 11]


async def test_a_connection_that_has_healed_must_be_heard_before_it_is_silent(
    clock: Clock, talk: Callable[..., Any]
) -> None:
    it, door = await talk(STAY)
    await clock.to(7)
    it.room.handlers["reconnecting"]()
    await clock.to(9.5)
    it.room.handlers["reconnected"]()
    await clock.to(60)
    assert door.at == []


async def test_who_hangs_up_while_it_asks_is_not_brought_back(clock: Clock, talk: Callable[..., Any]) -> None:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    it, door = await talk(answer)
    await clock.to(10)
    await it.keeper.stop()
    answer.set_result(AWAY)
    await settle()
    await clock.to(60)
    assert door.at == [9]
    assert (it.room.did, it.next.did, it.rooms.moved) == ([A, "disconnect"], [], [])
