"""The token endpoint against a real livekit-server: what is handed out, and every refusal."""

import json
import re
from typing import Any

import aiohttp
import jwt
import pytest
from talktime_gateway.rooms import Rooms
from talktime_gateway.tokens import SfuKeys

TOKEN = "/v1/projects/team/study/token"
TICKETS = "/v1/projects/team/study/tickets"
SECRET = "secret-of-at-least-thirty-two-characters"
MONEY = re.compile(r"cost|budget|usd|\$", re.IGNORECASE)


def claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"])
    return decoded


async def ticket(http: Any, as_: Any, **body: Any) -> str:
    answer = await http.post(TICKETS, headers=as_.server, json={"expires_in_sec": 3600, **body})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["ticket"])


async def test_a_stock_client_gets_a_room_and_a_token(gateway: Any, ledger: Any, node: Any, as_: Any) -> None:
    async with gateway() as http, aiohttp.ClientSession() as asking:
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert answer.status_code == 201
        assert set(answer.json()) == {"server_url", "participant_token"}
        assert answer.json()["server_url"] == node.url
        assert answer.headers["cache-control"] == "no-store"
        (session_id,) = ledger.open_ids()
        assert claims(answer.json()["participant_token"])["video"]["room"] == session_id
        assert await Rooms(asking, node.url, SfuKeys("APItest", SECRET)).names([session_id]) == {session_id}


async def test_an_empty_body_and_nulls_are_no_fields(gateway: Any, as_: Any) -> None:
    async with gateway() as http:
        assert (await http.post(TOKEN, headers=as_.server)).status_code == 201
        nulls = {"room_name": None, "participant_metadata": None}
        assert (await http.post(TOKEN, headers=as_.server, json=nulls)).status_code == 201


async def test_what_the_session_is_opened_with(gateway: Any, ledger: Any, as_: Any) -> None:
    async with gateway() as http:
        await http.post(TOKEN, headers=as_.server, json={"participant_key": "p-17", "participant_name": "Ada"})
        (session,) = ledger.sessions.values()
        assert session["participant_key"] == "p-17"
        assert session["provider"] == "main"
        assert session["media"]["pool"] == "eu"
        assert session["observers"] == [f"observer-{n}" for n in range(1, 9)]
        assert session["participant_identity"] == "participant-1"


@pytest.mark.parametrize(
    ("caller", "path", "status"),
    [
        ({}, TOKEN, 401),
        ({"Authorization": "Bearer junk"}, TOKEN, 401),
        ("nobody", TOKEN, 401),
        ("other", TOKEN, 401),
        ("nobody", "/v1/projects/team/absent/token", 401),
        ("server", "/v1/projects/team/absent/token", 404),
        ("server", "/v1/other", 404),
    ],
)
async def test_who_may_not(gateway: Any, ledger: Any, as_: Any, caller: Any, path: str, status: int) -> None:
    async with gateway() as http:
        headers = getattr(as_, caller) if isinstance(caller, str) else caller
        answer = await http.post(path, headers=headers, json={})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert not ledger.sessions


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"participant_identity": "me"}, "participant_identity"),
        ({"participant_metadata": "x"}, "participant_metadata"),
        ({"participant_attributes": {"a": "b"}}, "participant_attributes"),
        ({"room_config": {"agents": []}}, "room_config"),
        ({"anything": 1}, "anything"),
        ({"room_name": "my-room"}, "room_name"),
        ({"participant_name": 7}, "participant_name"),
        ({"participant_name": "x" * 200}, "participant_name"),
        ({"participant_key": "has space"}, "participant_key"),
        ({"previous_token": "x"}, "previous_token"),
        ({"room_name": "00000000-0000-4000-8000-000000000000"}, "room_name"),
    ],
)
async def test_a_field_that_is_not_the_clients_is_named(
    gateway: Any, ledger: Any, as_: Any, body: dict[str, Any], field: str
) -> None:
    async with gateway() as http:
        answer = await http.post(TOKEN, headers=as_.server, json=body)
        assert answer.status_code == 400
        assert answer.json()["field"] == field
        assert field in answer.json()["detail"]
        assert not ledger.sessions


@pytest.mark.parametrize("raw", [b"{", b"[]", b'"x"', b"[" * 5000, b" " * 20_000])
async def test_a_body_that_is_no_object(gateway: Any, as_: Any, raw: bytes) -> None:
    async with gateway() as http:
        assert (await http.post(TOKEN, headers=as_.server, content=raw)).status_code == 400


