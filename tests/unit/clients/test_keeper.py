"""An interview whose media server dies, on the way in or later: the client goes on where it goes on, once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from livekit.rtc import DisconnectReason

from tests.unit.clients.fakes import A, Answer, B, C, Clock, Front, Room, Rooms, place, settle

MakeFront = Callable[..., Front]
MOVED = place(B)


@pytest.fixture
def keep(client: ModuleType, clock: Clock) -> Callable[[Front, Rooms], Any]:
    return lambda front, rooms: client.Keeper(
        rooms, front.url, {}, on_moved=rooms.on_moved, sleep=clock.sleep, now=clock.now
    )


Keep = Callable[[Front, Rooms], Any]


@pytest.mark.parametrize("hangs", [False, True])
async def test_who_keeps_reconnecting_is_moved_once_to_a_room_of_its_own(
    clock: Clock, front: MakeFront, keep: Keep, hangs: bool
) -> None:
    first, second = Room(hangs=hangs), Room()
    door, rooms = front((425, {}, {}), MOVED), Rooms(first, second)
    keeper = keep(door, rooms)
    await keeper.connect(*A)
    first.handlers["reconnecting"]()
    first.handlers["reconnecting"]()
    await clock.until(lambda: rooms.moved)
    assert rooms.moved == [second]
    assert keeper.room is second
    first.handlers["disconnected"]()
    await clock.to(60)
    assert (first.did, second.did) == ([A, "disconnect"], [B])
    assert (door.at, door.waiting) == ([3, 5], [False, False]), "of the room that was left nothing is heard any more"
    assert not keeper.ended.done()


async def test_who_leaves_a_connection_for_the_next_does_not_say_that_the_interview_is_over(
    clock: Clock, front: MakeFront, keep: Keep
) -> None:
    first, second = Room(), Room()
    rooms = Rooms(first, second)
    keeper = keep(front(place(A, moved=False)), rooms)
    await keeper.connect(*A)
    first.handlers["reconnecting"]()
    await clock.until(lambda: rooms.moved)
    assert (first.did, first.reason) == ([A, "disconnect"], DisconnectReason.USER_UNAVAILABLE)
    await keeper.stop()
    assert (second.did, second.reason) == ([A, "disconnect"], DisconnectReason.CLIENT_INITIATED)


async def test_who_has_lost_the_connection_goes_where_it_is_told_even_if_that_is_the_same_place(
    clock: Clock, front: MakeFront, keep: Keep
) -> None:
    first, second = Room(), Room()
    rooms = Rooms(first, second)
    keeper = keep(front(place(A, moved=False)), rooms)
    await keeper.connect(*A)
    first.handlers["disconnected"]()
    await clock.to(0)
    assert (rooms.moved, second.did) == ([second], [A])


async def test_who_cannot_enter_at_first_asks_again_and_is_not_called_moved(
    clock: Clock, front: MakeFront, keep: Keep
) -> None:
    first, second = Room(fails=True), Room()
    door, rooms = front((425, {}, {}), MOVED), Rooms(first, second)
    keeper = keep(door, rooms)
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.until(entering.done)
    assert keeper.room is second
    assert (first.did, second.did, rooms.moved) == ([A], [B], [])
    assert (door.at, door.waiting) == ([2, 4], [False, False])


async def test_a_first_entry_that_works_asks_nobody(clock: Clock, front: MakeFront, keep: Keep) -> None:
    door = front(MOVED)
    await keep(door, Rooms(Room())).connect(*A)
    await clock.to(60)
    assert door.at == []


async def test_who_waits_at_a_door_that_does_not_open_goes_where_the_interview_has_moved_and_hangs_up_late(
    clock: Clock, front: MakeFront, keep: Keep
) -> None:
    opens = asyncio.Event()
    first, second = Room(opens=opens), Room()
    door, rooms = front(place(A, moved=False), place(B, moved=True)), Rooms(first, second)
    keeper = keep(door, rooms)
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.to(3.9)
    assert entering.done()
    assert keeper.room is second
    assert (door.at, door.waiting) == ([2, 3], [True, True])
    assert (first.did, second.did, rooms.moved) == ([A], [B], [])
    opens.set()
    await clock.to(60)
    assert keeper.room is second
    assert (first.did, second.did) == ([A, "disconnect"], [B])
    assert len(door.at) == 2


@pytest.mark.parametrize("answer", [place(A, moved=False), place(A), place(B, moved=False), (403, {}, {})])
async def test_who_is_told_that_the_room_is_where_it_was_goes_on_waiting(
    clock: Clock, front: MakeFront, keep: Keep, answer: Answer
) -> None:
    opens = asyncio.Event()
    first, door = Room(opens=opens), front(answer)
    keeper = keep(door, Rooms(first))
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.to(4.5)
    opens.set()
    await clock.to(60)
    assert entering.done()
    assert keeper.room is first
    assert first.did == [A]
    assert door.at == ([2] if answer[0] == 403 else [2, 3, 4]), "who is refused asks no more"


async def test_a_door_that_never_opens_is_left_after_15_s(clock: Clock, front: MakeFront, keep: Keep) -> None:
    first, second = Room(opens=asyncio.Event()), Room()
    door = front(*[place(A, moved=False)] * 13, MOVED)
    keeper = keep(door, Rooms(first, second))
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.until(entering.done)
    assert clock.time == 17
    assert keeper.room is second
    assert door.waiting == [True] * 13 + [False]


async def test_an_answer_that_comes_with_the_connection_is_followed(clock: Clock, front: MakeFront, keep: Keep) -> None:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    opens = asyncio.Event()
    first, second = Room(opens=opens), Room()
    keeper = keep(front(answer), Rooms(first, second))
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.to(2.5)
    answer.set_result(place(B, moved=True))
    await asyncio.sleep(0)
    opens.set()
    await settle()
    assert entering.done()
    assert keeper.room is second
    assert (first.did, second.did) == ([A, "disconnect"], [B])


async def test_where_the_answer_came_too_late_the_server_hangs_up_and_that_leads_to_the_place(
    clock: Clock, front: MakeFront, keep: Keep
) -> None:
    opens = asyncio.Event()
    first, second = Room(opens=opens), Room()
    door = front(asyncio.get_running_loop().create_future(), MOVED)
    rooms = Rooms(first, second)
    keeper = keep(door, rooms)
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.to(2.5)
    opens.set()
    await settle()
    assert entering.done()
    assert keeper.room is first
    first.handlers["disconnected"]()
    await settle()
    await clock.to(2.5)
    assert (keeper.room, rooms.moved) == (second, [second])
    assert door.waiting == [True, False]


async def test_an_interview_that_ended_before_anybody_was_in_it_says_what_failed(
    clock: Clock, front: MakeFront, keep: Keep
) -> None:
    keeper = keep(front((404, {}, {})), Rooms(Room(fails=True)))
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.until(entering.done)
    with pytest.raises(ConnectionError, match="no media"):
        await entering
    assert keeper.ended.done()


async def test_who_waits_for_an_interview_that_has_ended_waits_no_longer(
    clock: Clock, front: MakeFront, keep: Keep
) -> None:
    door = front((404, {}, {}))
    keeper = keep(door, Rooms(Room(opens=asyncio.Event())))
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.until(entering.done)
    with pytest.raises(TimeoutError, match="was over"):
        await entering
    assert keeper.ended.done()
    assert door.at == [2]


async def test_who_hangs_up_while_waiting_is_not_brought_in(clock: Clock, front: MakeFront, keep: Keep) -> None:
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    opens = asyncio.Event()
    first, second = Room(opens=opens), Room()
    keeper = keep(front(answer), Rooms(first, second))
    entering = asyncio.ensure_future(keeper.connect(*A))
    await clock.to(2.5)
    await keeper.stop()
    answer.set_result(place(B, moved=True))
    await settle()
    with pytest.raises(TimeoutError, match="was over"):
        await entering
    opens.set()
    await clock.to(60)
    assert (first.did, second.did) == ([A, "disconnect"], [])


@pytest.mark.parametrize("when", ["while it asks", "while it enters"])
async def test_who_hangs_up_on_the_way_is_not_brought_back(
    clock: Clock, front: MakeFront, keep: Keep, when: str
) -> None:
    opens = asyncio.Event()
    first, second = Room(), Room(opens=opens)
    rooms = Rooms(first, second)
    keeper = keep(front(MOVED), rooms)
    await keeper.connect(*A)
    first.handlers["reconnecting"]()
    await clock.to(2 if when == "while it asks" else 4)
    await keeper.stop()
    opens.set()
    await clock.to(60)
    assert keeper.ended.done()
    assert rooms.moved == []
    assert second.did == ([] if when == "while it asks" else [B, "disconnect"])


async def test_where_it_could_not_be_told_it_asks_again(client: ModuleType, clock: Clock, front: MakeFront) -> None:
    door, rooms = front(MOVED, place(C)), [Room(), Room(), Room()]
    to_be_made, told = iter(rooms), list[Room]()

    async def on_moved(room: Room) -> None:
        told.append(room)
        if len(told) == 1:
            raise RuntimeError("the microphone could not be published")

    keeper = client.Keeper(lambda: next(to_be_made), door.url, {}, on_moved=on_moved, sleep=clock.sleep, now=clock.now)
    await keeper.connect(*A)
    rooms[0].handlers["disconnected"]()
    await clock.until(lambda: len(told) == 2)
    assert told == rooms[1:]
    assert door.at == [0, 2]


async def test_a_connection_that_heals_moves_nothing(clock: Clock, front: MakeFront, keep: Keep) -> None:
    door, room = front(MOVED), Room()
    keeper = keep(door, Rooms(room))
    await keeper.connect(*A)
    room.handlers["reconnecting"]()
    await clock.to(2)
    room.handlers["reconnected"]()
    await clock.to(60)
    assert (door.at, room.did) == ([], [A])


@pytest.mark.parametrize("breaks_again", [False, True])
@pytest.mark.parametrize(
    ("answer", "moves"),
    [(place(B, moved=True), True), (place(A, moved=False), False), ((425, {}, {}), False), ((404, {}, {}), False)],
)
async def test_a_connection_that_heals_lets_the_ask_end_and_goes_where_it_moved_the_interview(
    clock: Clock, front: MakeFront, keep: Keep, answer: Answer, moves: bool, breaks_again: bool
) -> None:
    held: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    door, room, there = front(held, place(B, moved=True)), Room(), Room()
    rooms = Rooms(room, there)
    keeper = keep(door, rooms)
    await keeper.connect(*A)
    room.handlers["reconnecting"]()
    await clock.to(3.5)
    room.handlers["reconnected"]()
    if breaks_again:
        room.handlers["reconnecting"]()
    await clock.to(4)
    held.set_result(answer)
    await clock.to(60)
    status = answer[0]
    if not breaks_again:
        assert door.at == [3]
        assert (room.did, rooms.moved) == (([A, "disconnect"], [there]) if moves else ([A], []))
        assert not keeper.ended.done()
    else:
        # Nothing has healed in the end: every answer counts as ever.
        assert door.at == ([3, 6] if status == 425 else [3])
        assert rooms.moved == ([] if status == 404 else [there])
        assert keeper.ended.done() is (status == 404)


async def test_the_end_of_the_interview_is_told(clock: Clock, front: MakeFront, keep: Keep) -> None:
    room = Room()
    keeper = keep(front((404, {}, {})), Rooms(room))
    await keeper.connect(*A)
    room.handlers["disconnected"]()
    await clock.to(0)
    assert keeper.ended.done()
    assert room.did == [A]


async def test_who_hangs_up_is_not_asked_for(clock: Clock, front: MakeFront, keep: Keep) -> None:
    door, room = front(MOVED), Room()
    keeper = keep(door, Rooms(room))
    await keeper.connect(*A)
    await keeper.stop()
    await clock.to(60)
    assert keeper.ended.done()
    assert (door.at, room.did) == ([], [A, "disconnect"])
