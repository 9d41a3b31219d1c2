"""livekit's numbers beside ours: a difference is logged and counted, and nothing else happens."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from livekit.agents.metrics import LLMModelUsage
from talktime_agent.crosscheck import differences
from talktime_agent.interview import Interview

MODEL = "gpt-realtime-2.1-mini"


def usage(heard: int, spoken: int, model: str = MODEL) -> LLMModelUsage:
    return LLMModelUsage(provider="openai", model=model, input_audio_tokens=heard, output_audio_tokens=spoken)


@pytest.mark.parametrize(
    ("theirs", "found"),
    [
        ([usage(100, 50)], {}),
        ([usage(60, 50), usage(40, 0)], {}),
        ([usage(100, 50), usage(9, 9, "another")], {}),
        ([usage(100, 20)], {"audio_out": 30}),
        ([usage(250, 60)], {"audio_in": -150, "audio_out": -10}),
        ([], {"audio_in": 100, "audio_out": 50}),
    ],
)
def test_metered_minus_livekits(theirs: list[LLMModelUsage], found: dict[str, int]) -> None:
    assert differences(theirs, MODEL, 100, 50) == found


@pytest.mark.parametrize(("heard", "counted"), [(100, []), (70, ["mismatches"])])
def test_a_difference_is_logged_and_counted(heard: int, counted: list[str], caplog: pytest.LogCaptureFixture) -> None:
    counts: list[str] = []
    interview: Any = SimpleNamespace(
        _session=SimpleNamespace(usage=SimpleNamespace(model_usage=[usage(heard, 50)])),
        _told=SimpleNamespace(model=MODEL),
        _till=SimpleNamespace(audio_tokens=(100, 50)),
        _budget=SimpleNamespace(telemetry=SimpleNamespace(count=counts.append)),
    )
    with caplog.at_level(logging.WARNING):
        Interview._cross_check(interview)
    assert counts == counted
    assert [record.message for record in caplog.records] == [
        "livekit's numbers differ from the metered ones" for _ in counted
    ]
