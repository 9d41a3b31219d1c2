"""What the Gemini session is set up with, what it lets through, what of the plugin it rests on."""

from __future__ import annotations

import array
import asyncio
import math
import ssl
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from google.genai import errors, types
from google.genai.live import AsyncSession
from livekit import rtc
from livekit.agents import llm
from livekit.plugins.google.realtime import realtime_api
from pydantic import SecretStr
from talktime_agent.apis import meter_of, provider_fault, rendering, talking, turn_detection
from talktime_agent.gemini_ears import AFTER_SECONDS, BEFORE_SECONDS, Ears
from talktime_agent.gemini_hook import KNOWN_VERSION, PluginChangedError, check_plugin, strangeness
from talktime_agent.gemini_meter import GeminiMeter
from talktime_agent.gemini_model import GeminiModel, GeminiSession, event_of, seconds_of
from talktime_agent.meter import ProviderMeter
from talktime_agent.provider import GatedModel
from talktime_ledger.resources.project import Api
from talktime_ledger.wire import CapsConfig, Session, SessionConfig
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

RATE = 24_000
USAGE = frozenset(types.UsageMetadata.model_fields)


def config(**more: object) -> SessionConfig:
    usual = {
        "instructions": "Ask.", "language": "de", "wrapUp": "w", "closing": "c", "voice": "marin",
        "transcriptionModel": "gpt-4o-mini-transcribe", "costUpdateSeconds": 10, "onLedgerOutage": "Drain",
        "caps": CapsConfig(contextTokens=1000, responseSeconds=10, outputTokens=250),
        # An address nobody listens at: no session is ever connected in these tests.
        "endpoint": "https://127.0.0.1:9",
    }  # fmt: skip
    return SessionConfig.model_validate({**usual, **more})


def told(api: str = "GeminiLive", model: str = "gemini-3.8-live") -> Session:
    return Session.model_validate(
        {
            "session_id": "s1", "namespace": "ns", "project": "p", "provider": "backup", "api": api, "model": model,
            "epoch": 1, "state": "open", "opened_at": "2026-11-22T12:00:00Z", "participant_identity": "participant-1",
            "observers": ["observer-1"], "posted": "0", "reserved": "0", "limit": "1",
        }
    )  # fmt: skip


class Gate:
    def __init__(self, open_: bool = True) -> None:
        self.open = open_
        self.asked: list[str] = []

    def admits(self) -> bool:
        return self.open

    def hears(self) -> bool:
        return self.open

    def request(self, event_id: str) -> None:
        self.asked.append(event_id)


def frame(loud: bool, seconds: float = 0.1) -> rtc.AudioFrame:
    level = 3000 if loud else 3
    samples = array.array("h", (int(level * math.sin(index / 5)) for index in range(int(RATE * seconds))))
    return rtc.AudioFrame(samples.tobytes(), RATE, 1, len(samples))


def session(gate: Gate, heard: list[Mapping[str, Any]], model: str = "gemini-3.8-live") -> GeminiSession:
    made = talking(told(model=model), config(), SecretStr("k"), gate, heard.append)
    assert isinstance(made, GeminiModel)
    return made.session()


async def setup_of(model: GeminiModel) -> types.LiveConnectConfig:
    made = model.session()
    try:
        return made._build_connect_config()
    finally:
        await made.aclose()


async def test_every_cap_is_in_the_setup_of_every_connection() -> None:
    model = talking(told(), config(), SecretStr("k"), Gate(), lambda _: None)
    assert isinstance(model, GeminiModel)
    setup = await setup_of(model)
    assert setup.generation_config and setup.generation_config.max_output_tokens == 250
    window = setup.context_window_compression
    assert window and window.trigger_tokens == 1000
    assert window.sliding_window and window.sliding_window.target_tokens == 500
    heard = setup.realtime_input_config
    assert heard and heard.turn_coverage is types.TurnCoverage.TURN_INCLUDES_ONLY_ACTIVITY
    instructions = setup.system_instruction
    assert isinstance(instructions, types.Content)
    assert instructions.parts and instructions.parts[0].text == "Ask.\n\nSpeak de."
    voice = setup.speech_config
    assert isinstance(voice, types.SpeechConfig) and voice.voice_config and voice.voice_config.prebuilt_voice_config
    assert voice.voice_config.prebuilt_voice_config.voice_name == "Puck"
    assert setup.generation_config.thinking_config is None


async def test_older_models_do_not_think_and_a_named_voice_is_taken() -> None:
    model = talking(
        told(model="gemini-2.5-flash-native-audio-preview-12-2025"), config(voice="Kore"), SecretStr("k"), Gate(), print
    )
    assert isinstance(model, GeminiModel)
    setup = await setup_of(model)
    assert setup.generation_config and setup.generation_config.thinking_config
    assert setup.generation_config.thinking_config.thinking_budget == 0
    assert model._opts.voice == "Kore"


