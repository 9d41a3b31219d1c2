"""The simulator's own certificate: made once, kept, good for its names and trusted through its CA alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store
from talktime_simulator.certificates import kept, made

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NAMES = ["talktime-simulator.talktime.svc", "127.0.0.1"]


def test_the_certificate_is_good_for_its_names_under_its_ca() -> None:
    certificate, _, ca = made(NAMES, NOW)
    store = Store([x509.load_pem_x509_certificate(ca)])
    verifier = PolicyBuilder().store(store).time(NOW + timedelta(days=30))
    chain = verifier.build_server_verifier(x509.DNSName(NAMES[0])).verify(
        x509.load_pem_x509_certificate(certificate), []
    )
    assert len(chain) == 2


def test_a_restart_keeps_the_ca(tmp_path: Path) -> None:
    first = kept(tmp_path / "tls", NAMES, NOW)
    assert first.ca is not None
    before = first.ca.read_bytes()
    again = kept(tmp_path / "tls", NAMES, NOW + timedelta(days=1))
    assert again.ca is not None
    assert again.ca.read_bytes() == before
    assert first.key.stat().st_mode & 0o077 == 0
    first.context()
