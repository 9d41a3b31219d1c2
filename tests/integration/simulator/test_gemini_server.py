"""Gemini Live on the raw wire: what no client library sends by itself, and the bills over what was used."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from .conftest import Simulator

SETUP = {"setup": {"model": "models/gemini-3.8-live", "generationConfig": {"maxOutputTokens": 60}}}
ASK = {"clientContent": {"turns": [{"role": "user", "parts": [{"text": "Say hello."}]}], "turnComplete": True}}
PRICES = {
    "models": {
        "gemini-3.8-live": {
            "text_in": "0.75", "audio_in": "3", "unassigned_in": "3", "text_out": "4.5", "audio_out": "12",
            "thoughts_out": "4.5",
        }
    }
}  # fmt: skip


def url(simulator: Simulator, version: str = "v1beta", key: str = "anything") -> str:
    method = f"google.ai.generativelanguage.{version}.GenerativeService.BidiGenerateContent"
    return f"{simulator.url}/ws/{method}?key={key}"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def told(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    message = await socket.receive(timeout=60)
    assert message.type is aiohttp.WSMsgType.BINARY, message
    return dict(json.loads(message.data))


async def turn(socket: aiohttp.ClientWebSocketResponse) -> list[dict[str, Any]]:
    """Everything until the turn is complete."""
    messages: list[dict[str, Any]] = []
    while not (messages and messages[-1].get("serverContent", {}).get("turnComplete")):
        messages.append(await told(socket))
    return messages


@pytest.mark.parametrize("version", ["v1", "v1beta", "v1alpha"])
async def test_every_version_of_the_path_takes_the_key_in_the_address(
    simulator: Simulator, http: aiohttp.ClientSession, version: str
) -> None:
    async with http.ws_connect(url(simulator, version)) as socket:
        await socket.send_json(SETUP)
        assert (await told(socket))["setupComplete"]["sessionId"]
        await socket.send_json({"client_content": {"turns": ASK["clientContent"]["turns"], "turn_complete": True}})
        last = (await turn(socket))[-1]
    assert last["usageMetadata"]["responseTokenCount"] <= 60
    assert "sessionResumptionUpdate" not in last


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ([json.dumps(ASK)], 1007),
        (["{"], 1007),
        (["[]"], 1007),
        ([json.dumps(SETUP), json.dumps({"hello": 1})], 1007),
        ([json.dumps(SETUP), json.dumps({"realtimeInput": {"activityStart": {}}})], 1007),
        ([json.dumps(SETUP), json.dumps({"realtimeInput": {"audio": {"data": "%%", "mimeType": "audio/pcm"}}})], 1007),
        ([json.dumps(SETUP), json.dumps({"realtimeInput": {"audio": {"data": "", "mimeType": "audio/opus"}}})], 1007),
        ([json.dumps(SETUP), json.dumps({"clientContent": {"turns": [{"role": "system", "parts": []}]}})], 1007),
        ([json.dumps({"setup": {**SETUP["setup"], "sessionResumption": {"handle": "unknown"}}})], 1008),
    ],
)
async def test_what_it_does_not_take_closes_the_connection(
    simulator: Simulator, http: aiohttp.ClientSession, sent: list[str], code: int
) -> None:
    async with http.ws_connect(url(simulator)) as socket:
        for text in sent:
            await socket.send_str(text)
        while (await socket.receive(timeout=60)).type is aiohttp.WSMsgType.BINARY:
            pass
        assert socket.close_code == code
    assert simulator.lines("/truth") == []


async def test_content_interrupts_and_an_unheard_answer_is_billed(
    simulator: Simulator, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect(url(simulator)) as socket:
        await socket.send_json(SETUP)
        await told(socket)
        await socket.send_json(ASK)
        await socket.send_json(ASK)
        first, second = await turn(socket), await turn(socket)
    assert first[0]["serverContent"] == {"interrupted": True}
    unheard = first[-1]["usageMetadata"]
    assert "responseTokenCount" not in unheard
    assert unheard["promptTokenCount"] < second[-1]["usageMetadata"]["promptTokenCount"]
    truth = simulator.lines("/truth")
    assert [(record["status"], record["delivered"]) for record in truth] == [("cancelled", True), ("incomplete", True)]


async def test_a_rate_limited_key_is_refused_with_429(simulator: Simulator, http: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await http.ws_connect(url(simulator, key="sim-429-x"))
    assert refusal.value.status == 429


async def test_silence_counts_only_when_all_input_is_the_turn(
    simulator: Simulator, http: aiohttp.ClientSession
) -> None:
    async def heard(coverage: str) -> int:
        manual = {"automaticActivityDetection": {"disabled": True}, "turnCoverage": coverage}
        async with http.ws_connect(url(simulator)) as socket:
            await socket.send_json({"setup": {**SETUP["setup"], "realtimeInputConfig": manual}})
            await told(socket)
            second = {"data": base64.b64encode(bytes(32_000)).decode(), "mimeType": "audio/pcm;rate=16000"}
            for message in ({"audio": second}, {"activityStart": {}}, {"audio": second}, {"activityEnd": {}}):
                await socket.send_json({"realtimeInput": message})
            usage = (await turn(socket))[-1]["usageMetadata"]
        return int(next(d["tokenCount"] for d in usage["promptTokensDetails"] if d["modality"] == "AUDIO"))

    assert await heard("TURN_INCLUDES_ONLY_ACTIVITY") == 25
    assert await heard("TURN_INCLUDES_ALL_INPUT") == 50


async def test_the_bills_of_both_clouds_come_from_the_same_truth(
    simulator: Simulator, http: aiohttp.ClientSession
) -> None:
    assert simulator.send("GET", "/invoice?format=nonsense")[0] == 400
    async with http.ws_connect(url(simulator)) as socket:
        await socket.send_json(SETUP)
        await told(socket)
        await socket.send_json(ASK)
        await turn(socket)
    (record,) = simulator.lines("/truth")
    due = sum(
        Decimal(PRICES["models"]["gemini-3.8-live"][meter]) * count / 1_000_000
        for meter, count in record["meters"].items()
    )
    assert simulator.send("POST", "/prices", PRICES)[0] == 204
    rows = simulator.lines("/invoice?format=gcp-standard&project=study-7")
    assert sum(Decimal(str(row["cost"])) for row in rows) == pytest.approx(due, abs=Decimal("1e-12"))
    assert {row["project"]["id"] for row in rows} == {"study-7"}
    focus = list(csv.DictReader(io.StringIO(simulator.text("/invoice?format=gcp-focus&project=study-7"))))
    assert sum(Decimal(row["BilledCost"]) for row in focus) == due
    assert json.loads(simulator.text("/invoice?format=openai-costs&project=proj_1"))["data"] == []
    assert len(simulator.text("/invoice?format=openai-usage-csv").splitlines()) == 1
    everything = json.loads(simulator.text("/invoice"))["data"][0]["results"]
    assert sum(Decimal(str(result["amount"]["value"])) for result in everything) == pytest.approx(
        due, abs=Decimal("1e-12")
    )