async def test_the_goodbye_is_rendered_with_a_small_answer_and_no_conversation() -> None:
    model = rendering(told(), config(), SecretStr("k"), Gate(), lambda _: None, 400)
    assert isinstance(model, GeminiModel)
    setup = await setup_of(model)
    assert setup.generation_config and setup.generation_config.max_output_tokens == 400
    assert setup.system_instruction is None
    assert setup.input_audio_transcription is None


def test_without_an_endpoint_google_is_dialled_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "https://elsewhere.test")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "1")
    model = talking(told(), config(endpoint=None), SecretStr("k"), Gate(), lambda _: None)
    assert isinstance(model, GeminiModel)
    address = model._opts.http_options
    assert isinstance(address, types.HttpOptions)
    assert address.base_url == "https://generativelanguage.googleapis.com"
    assert model.provider == "Gemini"


def test_each_api_has_its_meter_and_its_turn_taking() -> None:
    assert isinstance(meter_of(told(), config()), GeminiMeter)
    assert isinstance(meter_of(told("OpenAIRealtime", "gpt-realtime"), config()), ProviderMeter)
    assert (turn_detection(Api.GEMINI_LIVE), turn_detection(Api.OPENAI_REALTIME)) == ("realtime_llm", "manual")
    made = talking(told("OpenAIRealtime", "gpt-realtime"), config(), SecretStr("k"), Gate(), lambda _: None)
    assert isinstance(made, GatedModel)


async def test_a_shut_gate_neither_hears_nor_asks() -> None:
    gate, heard = Gate(open_=False), list[Mapping[str, Any]]()
    made = session(gate, heard)
    try:
        made.push_audio(frame(loud=True))
        with pytest.raises(llm.RealtimeError, match="not admitted"):
            await made.generate_reply(instructions="hello")
        assert (heard, gate.asked) == ([], [])
        assert made._msg_ch.empty()
    finally:
        await made.aclose()


async def test_what_passes_the_gate_is_told_to_the_meter() -> None:
    gate, heard = Gate(), list[Mapping[str, Any]]()
    made = session(gate, heard)
    try:
        made._connected = True
        made.push_audio(frame(loud=True, seconds=0.2))
        assert heard == [{"type": "forwarded", "seconds": pytest.approx(0.2), "speech": True}]
        reply = made.generate_reply(instructions="hello")
        # Content that completes no turn is not answered, and asks for nothing.
        await made.update_instructions("other")
        made._send_client_event(types.LiveClientContent(turns=[], turn_complete=False))
        assert [event["request"] for event in heard if event["type"] == "asked"] == gate.asked
        assert len(gate.asked) == 1
        reply.cancel()
    finally:
        await made.aclose()


def test_silence_is_not_sent_but_what_surrounds_speech_is() -> None:
    ears = Ears()

    def listen(loud: bool, frames: int) -> float:
        return sum(f.duration for _ in range(frames) for f in ears.heard(frame(loud)))

    assert listen(loud=False, frames=50) == 0
    assert not ears.speaking
    assert listen(loud=True, frames=10) == pytest.approx(1.0 + BEFORE_SECONDS, abs=0.11)
    assert ears.speaking
    # Enough silence for the provider to notice the end of the turn, then no more.
    assert listen(loud=False, frames=100) == pytest.approx(AFTER_SECONDS, abs=0.11)
    assert not ears.speaking
    assert listen(loud=True, frames=1) == pytest.approx(0.1 + BEFORE_SECONDS, abs=0.11)


def test_only_what_concerns_money_is_told() -> None:
    content = types.LiveServerContent
    assert (
        event_of(types.LiveServerMessage(session_resumption_update=types.LiveServerSessionResumptionUpdate())) is None
    )
    transcript = content(input_transcription=types.Transcription(text="I say"))
    event = event_of(types.LiveServerMessage(server_content=transcript))
    assert event == {"type": "message", "output": False, "interrupted": False, "turnComplete": False}
    message = types.LiveServerMessage(
        server_content=content(turn_complete=True),
        usage_metadata=types.UsageMetadata(
            prompt_token_count=7,
            prompt_tokens_details=[types.ModalityTokenCount(modality=types.MediaModality.AUDIO, token_count=5)],
        ),
    )
    assert event_of(message) == {
        "type": "message", "output": False, "interrupted": False, "turnComplete": True,
        "usageMetadata": {
            "promptTokenCount": 7, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 5}]
        },
    }  # fmt: skip


