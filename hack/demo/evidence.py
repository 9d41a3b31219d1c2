"""What an installed Talktime says when asked: rows of the ledger's database, pages of its servers."""

from __future__ import annotations

import json
import urllib.request
from decimal import Decimal
from typing import Any

from hack.demo.kube import Kube
from hack.demo.release import NAMESPACE

PSQL = 'PGPASSWORD=$(cat $PASSWORD_FILE) psql -h 127.0.0.1 -U talktime -d talktime -AtX -v ON_ERROR_STOP=1 -c "$1"'


def get(kube: Kube, service: str, port: int, path: str) -> str:
    """The body of a GET to a Service of the release."""
    with (
        kube.forward(NAMESPACE, f"svc/{service}", port) as local,
        urllib.request.urlopen(f"http://127.0.0.1:{local}{path}", timeout=30) as answer,
    ):
        return str(answer.read().decode())


def simulator_log(kube: Kube) -> list[dict[str, Any]]:
    """What clients asked of the simulator, and what it did."""
    return [json.loads(line) for line in get(kube, "talktime-simulator", 8080, "/log").splitlines()]


def rows(kube: Kube, query: str) -> list[dict[str, Any]]:
    """Rows of one SELECT on the ledger's database; NUMERIC is Decimal. Raises RuntimeError when it is not there."""
    inside = ["-n", NAMESPACE, "exec", "talktime-postgres-0", "--", "sh", "-c", PSQL, "sh", as_json(query)]
    return parsed(kube(*inside))


def as_json(query: str) -> str:
    """The SELECT that answers with all rows as one JSON list."""
    return f"SELECT coalesce(json_agg(found), '[]') FROM ({query}) found"


def parsed(text: str) -> list[dict[str, Any]]:
    """What such a SELECT said; numbers with a point are Decimal."""
    found: list[dict[str, Any]] = json.loads(text, parse_float=Decimal)
    return found
