"""Single questions to a livekit-server and a Redis. A new connection each: only so is a hung one told from a cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import jwt

from talktime_operator.pools.health import Answer
from talktime_operator.redis_probe import RedisAt, ping

NOBODY = "talktime-health"
"""A room that does not exist: ListRooms of it is the cheapest call that goes through the room service to its store."""

TOKEN_SECONDS = 60
STALE_STATS = 406
CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class LiveKitAt:
    """A LiveKit by URL (http or ws) and keys."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """What was answered. `seconds` None: nothing."""

    answer: Answer
    seconds: float | None = None
    text: str = ""


class Probe:
    """Asks; never raises."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._clock = clock
        self._wall = wall

    async def get(self, url: str, within: float) -> Reply:
        """GET within so many seconds; 200 is good, 406 stale."""
        return await self._http(lambda: self._client.get(url, timeout=within, headers=CLOSE), within)

    async def list_rooms(self, at: LiveKitAt, within: float) -> Reply:
        """ListRooms through LiveKit's room service."""
        url = at.url.replace("ws", "http", 1) if at.url.startswith("ws") else at.url
        claims = {"iss": at.api_key, "exp": int(self._wall()) + TOKEN_SECONDS, "video": {"roomList": True}}
        headers = {"Authorization": f"Bearer {jwt.encode(claims, at.api_secret, 'HS256')}", **CLOSE}
        where = f"{url.rstrip('/')}/twirp/livekit.RoomService/ListRooms"
        return await self._http(
            lambda: self._client.post(where, json={"names": [NOBODY]}, headers=headers, timeout=within), within
        )

    async def ping(self, at: RedisAt, within: float) -> Reply:
        """Asks a Redis as the nodes do."""
        started = self._clock()
        try:
            async with asyncio.timeout(within):
                answer = await ping(at)
        except TimeoutError:
            return Reply(Answer.HUNG)
        except ConnectionError:
            return Reply(Answer.REFUSED)
        except (OSError, ValueError):
            return Reply(Answer.SILENT)
        return Reply(answer, self._clock() - started)

    async def _http(self, ask: Callable[[], Awaitable[httpx.Response]], within: float) -> Reply:
        started = self._clock()
        try:
            async with asyncio.timeout(2 * within):
                response = await ask()
        except httpx.ConnectTimeout:
            return Reply(Answer.SILENT)
        except (httpx.TimeoutException, TimeoutError):
            return Reply(Answer.HUNG)
        except httpx.ConnectError as error:
            return Reply(Answer.REFUSED if _refused(error) else Answer.SILENT)
        except httpx.HTTPError:
            return Reply(Answer.REFUSED)
        took = self._clock() - started
        if response.status_code == STALE_STATS:
            return Reply(Answer.STALE, took)
        return Reply(Answer.GOOD if response.status_code == 200 else Answer.WRONG, took, response.text)


def _refused(error: BaseException) -> bool:
    """Whether the machine itself said no, anywhere in the chain of causes."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionRefusedError | ConnectionResetError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
