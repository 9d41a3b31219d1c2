"""Request bodies: what is read, and which field a refusal names."""

import json
from typing import Any

import pytest
from talktime_gateway.bodies import TicketRequest, TokenRequest, read
from talktime_gateway.problems import Problem


@pytest.mark.parametrize("raw", [b"", b"  ", b"{}", b'{"room_name": null}'])
def test_nothing_sent_is_nothing_asked(raw: bytes) -> None:
    assert read(TokenRequest, raw) == TokenRequest()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"participant_identity": "x"}, "participant_identity"),
        ({"room_name": "demo"}, "room_name"),
        ({"participant_name": "x" * 129}, "participant_name"),
        ({"participant_key": ""}, "participant_key"),
        ({"participant_name": ["x"]}, "participant_name"),
    ],
)
def test_the_field_at_fault_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as refused:
        read(TokenRequest, json.dumps(body).encode())
    assert (refused.value.status, refused.value.extra["field"]) == (400, field)


@pytest.mark.parametrize("raw", [b"{", b"[]", b"7", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Problem) as refused:
        read(TokenRequest, raw)
    assert refused.value.status == 400


@pytest.mark.parametrize("seconds", [0, -1, 30 * 86400 + 1, "60", 1.5, True])
def test_a_tickets_life_is_whole_seconds_up_to_thirty_days(seconds: object) -> None:
    with pytest.raises(Problem):
        read(TicketRequest, json.dumps({"expires_in_sec": seconds}).encode())
