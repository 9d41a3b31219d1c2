"""Hanging up takes at most 10 s from the decision, whatever hangs, and the room's deletion has its share of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import api
from talktime_agent import goodbye as goodbye_module
from talktime_agent.gate import Bounds
from talktime_agent.goodbye import Goodbye
from talktime_agent.leaving import GONE_BY, Parting, leave

from tests.unit.agent.virtual import BEGIN, Books, attachment, now, run

GONE = api.TwirpError(api.TwirpErrorCode.NOT_FOUND, "no such room", status=404)
AWAY = api.TwirpError(api.TwirpErrorCode.UNAVAILABLE, "no node", status=503)
FOREVER = 3600.0


class Handle:
    """Speech that takes so long, or until it is interrupted."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.interrupted_at: float | None = None

    async def wait_for_playout(self) -> None:
        await asyncio.sleep(self.seconds)

    def interrupt(self, *, force: bool) -> None:
        assert force
        self.interrupted_at = now()


class Room:
    """A session's end: each step takes so long; deleting fails as told, attempt by attempt."""

    def __init__(self, *, silence: float = 0.1, cost: float = 0.1, speech: float = 4.0, clip: bool = True) -> None:
        self.times = {"silence": silence, "cost": cost}
        self.done: list[tuple[str, float]] = []
        self.attempts: list[float] = []
        self.deleted_at: float | None = None
        self.deleting: list[float | Exception] = [0.1]
        self.handle = Handle(speech)
        self.goodbye = self._prepared(clip)

    def _prepared(self, clip: bool) -> Goodbye:
        told = attachment(Books())
        listeners: dict[str, Callable[[Any], None]] = {}
        provider = Provider(lambda: listeners["speech_created"](SimpleNamespace(speech_handle=self.handle)))
        session: Any = SimpleNamespace(
            say=lambda *_, **__: self.handle,
            current_agent=SimpleNamespace(realtime_llm_session=provider),
            on=listeners.__setitem__,
            off=lambda *_: None,
        )
        paid = SimpleNamespace(may_render=lambda *_: SimpleNamespace(allowed=True))
        till = SimpleNamespace(event=self.step, request=lambda *_: None, account=paid)
        clock = SimpleNamespace(monotonic=now)
        budget: Any = SimpleNamespace(
            till=till, bounds=Bounds.of(told), session=told.session, config=told.config, clock=clock
        )
        goodbye = Goodbye(session, budget)
        goodbye._pcm = bytes(48_000) if clip else None
        return goodbye

    def step(self, name: str) -> None:
        self.done.append((name, round(now() - BEGIN, 2)))

    def _taking(self, name: str) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            await asyncio.sleep(self.times[name])
            self.step(name)

        return work

    async def _delete(self) -> None:
        self.attempts.append(round(now() - BEGIN, 2))
        todo = self.deleting.pop(0) if len(self.deleting) > 1 else self.deleting[0]
        if isinstance(todo, Exception):
            raise todo
        await asyncio.sleep(todo)
        self.deleted_at = now() - BEGIN

    def leave(self, say: Callable[[float], Awaitable[object]] | None = None) -> float:
        """Seconds that it took."""

        async def all_of_it() -> float:
            await leave(
                Parting(
                    silence=self._taking("silence"),
                    goodbye=say or (lambda by: self.goodbye.say(provider_alive=True, by=by)),
                    tell_observers=self._taking("cost"),
                    left=lambda: self.step("left"),
                    end_room=self._delete,
                )
            )
            return now() - BEGIN

        return run(all_of_it())


class Provider:
    """Answers the goodbye's request after 2.4 s."""

    def __init__(self, answers: Callable[[], None]) -> None:
        self._answers = answers

    def say_goodbye(self, *_: object) -> None:
        asyncio.get_running_loop().call_later(2.4, self._answers)


@pytest.fixture(autouse=True)
def _any_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goodbye_module, "GatedSession", Provider)


def test_everything_in_its_order_and_no_longer_than_it_takes() -> None:
    room = Room()
    assert room.leave() < 5
    assert [name for name, _ in room.done] == ["silence", "closing_started", "closing_finished", "cost", "left"]
    assert room.handle.interrupted_at is None
    assert room.attempts == [4.2]


@pytest.mark.parametrize("clip", [True, False], ids=["clip", "response"])
@pytest.mark.parametrize("silence", [0.1, FOREVER])
@pytest.mark.parametrize("speech", [5.0, FOREVER])
@pytest.mark.parametrize("cost", [0.1, FOREVER])
@pytest.mark.parametrize("deleting", [[0.1], [FOREVER, 0.1], [AWAY, 0.1], [OSError("refused"), 0.1]])
def test_whatever_hangs_the_room_is_gone_after_ten_seconds(
    clip: bool, silence: float, speech: float, cost: float, deleting: list[float | Exception]
) -> None:
    room = Room(silence=silence, speech=speech, cost=cost, clip=clip)
    room.deleting = list(deleting)
    assert room.leave() <= GONE_BY
    assert room.deleted_at is not None and room.deleted_at <= GONE_BY
    assert len(room.attempts) == len(deleting)
    # What hangs is not waited for any more, and not heard any more either.
    stopped = room.handle.interrupted_at
    assert (speech == FOREVER) <= (stopped is not None and stopped - BEGIN <= 7.5)


@pytest.mark.parametrize("speech", [0.5, 4.9])
def test_a_clip_that_begins_late_is_still_heard_to_its_end(speech: float) -> None:
    room = Room(silence=FOREVER, speech=speech)
    room.leave()
    assert room.handle.interrupted_at is None


def test_a_room_that_cannot_be_deleted_holds_nobody_for_longer() -> None:
    room = Room()
    room.deleting = [FOREVER]
    assert room.leave() == pytest.approx(GONE_BY)
    assert len(room.attempts) == 2 and room.deleted_at is None


def test_a_room_that_is_gone_is_asked_for_once() -> None:
    room = Room()
    room.deleting = [GONE]
    room.leave()
    assert len(room.attempts) == 1


def test_words_that_cannot_be_said_do_not_keep_the_room() -> None:
    async def broken(_: float) -> None:
        raise RuntimeError("the session is not running")

    room = Room()
    room.leave(broken)
    assert room.deleted_at is not None
