"""livekit-servers, their media paths and a fallback, as one transport with a clock of its own."""

from __future__ import annotations

import httpx
from talktime_operator.media_probe import MediaProbe
from talktime_operator.names import Key
from talktime_operator.pools.health import Answer
from talktime_operator.sfu_health import SfuHealth
from talktime_operator.sfu_probe import LiveKitAt, Probe, Reply
from talktime_operator.sfu_reading import PoolTarget

EU = Key("talktime", "eu")
NO = httpx.ConnectError("no")
NO.__cause__ = ConnectionRefusedError()
HUNG = httpx.ReadTimeout("slow")
CUT = httpx.ConnectTimeout("no way")
METRICS = """# TYPE livekit_room_total gauge
livekit_room_total{node_id="ND_x",node_type="SERVER"} 4
livekit_participant_total{node_id="ND_x",node_type="SERVER"} 9
# TYPE livekit_psrpc_stream_count gauge
livekit_psrpc_stream_count{method="RelaySignal",node_id="ND_x",node_type="SERVER",role="client",service="Signal"} 5
livekit_psrpc_stream_count{method="RelaySignal",node_id="ND_x",node_type="SERVER",role="server",service="Signal"} 7
livekit_psrpc_stream_count{method="Other",node_id="ND_x",node_type="SERVER",role="client",service="Else"} 11
"""


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        self.now += seconds


class World:
    """livekit-servers, a Redis port nobody listens on, and a fallback, as one transport."""

    def __init__(self) -> None:
        self.root: dict[str, int | Exception] = {}
        self.rooms: dict[str, int | Exception] = {}
        self.asked: list[str] = []
        self.metrics = METRICS
        self.network = True
        self.clock = Clock()
        self.takes = 0.0
        """Seconds until an answer."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        self.asked.append(str(request.url))
        self.clock.now += self.takes
        if request.url.port == 6789:
            return httpx.Response(200, text=self.metrics.replace("ND_x", f"ND_{host}"))
        given = (self.rooms if "RoomService" in request.url.path else self.root).get(host, 200)
        if isinstance(given, Exception):
            raise given
        return httpx.Response(given)

    async def reachable(self) -> bool:
        return self.network

    def health(self, client: httpx.AsyncClient) -> SfuHealth:
        return SfuHealth(Probe(client, self.clock), 20, self.reachable, clock=self.clock)


class Paths(MediaProbe):
    """What looks find, by host: `soon` first, one after the other, then `answers`; GOOD where nothing is said."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.answers: dict[str, Answer] = {}
        self.soon: dict[str, list[Answer]] = {}
        self.looks = 0

    async def look(
        self, at: LiveKitAt, node_id: str, media: tuple[str, int], within: float, hold: float = 0.0
    ) -> Reply:
        self.looks += 1
        soon = self.soon.get(media[0])
        answer = soon.pop(0) if soon else self.answers.get(media[0], Answer.GOOD)
        self._world.clock.now += within if answer is Answer.NO_MEDIA else 0.0
        return Reply(answer, 0.001 if answer is Answer.GOOD else None)


async def rounds(world: World, health: SfuHealth, target: PoolTarget, count: int = 1) -> None:
    for _ in range(count):
        world.clock.now += target.interval
        await health.round([target])
