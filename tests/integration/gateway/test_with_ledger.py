"""Gateway, console, the real ledger on PostgreSQL and a real livekit-server: an interview's way up to the agent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from livekit import rtc
from talktime_console.cli import main
from talktime_ledger.client import Fenced
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.resources.rate_card import RateCardSpec
from talktime_ledger.wire import AccessKey, Attach, PoolPush, ProjectPush

CARDS = Path(__file__).parents[3] / "examples" / "rate-cards"
SERVER_KEY, OBSERVER_KEY = "tts_" + "r" * 43, "tto_" + "q" * 43
FAST = {"census_interval_sec": 0.2, "transport_interval_sec": 0.2, "join_timeout_sec": 2.0, "redispatch_after_sec": 0.5}


def spec(amount: str = "10") -> ProjectSpec:
    provider = {
        "name": "main",
        "api": "OpenAIRealtime",
        "model": "gpt-realtime-2.1-mini",
        "secretRef": {"name": "keys"},
        "caps": {"contextTokens": 1000, "responseSeconds": 10},
    }
    return ProjectSpec.model_validate(
        {
            "budget": {"amount": amount, "session": {"limit": "0.10"}},
            "providers": [provider],
            "agent": {"instructions": "Ask three questions."},
            "media": {"poolRef": {"name": "eu"}},
        }
    )


def push(amount: str = "10", uid: str = "u", *, paused: bool = False) -> ProjectPush:
    keys = (("server", SERVER_KEY), ("observer", OBSERVER_KEY))
    return ProjectPush(
        uid=uid,
        generation=1,
        paused=paused,
        instructions="Ask three questions.",
        accessKeys=tuple(
            AccessKey.model_validate({"id": kind, "kind": kind, "sha256": hashlib.sha256(key.encode()).hexdigest()})
            for kind, key in keys
        ),
        spec=spec(amount),
    )


@pytest.fixture
async def operator(real_ledger: Any, node: Any) -> AsyncIterator[Any]:
    """The operator's client, after it told the ledger prices and the pool."""
    async with real_ledger.client("operator") as client:
        for name in ("gpt-realtime-2.1-mini", "gpt-4o-mini-transcribe", "livekit-self-hosted", "livekit-cloud"):
            card = yaml.safe_load((CARDS / f"{name}.yaml").read_text())
            await client.put_rate_card(name, RateCardSpec.model_validate(card["spec"]))
        await client.put_pool("talktime", "eu", PoolPush(publicURL=node.url, internalURL=node.url, health="good"))
        yield client


def session_of(answer: Any) -> str:
    claims = jwt.decode(answer.json()["participant_token"], options={"verify_signature": False})
    return str(claims["video"]["room"])


async def test_an_interview_is_reserved_for_opened_and_released_when_nobody_comes(
    gateway: Any, real_ledger: Any, operator: Any, as_: Any, eventually: Any
) -> None:
    await operator.put_project("it", "noshow", push())
    async with gateway(client=real_ledger.client("gateway")) as http:  # whose rounds close nothing yet
        answer = await http.post("/v1/projects/it/noshow/token", headers=as_.of(SERVER_KEY), json={})
        assert answer.status_code == 201, answer.text
        held = (await operator.project("it", "noshow")).budget
        assert held.reserved > 0
        assert held.available == Decimal(10) - held.reserved
        status = await http.get(f"/v1/sessions/{session_of(answer)}", headers=as_.of(SERVER_KEY))
        assert (status.json()["state"], status.json()["media"]["pool"]) == ("open", "eu")
    async with gateway(client=real_ledger.client("gateway"), **FAST) as http:

        async def released() -> bool:
            budget = (await operator.project("it", "noshow")).budget
            return bool(budget.reserved == 0 and budget.available == Decimal(10))

        await eventually(released)
        status = await http.get(f"/v1/sessions/{session_of(answer)}", headers=as_.of(SERVER_KEY))
        assert (status.json()["state"], status.json()["close_reason"]) == ("closed", "nobody_joined")


async def test_when_the_room_fails_nothing_stays_reserved(
    gateway: Any, real_ledger: Any, operator: Any, as_: Any, node: Any
) -> None:
    await operator.put_project("it", "noroom", push())
    await operator.put_pool("talktime", "eu", PoolPush(publicURL=node.url, internalURL="ws://127.0.0.1:9"))
    async with gateway(client=real_ledger.client("gateway")) as http:
        answer = await http.post("/v1/projects/it/noroom/token", headers=as_.of(SERVER_KEY), json={})
        assert (answer.status_code, answer.json()["reason"]) == (503, "RoomFailed")
        assert (await operator.project("it", "noroom")).budget.reserved == 0


async def test_a_spent_budget_refuses_with_numbers_or_neutrally(
    gateway: Any, real_ledger: Any, operator: Any, as_: Any
) -> None:
    await operator.put_project("it", "spent", push(amount="0.10"))
    url = "/v1/projects/it/spent"
    async with gateway(client=real_ledger.client("gateway")) as http:
        tickets = await http.post(f"{url}/tickets", headers=as_.of(SERVER_KEY), json={"expires_in_sec": 60})
        assert tickets.status_code == 201, tickets.text
        answers = [await http.post(f"{url}/token", headers=as_.of(SERVER_KEY), json={}) for _ in range(12)]
        assert answers[0].status_code == 201
        assert answers[-1].status_code == 402
        told = answers[-1].json()
        assert told["reason"] == "BudgetExhausted"
        assert Decimal(told["available"]) < Decimal(told["needed"])
        budget = (await operator.project("it", "spent")).budget
        assert budget.posted + budget.reserved <= Decimal("0.10")
        refused = await http.post(f"{url}/token", params={"ticket": tickets.json()["ticket"]}, json={})
        assert (refused.status_code, refused.json()["detail"]) == (403, "interview not available")
        assert (await operator.project("it", "spent")).sessions.refused["BudgetExhausted"] >= 2