@pytest.mark.parametrize(("text", "seconds"), [("9.5s", 9.5), ("50s", 50.0), (None, 0.0), ("soon", 0.0), ("-3s", 0.0)])
def test_the_time_that_is_left(text: str | None, seconds: float) -> None:
    assert seconds_of(text) == seconds


async def test_what_is_said_without_a_connection_is_told_of_the_one_that_hears_it() -> None:
    gate, heard = Gate(), list[Mapping[str, Any]]()
    made = session(gate, heard)
    try:
        made.push_audio(frame(loud=True, seconds=0.2))
        assert heard == []
        for connection in ("live_1", "live_2"):
            await made._recv_task(SimpleNamespace(session_id=connection, receive=None))  # type: ignore[arg-type]
        told = [event.get("connection", event["type"]) for event in heard]
        assert told == ["live_1", "forwarded", "live_2"]
        made.push_audio(frame(loud=True, seconds=0.2))
        assert len(heard) == 3, "the last one has ended, too"
    finally:
        await made.aclose()


async def test_a_go_away_waits_for_the_answer_that_is_being_given() -> None:
    made = session(Gate(), [])
    try:
        made._note({"output": True, "interrupted": False, "turnComplete": False})
        made._handle_go_away(types.LiveServerGoAway(time_left="50s"))
        await asyncio.sleep(0)
        assert not made._session_should_close.is_set()
        made._note({"output": False, "interrupted": False, "turnComplete": True})
        # Nothing more is asked of this connection; the next one gets it.
        made.push_audio(frame(loud=True))
        assert made._msg_ch.empty()
        assert made._kept
        made._note({"output": False, "interrupted": False, "turnComplete": False, "usageMetadata": {}})
        assert made._leaving is not None
        await asyncio.wait_for(made._leaving, 60)
        assert made._session_should_close.is_set()
    finally:
        await made.aclose()


async def test_a_go_away_without_time_is_followed_at_once() -> None:
    made = session(Gate(), [])
    try:
        made._note({"output": True, "interrupted": False, "turnComplete": False})
        made._handle_go_away(types.LiveServerGoAway(time_left="1s"))
        assert made._leaving is not None
        await asyncio.wait_for(made._leaving, 60)
        assert made._session_should_close.is_set()
    finally:
        await made.aclose()


# the private parts of the plugin


def test_the_installed_plugin_is_the_known_one() -> None:
    check_plugin()


class Renamed(realtime_api.RealtimeSession):
    def _handle_usage_metadata(self, usage: Any, more: Any) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("version", "session_type", "connection", "usage", "words"),
    [
        ("1.9.0", realtime_api.RealtimeSession, AsyncSession, USAGE, "version 1.9.0"),
        (KNOWN_VERSION, object, AsyncSession, USAGE, "no _recv_task"),
        (KNOWN_VERSION, Renamed, AsyncSession, USAGE, "_handle_usage_metadata has other parameters"),
        (KNOWN_VERSION, realtime_api.RealtimeSession, SimpleNamespace, USAGE, "receive"),
        (KNOWN_VERSION, realtime_api.RealtimeSession, AsyncSession, USAGE | {"video_count"}, "video_count"),
    ],
)
def test_another_plugin_is_named(
    version: str, session_type: type[Any], connection: type[Any], usage: frozenset[str], words: str
) -> None:
    assert any(words in found for found in strangeness(version, session_type, connection, usage))


def test_a_worker_with_another_plugin_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("talktime_agent.gemini_hook.google.__version__", "1.9.0")
    with pytest.raises(PluginChangedError, match=r"version 1\.9\.0.*install the pinned livekit-agents"):
        check_plugin()
    with pytest.raises(PluginChangedError):
        talking(told(), config(), SecretStr("k"), Gate(), lambda _: None)


# what the provider refuses


def refused(status: int) -> InvalidStatus:
    return InvalidStatus(Response(status, "", Headers()))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.APIError(1007, {"message": "API key not valid. Please pass a valid API key."}), "invalid_api_key"),
        (errors.APIError(1011, {"message": "You exceeded your current quota, please check."}), "insufficient_quota"),
        (errors.APIError(1008, {"message": "x is not found for API version v1beta"}), "model_not_found"),
        (errors.APIError(1011, {"message": "Deadline expired"}), None),
        (refused(403), "invalid_api_key"),
        (refused(429), "rate_limited"),
        (refused(404), "model_not_found"),
        (refused(503), None),
        (ValueError("no"), None),
    ],
)
def test_faults_of_gemini_have_the_names_of_the_ledger(error: BaseException, code: str | None) -> None:
    found = provider_fault(error)
    assert (found[0] if found else None) == code


def test_an_untrusted_certificate_is_named() -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    assert provider_fault(error) == ("tls_untrusted", "self-signed certificate")