async def test_a_server_key_learns_why_money_says_no(gateway: Any, ledger: Any, as_: Any) -> None:
    ledger.refuse = {"reason": "BudgetExhausted", "available": "0.01", "needed": "0.05", "detail": "nothing left"}
    async with gateway() as http:
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert answer.status_code == 402
        told = answer.json()
        assert (told["reason"], told["available"], told["needed"]) == ("BudgetExhausted", "0.01", "0.05")
        assert "retry-after" not in answer.headers


async def test_a_provider_without_a_price_is_passed_over(gateway: Any, ledger: Any, as_: Any) -> None:
    ledger.refuse_providers = {"main"}
    async with gateway() as http:
        assert (await http.post(TOKEN, headers=as_.server, json={})).status_code == 201
        (session,) = ledger.sessions.values()
        assert session["provider"] == "spare"
        ledger.refuse_providers = {"main", "spare"}
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert (answer.status_code, answer.json()["reason"]) == (402, "PriceUnknown")


async def test_a_paused_project_admits_nobody_but_stays_known(gateway: Any, ledger: Any, as_: Any) -> None:
    ledger.projects[0]["paused"] = True
    async with gateway() as http:
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert (answer.status_code, answer.json()["reason"]) == (402, "Paused")


async def test_a_deleted_project_is_gone(gateway: Any, ledger: Any, as_: Any) -> None:
    ledger.projects[0]["deleted"] = True
    async with gateway() as http:
        assert (await http.post(TOKEN, headers=as_.server, json={})).status_code == 404


async def test_too_many_requests_with_one_key(gateway: Any, as_: Any) -> None:
    async with gateway(key_burst=2, key_rate_per_sec=0.001) as http:
        codes = [(await http.post(TOKEN, headers=as_.server, json={})) for _ in range(3)]
        assert [answer.status_code for answer in codes] == [201, 201, 429]
        assert 700 < int(codes[2].headers["retry-after"]) <= 1000  # less what the three have taken


def nodes(**states: str) -> list[dict[str, Any]]:
    return [{"name": name, "nodeID": name, "rooms": 3, "state": state} for name, state in states.items()]


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"nodes": nodes(a="Sick", b="Draining")}, 503, "NoNode"),
        ({"nodes": nodes(a="Ready")}, 429, "PoolFull"),
        ({"nodes": nodes(a="Sick"), "active": "Fallback"}, 503, "NoNode"),
        ({"name": "us"}, 503, "PoolUnknown"),
        ({"internalURL": "ws://127.0.0.1:9"}, 503, "RoomFailed"),
    ],
)
async def test_no_place_for_a_room(
    gateway: Any, ledger: Any, as_: Any, change: dict[str, Any], status: int, reason: str
) -> None:
    ledger.pools[0] |= change
    async with gateway(rooms_per_node=3) as http:
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert (answer.status_code, answer.json()["reason"]) == (status, reason)
        assert int(answer.headers["retry-after"]) >= 1
        assert ledger.open_ids() == [], "nothing stays reserved"


async def test_keys_not_mounted_yet_and_then_mounted(gateway: Any, keys_dir: Any, ledger: Any, as_: Any) -> None:
    file = keys_dir / "talktime.eu.json"
    keys = file.read_text()
    file.unlink()
    async with gateway() as http:
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert (answer.status_code, answer.json()["reason"]) == (503, "PoolKeysMissing")
        file.write_text(keys)
        assert (await http.post(TOKEN, headers=as_.server, json={})).status_code == 201
        file.write_text(json.dumps({"apiKey": "APIrotated", "apiSecret": "another-secret-another-secret-32"}))
        assert (await http.post(TOKEN, headers=as_.server, json={})).status_code == 503, "rotated keys are used at once"


async def test_without_the_ledger_nobody_is_admitted(gateway: Any, ledger: Any, as_: Any) -> None:
    async with gateway() as http:
        ledger.down = True
        answer = await http.post(TOKEN, headers=as_.server, json={})
        assert (answer.status_code, answer.json()["reason"]) == (503, "LedgerUnavailable")
        assert int(answer.headers["retry-after"]) >= 1