async def test_a_ticket_works_once_and_only_when_there_is_an_interview(
    gateway: Any, real_ledger: Any, operator: Any, as_: Any
) -> None:
    await operator.put_project("it", "invited", push())
    url = "/v1/projects/it/invited"
    async with gateway(client=real_ledger.client("gateway")) as http:
        await operator.put_project("it", "invited", push(paused=True))
        body = {"expires_in_sec": 60, "participant_key": "p-1"}
        ticket = (await http.post(f"{url}/tickets", headers=as_.of(SERVER_KEY), json=body)).json()["ticket"]
        early = await http.post(f"{url}/token", params={"ticket": ticket}, json={})
        assert (early.status_code, early.json()["detail"]) == (403, "interview not available")
        await operator.put_project("it", "invited", push())
        raced = await asyncio.gather(*(http.post(f"{url}/token", params={"ticket": ticket}, json={}) for _ in range(4)))
        while not any(answer.status_code == 201 for answer in raced):  # the directory may still say paused
            await asyncio.sleep(0.3)  # below the gateway's rate limit: a 429 would hide what is asked here
            raced = [await http.post(f"{url}/token", params={"ticket": ticket}, json={}) for _ in range(2)]
        assert sum(answer.status_code == 201 for answer in raced) == 1
        again = await http.post(f"{url}/token", params={"ticket": ticket}, json={})
        assert (again.status_code, again.json()["reason"]) == (401, "TicketUsed")
        stranger = await http.post(f"{url}/token", params={"ticket": "ttt_" + "z" * 43}, json={})
        assert (stranger.status_code, stranger.json()["reason"]) == (401, "TicketUnknown")


async def test_a_waiting_participant_is_dispatched_again_and_costs_nothing_meanwhile(
    gateway: Any, real_ledger: Any, operator: Any, as_: Any, eventually: Any
) -> None:
    await operator.put_project("it", "waiting", push())
    ledger = real_ledger.client("gateway")
    agent = real_ledger.client("system:serviceaccount:it:talktime-agent-waiting")
    patient = FAST | {"join_timeout_sec": 60}  # until the participant is in
    async with gateway(client=ledger, **patient) as http, agent:
        answer = await http.post("/v1/projects/it/waiting/token", headers=as_.of(SERVER_KEY), json={})
        session_id = session_of(answer)
        room = rtc.Room()
        await room.connect(answer.json()["server_url"], answer.json()["participant_token"])

        async def again() -> bool:
            return bool((await ledger.session(session_id)).epoch >= 3)

        await eventually(again)
        budget = (await operator.project("it", "waiting")).budget
        assert budget.posted == 0
        epoch = await attached(agent, ledger, session_id)

        async def counted() -> bool:
            costs = (await ledger.session(session_id)).costs or ()
            return any(cost.transport_cost > 0 for cost in costs)

        await eventually(counted)
        await room.disconnect()
        session = await ledger.session(session_id)
        assert (session.state, session.epoch) == ("open", epoch), "an attached session is the agent's"


async def attached(agent: Any, ledger: Any, session_id: str) -> int:
    """An agent attaches with the present epoch, which the watcher may be raising meanwhile."""
    while True:
        epoch = int((await ledger.session(session_id)).epoch)
        try:
            await agent.attach(session_id, Attach(epoch=epoch, worker="w"))
        except Fenced:
            continue
        return epoch


async def test_finance_reads_it_on_the_command_line(
    gateway: Any,
    real_ledger: Any,
    operator: Any,
    as_: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await operator.put_project("it", "finance", push())
    async with gateway(client=real_ledger.client("gateway")) as http:
        await http.post("/v1/projects/it/finance/token", headers=as_.of(SERVER_KEY), json={})
    monkeypatch.setenv("TALKTIME_LEDGER_URL", real_ledger.url)
    monkeypatch.setenv("TALKTIME_TOKEN_FILE", str(real_ledger.token_file("console")))

    def talktime(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["talktime", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    async def run(*arguments: str) -> tuple[int, str]:
        return await asyncio.to_thread(talktime, *arguments)

    code, told = await run("sessions", "--project", "it/finance", "--output", "json")
    (session,) = json.loads(told)["sessions"]
    assert (code, session["project"], session["ended"]) == (0, "it/finance", "waiting for an agent")
    code, told = await run("report", "--project", "it/finance", "--by", "day,model", "-o", "json")
    (budget,) = json.loads(told)["budgets"]
    assert (code, budget["budget_usd"], budget["spent_usd"], budget["state"]) == (0, "10.0000", "0.0000", "OK")
    assert (await run("report", "--namespace", "it"))[0] == 0
    assert (await run("report", "--project", "it/absent"))[0] == 1
