"""The operator's settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from talktime_operator.settings import OperatorSettings

from tests.certificates import Authority


def test_agents_trust_the_cas_of_their_image_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert OperatorSettings().agent_ca_bundle() == ""
    file = tmp_path / "ca.pem"
    file.write_text(Authority.create().pem)
    monkeypatch.setenv("TALKTIME_AGENT_CA_FILE", str(file))
    assert OperatorSettings().agent_ca_bundle() == file.read_text()


def test_what_no_agent_could_read_stops_the_operator_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nnot really\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("TALKTIME_AGENT_CA_FILE", str(file))
    with pytest.raises(ValidationError, match="no readable PEM bundle"):
        OperatorSettings()