async def test_not_ready_before_the_first_directory(gateway: Any, ledger: Any, as_: Any, eventually: Any) -> None:
    ledger.down = True
    async with gateway() as http:
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.post(TOKEN, headers=as_.server, json={})).status_code == 503
        ledger.down = False

        async def ready() -> bool:
            return (await http.get("/readyz")).status_code == 200

        await eventually(ready)
        ledger.down = True
        assert (await http.get("/readyz")).status_code == 200, "the last good directory serves on"


async def test_a_ticket_opens_one_interview(gateway: Any, ledger: Any, as_: Any) -> None:
    async with gateway() as http:
        first = await ticket(http, as_, participant_key="p-3")
        assert first not in json.dumps(ledger.tickets), "only the hash leaves the gateway"
        answer = await http.post(TOKEN, params={"ticket": first}, json={})
        assert answer.status_code == 201
        (session,) = ledger.sessions.values()
        assert session["participant_key"] == "p-3"
        again = await http.post(TOKEN, params={"ticket": first}, json={})
        assert (again.status_code, again.json()["reason"]) == (401, "TicketUsed")
        second = await ticket(http, as_)
        assert (await http.post(TOKEN, headers=as_.of(second), json={})).status_code == 201


async def test_a_refused_ticket_opens_the_door_later(gateway: Any, ledger: Any, as_: Any) -> None:
    async with gateway() as http:
        mine = await ticket(http, as_)
        ledger.refuse = {"reason": "BudgetExhausted"}
        assert (await http.post(TOKEN, params={"ticket": mine}, json={})).status_code == 403
        ledger.refuse = None
        ledger.refuse_providers = {"main"}
        assert (await http.post(TOKEN, params={"ticket": mine}, json={})).status_code == 201


async def test_a_ticket_is_good_again_when_the_room_failed(
    gateway: Any, ledger: Any, as_: Any, seen_again: Any
) -> None:
    async with gateway() as http:
        mine = await ticket(http, as_)
        ledger.pools[0]["internalURL"] = "ws://127.0.0.1:9"
        await seen_again(ledger)
        for close_fails, tries in ((False, 2), (True, 1)):
            ledger.close_fails, before = close_fails, len(ledger.sessions)
            answer = await http.post(TOKEN, params={"ticket": mine}, json={})
            assert (answer.status_code, answer.json()["detail"]) == (503, "interview not available")
            assert len(ledger.sessions) - before == tries, "no second try while the first still has the ticket"
            if not close_fails:
                assert ledger.open_ids() == []


async def test_a_session_whose_agent_came_although_the_room_seemed_to_fail_is_kept(
    gateway: Any, ledger: Any, as_: Any, seen_again: Any
) -> None:
    ledger.attach_at_close = True
    async with gateway() as http:
        ledger.pools[0]["internalURL"] = "ws://127.0.0.1:9"
        await seen_again(ledger)
        answer = await http.post(TOKEN, params={"ticket": await ticket(http, as_)}, json={})
        assert answer.status_code == 201
        assert claims(answer.json()["participant_token"])["video"]["room"] in ledger.open_ids()


async def test_a_ticket_is_not_used_up_while_there_is_no_place(
    gateway: Any, ledger: Any, as_: Any, seen_again: Any
) -> None:
    async with gateway() as http:
        mine = await ticket(http, as_)
        ledger.pools[0]["nodes"] = nodes(a="Sick")
        await seen_again(ledger)
        assert (await http.post(TOKEN, params={"ticket": mine}, json={})).status_code == 503
        ledger.pools[0]["nodes"] = []
        await seen_again(ledger)
        assert (await http.post(TOKEN, params={"ticket": mine}, json={})).status_code == 201


@pytest.mark.parametrize(
    ("body", "field"), [({}, "expires_in_sec"), ({"expires_in_sec": 31 * 86400}, "expires_in_sec")]
)
async def test_a_ticket_has_a_bounded_life(gateway: Any, as_: Any, body: dict[str, Any], field: str) -> None:
    async with gateway() as http:
        answer = await http.post(TICKETS, headers=as_.server, json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, "expires_in_sec")


async def test_only_a_server_key_makes_tickets(gateway: Any, as_: Any) -> None:
    async with gateway() as http:
        for headers in (as_.observer, as_.other, {}):
            assert (await http.post(TICKETS, headers=headers, json={"expires_in_sec": 60})).status_code == 401


async def test_a_key_in_the_address_is_no_credential(gateway: Any, as_: Any) -> None:
    async with gateway() as http:
        key = as_.server["Authorization"].removeprefix("Bearer ")
        assert (await http.post(TOKEN, params={"ticket": key}, json={})).status_code == 401


