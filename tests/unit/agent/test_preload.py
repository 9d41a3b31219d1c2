"""What jobs are forked with. A forkserver passes over what it cannot import without a word, so it is imported here."""

from __future__ import annotations

import importlib
import threading

import pytest
from livekit.agents.utils import http_context
from openai.types import realtime
from talktime_agent.settings import AgentSettings
from talktime_agent.worker import build_server


def test_what_the_worker_wants_forked_with_its_jobs_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TALKTIME_PROJECT": "research/study", "TALKTIME_LEDGER_URL": "http://l", "TALKTIME_AGENT_NAME": "tt",
        "LIVEKIT_URL": "http://k", "LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    wanted = build_server(AgentSettings(), cut_off=lambda: False)._preload_modules
    assert "talktime_agent.preload" in wanted
    for module in wanted:
        importlib.import_module(module)


def test_a_job_finds_the_tls_context_and_the_schemas_made_and_inherits_no_thread() -> None:
    http_context._ssl_context_for.cache_clear()
    before = threading.active_count()
    importlib.reload(importlib.import_module("talktime_agent.preload"))
    made = http_context._ssl_context_for.cache_info()
    http_context._create_ssl_context()
    assert http_context._ssl_context_for.cache_info().hits == made.hits + 1
    assert realtime.SessionUpdateEvent.__pydantic_complete__
    assert realtime.ResponseCreateEvent.__pydantic_complete__
    assert threading.active_count() == before
