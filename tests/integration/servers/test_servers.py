"""The tests' own servers answer, so that a failure elsewhere is not theirs."""

from __future__ import annotations

import socket
import urllib.request
from typing import Any

import asyncpg


async def test_postgres_is_empty_and_version_15(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    try:
        assert (await connection.fetchval("show server_version")).startswith("15.")
        assert await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'") == 0
    finally:
        await connection.close()


def test_redis_answers(redis_server: str) -> None:
    host, _, port = redis_server.partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(16) == b"+PONG\r\n"


def test_livekit_answers(livekit_server: Any) -> None:
    with urllib.request.urlopen(livekit_server.url.replace("ws", "http")) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(livekit_server.metrics_url) as answer:
        assert b"livekit_" in answer.read()
