"""Remembers what was seen of the nodes' media paths, and when it is time to look again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from talktime_operator.media_probe import MediaProbe
from talktime_operator.pools.health import Answer, Media, judge_media
from talktime_operator.sfu_probe import LiveKitAt

INTERVAL = 5.0
"""Seconds between two joins of a node whose media path was good, where nothing hurries; one that was not is looked at
in every round."""

WITHIN = 0.6
"""Seconds of unanswered checks, one every 0.1 s, until a look says that no UDP comes through."""


@dataclass
class _Look:
    """`came_about`: the last try was a look; else the answer is an older one's."""

    answer: Answer | None
    at: float
    came_about: bool = True


class MediaWatch:
    """By pod uid."""

    def __init__(self, probe: MediaProbe) -> None:
        self._probe = probe
        self._looks: dict[str, _Look] = {}

    async def look(
        self, uid: str, at: LiveKitAt, node_id: str, media: tuple[str, int], every: float, now: float, stale: float
    ) -> float | None:
        """Looks if it is time to; returns the seconds of the round trip. A join that did not come about says nothing
        about UDP: what was seen before stays, until it is stale. `every`: seconds between two looks at a good path."""
        known = self._looks.get(uid)
        if known is not None and known.answer is Answer.GOOD and now - known.at < every:
            return None
        reply = await self._probe.look(at, node_id, media, WITHIN)
        if reply.answer is not Answer.SILENT:
            self._looks[uid] = _Look(reply.answer, now)
        elif known is not None and now - known.at >= stale:
            self._looks[uid] = _Look(None, now)
        elif known is not None:
            known.came_about = False
        return reply.seconds

    def lacks(self, uid: str) -> bool:
        """No UDP came through at the last look."""
        return uid in self._looks and self._looks[uid].answer is Answer.NO_MEDIA

    def lacks_since_before(self, uid: str) -> bool:
        """No UDP came through at the last look, and the last try to look again did not come about."""
        return self.lacks(uid) and not self._looks[uid].came_about

    def judge(self, nodes: Iterable[tuple[str, str]], proven: bool) -> Media:
        """`nodes`: (uid, name) of those that take new rooms."""
        known = {name: self._looks[uid].answer for uid, name in nodes if uid in self._looks}
        return judge_media({name: answer for name, answer in known.items() if answer is not None}, proven)

    def forget(self, but: set[str]) -> None:
        self._looks = {uid: look for uid, look in self._looks.items() if uid in but}
