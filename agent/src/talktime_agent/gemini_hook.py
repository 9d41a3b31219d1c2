"""The private parts of livekit's Google plugin that the meter and the gate rest on; checked when a worker starts.

The plugin shows neither raw usage nor the moment of a request. Its version is pinned and these are looked at before a
session is taken: an agent that talks and does not count would break every promise of the budget.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from google.genai import types
from google.genai.live import AsyncSession
from livekit.plugins import google
from livekit.plugins.google.realtime import realtime_api as realtime

KNOWN_VERSION = "1.8.9"
# Methods that are overridden or called, with the names of their parameters.
KNOWN_METHODS: Mapping[str, tuple[str, ...]] = {
    "_recv_task": ("self", "session"),
    "_handle_usage_metadata": ("self", "usage_metadata"),
    "_handle_go_away": ("self", "go_away"),
    "_send_client_event": ("self", "event"),
    "push_audio": ("self", "frame"),
}
KNOWN_USAGE = frozenset(
    {
        "prompt_token_count",
        "cached_content_token_count",
        "response_token_count",
        "tool_use_prompt_token_count",
        "thoughts_token_count",
        "total_token_count",
        "prompt_tokens_details",
        "cache_tokens_details",
        "response_tokens_details",
        "tool_use_prompt_tokens_details",
        "traffic_type",
        "service_tier",
    }
)


class PluginChangedError(RuntimeError):
    """The Google plugin is not the one whose usage we know how to read."""


def strangeness(
    version: str, session: type[Any], connection: type[Any], usage_fields: frozenset[str]
) -> tuple[str, ...]:
    """What differs from the plugin that is known; empty when nothing does."""
    found = [] if version == KNOWN_VERSION else [f"version {version}, known is {KNOWN_VERSION}"]
    for name, parameters in KNOWN_METHODS.items():
        method = getattr(session, name, None)
        if method is None:
            found.append(f"RealtimeSession has no {name}")
        elif tuple(inspect.signature(method).parameters) != parameters:
            found.append(f"RealtimeSession.{name} has other parameters")
    if not inspect.isasyncgenfunction(getattr(connection, "receive", None)):
        found.append("AsyncSession.receive is no async generator")
    if extra := sorted(usage_fields ^ KNOWN_USAGE):
        found.append(f"usage fields differ: {', '.join(extra)}")
    return tuple(found)


def check_plugin() -> None:
    """PluginChangedError, with what differs, unless the installed plugin is the known one."""
    found = strangeness(
        google.__version__, realtime.RealtimeSession, AsyncSession, frozenset(types.UsageMetadata.model_fields)
    )
    if found:
        raise PluginChangedError(
            "the Google realtime plugin is not the one this agent can meter ("
            + "; ".join(found)
            + "): install the pinned livekit-agents, or read its realtime_api.py and change gemini_hook.py"
        )
