"""Credentials: recognised by prefix, compared as digests, never in an address unless it is a ticket."""

from dataclasses import dataclass

import pytest
from talktime_gateway.credentials import Kind, digest, is_session_id, matches, new_session_id, new_ticket, parse

SERVER = "tts_" + "a" * 40
OBSERVER = "tto_" + "b" * 40
TICKET = "ttt_" + "c" * 40


@dataclass(frozen=True)
class Key:
    kind: str
    sha256: str


@pytest.mark.parametrize(
    ("authorization", "ticket", "kind"),
    [
        (f"Bearer {SERVER}", None, Kind.SERVER),
        (f"bearer  {OBSERVER} ", None, Kind.OBSERVER),
        (f"Bearer {TICKET}", None, Kind.TICKET),
        (None, TICKET, Kind.TICKET),
        ("Basic abc", TICKET, Kind.TICKET),
        (None, SERVER, None),
        (None, None, None),
        ("Bearer ", None, None),
        ("Bearer something-else", None, None),
        (f"Basic {SERVER}", None, None),
        ("Bearer tts_short", None, None),
        ("Bearer tts_" + "a" * 30 + "\n", None, Kind.SERVER),
        ("Bearer tts_" + "ä" * 30, None, None),
    ],
)
def test_which_credential_a_request_carries(authorization: str | None, ticket: str | None, kind: Kind | None) -> None:
    presented = parse(authorization, ticket)
    assert (presented.kind if presented else None) == kind


def test_the_header_wins_over_the_address() -> None:
    presented = parse(f"Bearer {SERVER}", TICKET)
    assert presented is not None
    assert presented.sha256 == digest(SERVER)


def test_a_key_matches_only_its_own_kind_and_digest() -> None:
    presented = parse(f"Bearer {SERVER}", None)
    assert presented is not None
    assert matches(presented, [Key("observer", digest(OBSERVER)), Key("server", digest(SERVER))])
    assert matches(presented, [Key("server", digest(SERVER).upper())])
    assert not matches(presented, [Key("observer", digest(SERVER))])
    assert not matches(presented, [Key("server", digest(SERVER + "x"))])
    assert not matches(presented, [])


def test_new_tickets_and_session_ids_are_unguessable() -> None:
    tickets = {new_ticket() for _ in range(100)}
    assert len(tickets) == 100
    assert all(parse(None, ticket) is not None and len(ticket) >= 47 for ticket in tickets)
    assert all(is_session_id(new_session_id()) for _ in range(10))
    assert len({new_session_id() for _ in range(100)}) == 100
    assert not is_session_id("probe-1")