async def test_a_ticket_holder_never_reads_of_money(gateway: Any, ledger: Any, as_: Any, seen_again: Any) -> None:
    """Law 8: every answer a ticket can get, its headers, and what the token says."""
    refusals = [
        {"reason": "BudgetExhausted", "available": "0.01", "needed": "0.05", "detail": "budget is spent: $0.01"},
        {"reason": "ParticipantLimit", "detail": "cost limit of the participant"},
        {"reason": "Paused", "detail": "budget paused"},
    ]
    told, bodies = [], set()
    async with gateway() as http:
        for refusal in refusals:
            ledger.refuse = refusal
            answer = await http.post(TOKEN, params={"ticket": await ticket(http, as_)}, json={})
            assert answer.status_code == 403
            told.append(answer)
            bodies.add(answer.text)
        assert len(bodies) == 1, "the cause cannot be told from the answer"
        assert json.loads(bodies.pop())["detail"] == "interview not available"
        ledger.refuse = None
        spare = await ticket(http, as_)
        for body in ({"participant_key": "x"}, {"participant_metadata": "y"}):
            told.append(await http.post(TOKEN, params={"ticket": spare}, json=body))
        told.append(await http.post(TOKEN, params={"ticket": "ttt_" + "u" * 43}, json={}))
        told.append(await http.post("/v1/projects/team/absent/token", params={"ticket": spare}, json={}))
        ledger.pools[0]["internalURL"] = "ws://127.0.0.1:9"
        await seen_again(ledger)
        told.append(await http.post(TOKEN, params={"ticket": spare}, json={}))
        ledger.pools[0]["internalURL"] = ledger.pool_url
        await seen_again(ledger)
        granted = await http.post(TOKEN, params={"ticket": await ticket(http, as_)}, json={})
    assert [answer.status_code for answer in told] == [403, 403, 403, 400, 400, 401, 404, 503]
    for answer in told:
        assert not MONEY.search(answer.text), answer.text
        assert "payment" not in answer.reason_phrase.lower()
        assert not MONEY.search(json.dumps(dict(answer.headers)))
        assert "0.01" not in answer.text
    assert granted.status_code == 201
    assert not MONEY.search(json.dumps(claims(granted.json()["participant_token"])))
    assert not MONEY.search(granted.json()["server_url"])


async def test_browsers_may_ask(gateway: Any, as_: Any) -> None:
    asked = {"Origin": "https://study.example", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type,x-talktime-previous-token"
    async with gateway() as http:
        preflight = await http.options(TOKEN, headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "*"
    async with gateway(cors_origins=("https://mine.example",)) as http:
        assert (await http.options(TOKEN, headers=asked)).status_code == 400


async def test_credentials_reach_no_log_and_no_metric(gateway: Any, as_: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="talktime_gateway")
    async with gateway() as http:
        mine = await ticket(http, as_)
        answer = await http.post(TOKEN, params={"ticket": mine}, json={})
        await http.post(TOKEN, headers=as_.nobody, json={})
        metrics = (await http.get("/metrics")).text
    ours = [record for record in caplog.records if record.name.startswith("talktime_gateway")]
    lines = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in ours)
    assert "team/study" in lines
    secrets = [
        mine,
        answer.json()["participant_token"],
        *(h["Authorization"].split()[1] for h in (as_.server, as_.nobody)),
    ]
    for secret in secrets:
        assert secret not in lines
        assert secret not in metrics
    assert 'talktime_gateway_refusals_total{namespace="team",project="study",reason="CredentialInvalid"} 1.0' in metrics
    assert 'talktime_gateway_sessions_opened_total{namespace="team",project="study",provider="main"} 1.0' in metrics


async def test_a_server_key_reads_its_own_sessions(gateway: Any, ledger: Any, as_: Any) -> None:
    async with gateway() as http:
        await http.post(TOKEN, headers=as_.server, json={})
        (session_id,) = ledger.sessions
        mine = await http.get(f"/v1/sessions/{session_id}", headers=as_.server)
        assert (mine.status_code, mine.json()["state"], mine.json()["limit"]) == (200, "open", "0.1")
        assert (await http.get(f"/v1/sessions/{session_id}", headers=as_.other)).status_code == 404
        assert (await http.get(f"/v1/sessions/{session_id}", headers=as_.observer)).status_code == 401
        assert (await http.get("/v1/sessions/nonsense", headers=as_.server)).status_code == 404
