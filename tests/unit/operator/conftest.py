"""Specs and observations as plain values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from talktime_ledger.resources.pool import Ports, SFUPoolSpec
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire import ProjectStatus
from talktime_operator.names import Key, Owner
from talktime_operator.observed import Pod
from talktime_operator.sfu_health import SfuHealth
from talktime_operator.sfu_reading import PoolTarget, Target

from tests.unit.operator.played_sfus import EU, World


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def key() -> Key:
    return Key("team", "study")


@pytest.fixture
def owner() -> Owner:
    return Owner("talktime.dev/v1alpha1", "Project", "study", "uid-1")


@pytest.fixture
def pool_key() -> Key:
    return Key("talktime", "eu")


@pytest.fixture
def pool_owner() -> Owner:
    return Owner("talktime.dev/v1alpha1", "SFUPool", "eu", "uid-2")


@pytest.fixture
def project_spec() -> Callable[..., ProjectSpec]:
    def make(**agent: Any) -> ProjectSpec:
        return ProjectSpec.model_validate(
            {
                "budget": {"amount": "5", "session": {"limit": "0.50"}},
                "providers": [
                    {"name": "openai", "api": "OpenAIRealtime", "model": "mini", "secretRef": {"name": "openai"}},
                    {
                        "name": "backup",
                        "api": "GeminiLive",
                        "model": "live",
                        "secretRef": {"name": "google", "key": "token"},
                    },
                ],
                "agent": {"instructions": "Ask.", **agent},
                "media": {"poolRef": {"name": "eu"}},
            }
        )

    return make


@pytest.fixture
def pool_spec() -> Callable[..., SFUPoolSpec]:
    return lambda **fields: SFUPoolSpec.model_validate(fields)


@pytest.fixture
def pod() -> Callable[..., Pod]:
    def make(name: str, **changes: Any) -> Pod:
        fields: dict[str, Any] = {
            "key": Key("team", name),
            "uid": f"uid-{name}",
            "project": "study",
            "pool": "",
            "component": "agent",
            "ip": "10.0.0.1",
            "host_ip": "10.1.0.1",
            "node": "node-1",
            "phase": "Running",
            "ready": True,
            "terminating": False,
            "deletion_cost": "",
            "waiting": (),
        }
        return Pod(**(fields | changes))

    return make


@pytest.fixture
def ledger_status(now: datetime) -> Callable[..., ProjectStatus]:
    def make(**changes: Any) -> ProjectStatus:
        return ProjectStatus.model_validate(
            {
                "namespace": "team",
                "name": "study",
                "budget": {
                    "amount": "5",
                    "posted": "1.2345678",
                    "reserved": "0.5",
                    "available": "3.2654322",
                    "state": "OK",
                    "period": "Total",
                    "forecast": "2",
                },
                "sessions": {"open": 2, "waiting": 1, "attached": 1, "completed": 7},
                "prices": [{"provider": "openai", "model": "mini", "known": True}],
                "feasible": {"ok": True},
                "ledgerTime": now,
                **changes,
            }
        )

    return make


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def health(world: World) -> AsyncIterator[SfuHealth]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(world.answer)) as client:
        yield world.health(client)


@pytest.fixture
def pool(pod: Callable[..., Pod]) -> Callable[..., PoolTarget]:
    def make(*names: str, takes: tuple[bool, ...] = (), threshold: int = 3, **changes: Any) -> PoolTarget:
        pods = [pod(n, pool="eu", component="sfu", host_ip=n) for n in names]
        draining = dict(zip(names, takes, strict=False))
        nodes = tuple(Target(p, EU, Ports(), threshold, draining.get(p.key.name, True)) for p in pods)
        return PoolTarget(EU, nodes, 1.0, threshold, ("key", "a-secret-of-at-least-thirty-two-bytes"), **changes)

    return make
