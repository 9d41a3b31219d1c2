"""A load generator that costs little: one keep-alive connection per client, no framework, its own CPU counted."""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

METERS = '{"audio_in":50,"audio_cached_in":200,"text_in":20,"text_cached_in":100,"audio_out":100}'


class Line(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if not found or self._waiting is None:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        assert at >= 0, "an answer without a length"
        if self._waiting.done():
            return
        if len(body) >= int(lower[at + 15 :].split(b"\r\n", 1)[0]):
            waiting, self._waiting, self._seen = self._waiting, None, b""
            waiting.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(f"the server hung up: {error}"))

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body."""
        assert self._transport is not None and self._waiting is None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()


@dataclass
class Agent:
    """One session and its next `use`."""

    session_id: str
    token: str
    n: int = 0
    told_to_wait: int = 0
    took: list[float] = field(default_factory=list)

    def request(self) -> bytes:
        """One metered response posted, one renewal wanted."""
        self.n += 1
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return use_request(self.session_id, self.token, self.n, now)


def use_request(session_id: str, token: str, n: int, now: str) -> bytes:
    """The bytes of one `use` with one usage, whose key ends with n and is the session's own, as a provider's is."""
    body = (
        f'{{"epoch":1,"n":{n},"usages":[{{"key":"sess_{session_id}/resp_{n}","kind":"response","provider":"main",'
        f'"model":"gpt-realtime-mini","meters":{METERS},"occurred_at":"{now}"}}],'
        f'"in_flight":"0","want":"0","turns":1}}'
    )
    return (
        f"POST /v1/sessions/{session_id}/use HTTP/1.1\r\nHost: ledger\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run found; `cpu_share`: of one core, by the generator itself."""

    per_second: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    calls: int
    cpu_share: float


async def connected(ports: Sequence[int], count: int) -> list[Line]:
    """Open connections, spread over the servers."""
    loop = asyncio.get_running_loop()
    lines = []
    for index in range(count):
        _, line = await loop.create_connection(Line, "127.0.0.1", ports[index % len(ports)])
        lines.append(line)
    return lines


async def without_pause(ports: Sequence[int], agents: Sequence[Agent], warm_sec: float, seconds: float) -> Measured:
    """Every agent asks again as soon as it was answered."""
    lines = await connected(ports, len(agents))

    async def run(line: Line, agent: Agent, until: float) -> None:
        while time.perf_counter() < until:
            begun = time.perf_counter()
            await answered(line, agent)
            agent.took.append(time.perf_counter() - begun)

    async def all_run(length: float) -> None:
        until = time.perf_counter() + length
        await asyncio.gather(*(run(line, agent, until) for line, agent in zip(lines, agents, strict=True)))

    await all_run(warm_sec)
    return await _measured(lines, agents, lambda: all_run(seconds))


async def at_intervals(
    ports: Sequence[int], agents: Sequence[Agent], every_sec: float, seconds: float, chance: random.Random
) -> Measured:
    """Every agent asks each `every_sec`, at a phase of its own; a call's time counts from when it was due."""
    begun = time.perf_counter() + 0.2
    lines: list[Line] = []

    async def run(port: int, agent: Agent, due: float) -> None:
        # Dialled when it is first due, like an agent: the ledger hangs up on who says nothing.
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        (line,) = await connected([port], 1)
        lines.append(line)
        while due < begun + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await answered(line, agent)
            agent.took.append(time.perf_counter() - due)
            due += every_sec

    async def all_run() -> None:
        spread = [ports[index % len(ports)] for index in range(len(agents))]
        phases = [begun + chance.uniform(0, every_sec) for _ in agents]
        await asyncio.gather(*(run(*one) for one in zip(spread, agents, phases, strict=True)))

    return await _measured(lines, agents, all_run)


async def answered(line: Line, agent: Agent) -> None:
    """One call, asked again with the same number while the ledger says 503; AssertionError unless it was granted."""
    request = agent.request()
    status, body = await line.ask(request)
    while status == 503:
        agent.told_to_wait += 1
        await asyncio.sleep(0.2)
        status, body = await line.ask(request)
    assert status == 200, (status, body[:500])


async def _measured(lines: Sequence[Line], agents: Sequence[Agent], run: Callable[[], object]) -> Measured:
    for agent in agents:
        agent.took.clear()
    cpu, begun = _cpu(), time.perf_counter()
    await run()  # type: ignore[misc] # a coroutine
    seconds, cpu = time.perf_counter() - begun, _cpu() - cpu
    for line in lines:
        line.close()
    took = sorted(value * 1000 for agent in agents for value in agent.took)
    cuts = statistics.quantiles(took, n=100)
    return Measured(len(took) / seconds, cuts[49], cuts[98], took[-1], len(took), cpu / seconds)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Trivial(asyncio.Protocol):
    """A server that does nothing but answer: what the generator could ask for at most."""

    ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 600\r\n\r\n" + b" " * 600

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self.ANSWER)


async def serve_trivially(port: int) -> None:
    """Until cancelled."""
    server = await asyncio.get_running_loop().create_server(Trivial, "127.0.0.1", port)
    await server.serve_forever()
