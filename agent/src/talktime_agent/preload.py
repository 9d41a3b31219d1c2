"""Imported once in the process that jobs are forked from (``preload_modules``): what every job would do first.

livekit.agents does so for its own part (``ipc/_preload.py``). Measured on a starting job: 0.1 s of CPU for the TLS
context, 0.1 s for the schemas of OpenAI's types, which are built on first use; each held up the first words, and four
jobs that start at once share two cores. Only what a fork may inherit: no thread, no event loop, no connection.
"""

from __future__ import annotations

import importlib

from livekit.agents.utils import http_context
from openai.types import realtime
from pydantic import BaseModel

# What httpx imports on its first request.
for _module in ("httpcore", "anyio._backends._asyncio"):
    importlib.import_module(_module)

# Kept by livekit.agents per process image; its HTTP sessions share it.
http_context._create_ssl_context()

for _type in vars(realtime).values():
    if isinstance(_type, type) and issubclass(_type, BaseModel):
        _type.model_rebuild()
