"""A switch that the status does not tell, because the API server was away when it was decided."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from talktime_ledger.client import LedgerClient
from talktime_ledger.resources.pool import SFUPoolSpec
from talktime_operator.ledger_sync import LedgerSync
from talktime_operator.names import Key
from talktime_operator.observed import Resource
from talktime_operator.pools.failover import Active, Reason
from talktime_operator.pools.last_word import LastWord

AUTO = {"mode": "Auto", "url": "wss://x", "secretRef": {"name": "cloud"}}


class Ledger:
    """Answers about the one pool, or does not."""

    def __init__(self) -> None:
        self.pushed: str | None = None
        self.status = 404
        self.asked = 0

    def __call__(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.pushed is None:
            return httpx.Response(self.status, json={})
        return httpx.Response(200, json={"publicURL": "wss://a", "internalURL": "ws://a", "active": self.pushed})


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def word(ledger: Ledger) -> LastWord:
    client = LedgerClient("http://ledger", token="t", transport=httpx.MockTransport(ledger), patience_sec=0.0)
    return LastWord(LedgerSync(client, 5.0, lambda _: None, lambda: None))


@pytest.fixture
def pool(pool_key: Key, pool_spec: Callable[..., SFUPoolSpec]) -> Callable[..., Resource[SFUPoolSpec]]:
    def make(uid: str = "uid-2", **fields: Any) -> Resource[SFUPoolSpec]:
        status = {"active": fields.pop("active", Active("SelfHosted", _day(-1)).render()), "desired": 2}
        return Resource(pool_key, uid, 1, False, pool_spec(**({"fallback": AUTO} | fields)), "", status, False)

    return make


def _day(days: int) -> datetime:
    return datetime.fromisoformat("2026-11-22T12:00:00+00:00") + timedelta(days=days)


async def asked(word: LastWord, pool: Resource[SFUPoolSpec], now: datetime) -> tuple[str, bool]:
    assert pool.spec is not None
    seen, known = await word.of(pool, pool.spec, now)
    return seen.status["active"]["target"], known


async def test_what_gateways_heard_last_counts_more_than_an_old_status(
    word: LastWord, ledger: Ledger, pool: Any, now: datetime
) -> None:
    ledger.pushed = "Fallback"
    seen, known = await word.of(pool(), pool().spec, now)
    active = Active.parse(seen.status["active"], now)
    assert known
    assert (active.target, active.reason, active.since) == ("Fallback", Reason.TAKEN_OVER, now)
    assert seen.status["desired"] == 2, "all else is as it was"


async def test_while_the_ledger_is_not_heard_nothing_is_known(
    word: LastWord, ledger: Ledger, pool: Any, now: datetime
) -> None:
    ledger.status = 503
    assert await asked(word, pool(), now) == ("SelfHosted", False)
    ledger.pushed = "Fallback"
    assert await asked(word, pool(), now) == ("Fallback", True)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_new_pool_and_an_older_ledger_have_nothing_to_tell(
    word: LastWord, ledger: Ledger, pool: Any, now: datetime, status: int
) -> None:
    ledger.status = status
    assert await asked(word, pool(), now) == ("SelfHosted", True)


async def test_what_this_operator_decided_it_remembers_whatever_the_status_says(
    word: LastWord, ledger: Ledger, pool: Any, now: datetime
) -> None:
    word.keep(pool(), Active("Fallback", now, Reason.POOL_SICK, "sick", 1))
    assert await asked(word, pool(), now + timedelta(minutes=1)) == ("Fallback", True)
    assert ledger.asked == 0
    assert await asked(word, pool("uid-of-another-one"), now) == ("SelfHosted", True)
    word.forget(pool().key)
    assert await asked(word, pool(), now) == ("SelfHosted", True)


async def test_a_pool_without_a_fallback_and_one_that_is_there_ask_nobody(
    word: LastWord, ledger: Ledger, pool: Any, now: datetime
) -> None:
    await asked(word, pool(fallback={"mode": "Never"}), now)
    assert await asked(word, pool(active=Active("Fallback", now).render()), now) == ("Fallback", True)
    assert ledger.asked == 0
