"""The provider's model: where it dials, and that nothing leaves it without the gate's consent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from livekit.agents import llm
from openai.types.realtime import ResponseCancelEvent, ResponseCreateEvent
from pydantic import SecretStr
from talktime_agent.provider import GatedSession, fault_of, talking_model, transcription
from talktime_ledger.wire import CapsConfig, SessionConfig

from tests.certificates import Authority


def config(**more: object) -> SessionConfig:
    usual = {
        "instructions": "Ask.", "language": "pt-BR", "wrapUp": "w", "closing": "c", "voice": "marin",
        "transcriptionModel": "gpt-4o-mini-transcribe", "costUpdateSeconds": 10, "onLedgerOutage": "Drain",
        "caps": CapsConfig(contextTokens=1000, responseSeconds=10, outputTokens=250),
    }  # fmt: skip
    return SessionConfig.model_validate({**usual, **more})


class Gate:
    def __init__(self, open_: bool = True) -> None:
        self.open = open_
        self.asked: list[str] = []

    def admits(self) -> bool:
        return self.open

    def request(self, event_id: str) -> None:
        self.asked.append(event_id)


def test_without_an_endpoint_the_provider_itself_is_dialled_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.test/v1")
    model = talking_model("gpt-realtime", config(), SecretStr("k"), Gate(), lambda _: None)
    assert model.provider == "api.openai.com"
    other = talking_model("m", config(endpoint="https://sim:8443/v1"), SecretStr("k"), Gate(), lambda _: None)
    assert other.provider == "sim:8443"


def test_turn_taking_stays_with_us() -> None:
    model = talking_model("gpt-realtime", config(), SecretStr("k"), Gate(), lambda _: None)
    assert not model.capabilities.turn_detection
    assert not model.capabilities.can_disable_turn_detection


def test_transcription_is_optional_and_told_the_language() -> None:
    assert transcription(config(transcriptionModel=None)) is None
    told = transcription(config())
    assert told is not None
    assert (told.model, told.language) == ("gpt-4o-mini-transcribe", "pt")


async def test_a_shut_gate_refuses_every_reply_and_an_open_one_hears_of_it() -> None:
    gate = Gate(open_=False)
    # An address nobody listens at: the session is never connected in this test.
    unreachable = config(endpoint="http://127.0.0.1:9/v1")
    session = talking_model("m", unreachable, SecretStr("k"), gate, lambda _: None).session()
    assert isinstance(session, GatedSession)
    with pytest.raises(llm.RealtimeError, match="not admitted"):
        await session.generate_reply(instructions="hello")
    assert gate.asked == []
    gate.open = True
    reply = session.generate_reply()
    session.send_event(ResponseCancelEvent(type="response.cancel"))
    session.send_event(ResponseCreateEvent(type="response.create", event_id="stranger"))
    session.say_goodbye("closing_1", "Say goodbye", 100)
    assert len(gate.asked) == 2
    assert gate.asked[1] == "stranger"
    reply.cancel()
    session._main_atask.cancel()


class RefusedError(Exception):
    status = 401


def test_what_a_provider_error_means() -> None:
    quota = Exception()
    quota.body = SimpleNamespace(code="insufficient_quota", message="You exceeded your quota")  # type: ignore[attr-defined]
    assert fault_of(quota) == ("insufficient_quota", "You exceeded your quota")
    handshake = Exception("client connection error")
    handshake.__cause__ = RefusedError()
    assert fault_of(handshake) == ("invalid_api_key", "the provider refused the key (HTTP 401)")
    assert fault_of(Exception("socket reset")) is None


@pytest.fixture
async def unknown_server(tmp_path: Path) -> AsyncIterator[str]:
    """A TLS server whose certificate no CA of this machine has signed."""
    chain, key = tmp_path / "server.crt", tmp_path / "server.key"
    for file, text in zip((chain, key), Authority.create().issue("api.openai.com"), strict=True):
        file.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()


async def test_a_certificate_that_is_not_trusted_is_told_as_such(unknown_server: str) -> None:
    model = talking_model("m", config(endpoint=unknown_server), SecretStr("k"), Gate(), lambda _: None)
    session = model.session()
    told: asyncio.Future[llm.RealtimeModelError] = asyncio.get_running_loop().create_future()
    session.on("error", lambda event: told.done() or told.set_result(event))
    async with asyncio.timeout(60):
        event = await told
    assert fault_of(event.error) == ("tls_untrusted", "unable to get local issuer certificate")
    await session.aclose()
    await model.aclose()
