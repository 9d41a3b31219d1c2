"""What jobs are forked with. A forkserver passes over what it cannot import without a word, so it is imported here."""

from __future__ import annotations

import importlib
import threading

from livekit.agents.utils import http_context
from openai.types import realtime


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
