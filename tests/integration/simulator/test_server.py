"""The simulator's own surfaces: restart, invoices, faults, TLS, its command line."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .conftest import start_simulator

PRICES = {
    "models": {
        "gpt-realtime-2.1-mini": {
            "text_in": "0.60", "text_cached_in": "0.06", "audio_in": "10", "audio_cached_in": "0.30",
            "text_out": "2.40", "audio_out": "20",
        }
    }
}  # fmt: skip


async def one_response(url: str, context: ssl.SSLContext | None = None, **response: Any) -> dict[str, Any]:
    """A bare client: one out-of-context response; returns its response.done."""
    headers = {"Authorization": "Bearer any"}
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(
            f"{url}/v1/realtime?model=gpt-realtime-2.1-mini", headers=headers, ssl=context or True
        ) as socket,
    ):
        await socket.send_json({"type": "response.create", "response": response})
        async for message in socket:
            event: dict[str, Any] = message.json()
            if event["type"] in ("response.done", "error"):
                return event
    raise AssertionError("the socket closed early")


def test_truth_and_log_survive_a_restart(tmp_path: Path) -> None:
    process, server = start_simulator("--speed", "50", "--state", str(tmp_path))
    asyncio.run(one_response(server.url))
    before = server.lines("/truth"), [e["event"] for e in server.lines("/log") if e["event"] == "response.done"]
    process.kill()
    process.wait()
    process, server = start_simulator("--state", str(tmp_path))
    after = server.lines("/truth"), [e["event"] for e in server.lines("/log") if e["event"] == "response.done"]
    assert after == before
    assert len(after[0]) == 1
    server.send("DELETE", "/truth")
    assert server.lines("/truth") == []
    process.terminate()
    process.wait()


def test_an_invoice_needs_somebody_elses_prices(simulator: Any) -> None:
    asyncio.run(one_response(simulator.url))
    assert simulator.send("GET", "/invoice")[0] == 409
    assert simulator.send("POST", "/prices", {"models": {"other": {"text_in": "1"}}})[0] == 204
    status, body = simulator.send("GET", "/invoice")
    assert (status, "gpt-realtime-2.1-mini" in body) == (422, True)
    assert simulator.send("POST", "/prices", PRICES)[0] == 204
    status, body = simulator.send("GET", "/invoice")
    assert status == 200
    assert '"object": "organization.costs.result"' in body
    assert simulator.send("POST", "/invoice", PRICES) == (200, body)


def test_the_text_answer_of_an_empty_context_is_billed_by_its_instructions(simulator: Any) -> None:
    done = asyncio.run(
        one_response(simulator.url, conversation="none", input=[], instructions="abcdefgh", output_modalities=["text"])
    )
    usage = done["response"]["usage"]
    assert usage["input_tokens"] == 2
    assert usage["output_token_details"]["audio_tokens"] == 0
    assert usage["output_token_details"]["text_tokens"] > 5


def test_a_second_response_at_the_same_time_is_refused(simulator: Any) -> None:
    async def both() -> dict[str, Any]:
        url = f"{simulator.url}/v1/realtime?model=m"
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as http, http.ws_connect(url) as socket:
            for number in range(2):
                await socket.send_json({"type": "response.create", "event_id": f"e{number}"})
            async for message in socket:
                if message.json()["type"] == "error":
                    error: dict[str, Any] = message.json()["error"]
                    return error
        raise AssertionError("no error")

    error = asyncio.run(both())
    assert error["code"] == "conversation_already_has_active_response"
    assert error["event_id"] == "e1"


@pytest.mark.parametrize(
    "text", ["not json", "[]", '{"type": "no.such.event"}', '{"type": "input_audio_buffer.append"}']
)
def test_nonsense_gets_an_error_event_and_the_connection_stays(simulator: Any, text: str) -> None:
    async def send() -> list[str]:
        url = f"{simulator.url}/v1/realtime?model=m"
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as http, http.ws_connect(url) as socket:
            await socket.receive()
            await socket.send_str(text)
            first = await socket.receive_json()
            await socket.send_json({"type": "input_audio_buffer.clear"})
            return [first["type"], (await socket.receive_json())["type"]]

    assert asyncio.run(send()) == ["error", "input_audio_buffer.cleared"]


def test_requests_without_key_or_model_are_refused(simulator: Any) -> None:
    assert simulator.send("GET", "/v1/realtime?model=m")[0] == 401
    assert simulator.send("POST", "/faults", {"fault": "no such fault"})[0] == 400


def test_it_speaks_tls(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    process, server = start_simulator("--speed", "50", "--tls-cert", str(certificate), "--tls-key", str(key))
    context = ssl.create_default_context(cafile=str(certificate))
    done = asyncio.run(one_response(f"https://127.0.0.1:{server.port}", context))
    assert done["response"]["status"] == "completed"
    process.terminate()
    process.wait()


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    certificate, key = directory / "tls.crt", directory / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=stand-in",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_wrong_options_of_participants_are_told_with_exit_code_2() -> None:
    command = [
        sys.executable,
        "-m",
        "talktime_simulator",
        "participants",
        "--gateway",
        "http://x",
        "--project",
        "no-slash",
    ]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
