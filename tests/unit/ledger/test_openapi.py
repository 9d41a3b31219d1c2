"""The committed OpenAPI document is that of the code: `python -m talktime_ledger openapi` writes it."""

from __future__ import annotations

import json
from pathlib import Path

from talktime_ledger.server.app import create_app
from talktime_ledger.server.settings import Settings

DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "ledger-openapi.json"


def test_the_document_is_current() -> None:
    built = json.loads(json.dumps(create_app(Settings(database_url="postgresql://")).openapi()))
    assert built == json.loads(DOCUMENT.read_text()), "regenerate docs/reference/ledger-openapi.json"


def test_every_call_of_the_contract_is_there() -> None:
    paths = json.loads(DOCUMENT.read_text())["paths"]
    for path in (
        "/v1/projects/{namespace}/{name}",
        "/v1/rate-cards/{name}",
        "/v1/pools/{namespace}/{name}",
        "/v1/changes",
        "/v1/directory",
        "/v1/sessions",
        "/v1/sessions/{session_id}/attach",
        "/v1/sessions/{session_id}/claim",
        "/v1/sessions/{session_id}/use",
        "/v1/sessions/{session_id}/close",
        "/v1/sessions/{session_id}/transport",
        "/v1/push/{namespace}/{name}",
        "/v1/tickets",
        "/v1/reports/spend",
        "/v1/reports/sessions",
        "/v1/reports/transport",
        "/v1/reports/plan",
        "/v1/sessions/unended",
        "/healthz",
        "/readyz",
        "/metrics",
    ):
        assert path in paths
