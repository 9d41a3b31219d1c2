"""Remembers what was seen of the nodes' media paths, and when it is time to look again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass

from talktime_operator.media_probe import MediaProbe
from talktime_operator.pools.health import Answer, Media, judge_media
from talktime_operator.sfu_probe import LiveKitAt, Reply

INTERVAL = 5.0
"""Seconds between two joins of a node whose media path was good, where nothing hurries; one that was not is looked at
in every round."""

WITHIN = 0.6
"""Seconds of unanswered checks, one every 0.1 s, until a look says that no UDP comes through."""

HOLD = 0.8
"""Seconds that a look at a good path goes on: the better part of the second until the next one."""

APART = 0.3
"""Seconds between the beginnings of looks that make sure: everybody waits for them, and each is a join of its own."""


@dataclass(frozen=True)
class Pace:
    """Of looks at one node. `every`: seconds between two at a good path; `stale`: seconds until an answer is too old;
    `threshold`: how many make a loss certain."""

    every: float
    stale: float
    threshold: int = 1


@dataclass
class _Look:
    """`looks`: how many gave this answer when somebody tried last; 0: none came about, the answer is an older one."""

    answer: Answer | None
    at: float
    looks: int = 1


class MediaWatch:
    """By pod uid."""

    def __init__(self, probe: MediaProbe, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._probe = probe
        self._sleep = sleep
        self._looks: dict[str, _Look] = {}

    async def look(
        self, uid: str, at: LiveKitAt, node_id: str, media: tuple[str, int], pace: Pace, now: float
    ) -> float | None:
        """Looks if it is time to; returns the seconds of the round trip. A join that did not come about says nothing
        about UDP: what was seen before stays, until it is stale. The looks that make a loss certain are made at once of
        a path that has just been good, later one a round."""
        known = self._looks.get(uid)
        was_good = known is not None and known.answer is Answer.GOOD
        if known is not None and was_good and now - known.at < pace.every:
            return None

        async def one(after: float) -> Reply:
            await self._sleep(after)
            return await self._probe.look(at, node_id, media, WITHIN, HOLD)

        reply, looks = await one(0.0), 1
        if reply.answer is Answer.NO_MEDIA and was_good:
            more = await _until_good(one(number * APART) for number in range(pace.threshold - 1))
            looks += sum(each.answer is Answer.NO_MEDIA for each in more)
            reply = next((each for each in more if each.answer is Answer.GOOD), reply)
        if reply.answer is not Answer.SILENT:
            self._looks[uid] = _Look(reply.answer, now, looks=looks)
        elif known is not None and now - known.at >= pace.stale:
            self._looks[uid] = _Look(None, now)
        elif known is not None:
            known.looks = 0
        return reply.seconds

    def lost(self, uid: str) -> int | None:
        """How many looks saw no UDP when somebody tried last; 0: an older one did, and it could not be joined since;
        None: UDP comes through, or that is not known."""
        known = self._looks.get(uid)
        return known.looks if known is not None and known.answer is Answer.NO_MEDIA else None

    def judge(self, nodes: Iterable[tuple[str, str]], proven: bool) -> Media:
        """`nodes`: (uid, name) of those that take new rooms."""
        known = {name: self._looks[uid].answer for uid, name in nodes if uid in self._looks}
        return judge_media({name: answer for name, answer in known.items() if answer is not None}, proven)

    def begun_anew(self, uid: str) -> None:
        """What was seen of the process before is not known of this one."""
        self._looks.pop(uid, None)

    def forget(self, but: set[str]) -> None:
        self._looks = {uid: look for uid, look in self._looks.items() if uid in but}


async def _until_good(looks: Iterable[Coroutine[None, None, Reply]]) -> list[Reply]:
    """Side by side; one that is good says enough, and the others need not end."""
    tasks, replies = [asyncio.create_task(look) for look in looks], []
    try:
        for done in asyncio.as_completed(tasks):
            replies.append(await done)
            if replies[-1].answer is Answer.GOOD:
                break
    finally:
        for task in tasks:
            task.cancel()
        # Their rooms are gone before the next round counts.
        await asyncio.gather(*tasks, return_exceptions=True)
    return replies
