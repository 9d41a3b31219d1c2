"""Signed events: what is believed, and what they say of a connection."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

import jwt
import pytest
from google.protobuf.json_format import ParseDict
from livekit.api import WebhookEvent
from talktime_gateway.problems import Problem
from talktime_gateway.tokens import SfuKeys, participant_token
from talktime_gateway.webhooks import Outcome, verified, word_of

KEYS = SfuKeys("APIkey", "s" * 40)
ROOM = "00000000-0000-4000-8000-000000000001"
JOINED_AT = 1_700_000_000
NOW = JOINED_AT + 100.0


def event(kind: str = "participant_left", lasted: int = 52, **changes: Any) -> dict[str, Any]:
    """An event as livekit-server writes it."""
    return {
        "event": kind,
        "room": {"name": ROOM, "sid": "RM_1"},
        "participant": {"sid": "PA_1", "identity": "participant-1", "joinedAt": str(JOINED_AT)},
        "id": "EV_1",
        "createdAt": str(JOINED_AT + lasted),
        **changes,
    }


def signed(body: bytes, keys: SfuKeys = KEYS, age: float = 0.0, **claims: Any) -> str:
    """The Authorization header livekit-server sends with it, minted `age` seconds ago."""
    minted = time.time() - age
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    content = {"iss": keys.api_key, "nbf": minted, "exp": minted + 300, "sha256": digest, **claims}
    return jwt.encode({k: v for k, v in content.items() if v is not None}, keys.api_secret, algorithm="HS256")


BODY = json.dumps(event()).encode()


def test_what_the_pool_signed_is_believed() -> None:
    got = verified(KEYS, BODY, signed(BODY))
    assert (got.event, got.participant.sid) == ("participant_left", "PA_1")


def test_a_node_that_still_signs_with_the_pair_before_is_believed_while_keys_are_rotated() -> None:
    rotated = SfuKeys("APInew", "n" * 40, (("APIkey", "s" * 40),))
    assert verified(rotated, BODY, signed(BODY)).event == "participant_left"
    assert verified(rotated, BODY, signed(BODY, rotated)).event == "participant_left"


@pytest.mark.parametrize(
    ("body", "authorization"),
    [
        (BODY, None),
        (BODY, ""),
        (BODY, "Bearer tts_nothing"),
        (BODY, signed(BODY, SfuKeys("APIkey", "x" * 40))),
        (BODY, signed(BODY, SfuKeys("APIother", "s" * 40))),
        (BODY, signed(BODY + b" ")),
        (BODY.replace(b"PA_1", b"PA_2"), signed(BODY)),
        (BODY, signed(BODY, sha256=None)),
        (BODY, signed(BODY, sha256="***")),
        (BODY, signed(BODY, exp=None)),
        (BODY, signed(BODY, age=600)),
        (BODY, participant_token(KEYS, ROOM, "participant-1", "", 600)),
        (BODY, jwt.encode({"iss": "APIkey", "exp": time.time() + 60}, "", algorithm="none")),
        (b"\xff", signed(b"\xff")),
        (b"not json", signed(b"not json")),
        (b'{"room": 7}', signed(b'{"room": 7}')),
    ],
    ids=range(16),
)
def test_what_is_not_signed_now_for_this_body_with_these_keys_is_refused(body: bytes, authorization: str) -> None:
    with pytest.raises(Problem) as caught:
        verified(KEYS, body, authorization)
    assert (caught.value.status, caught.value.reason) == (401, "WebhookRefused")


def parsed(content: dict[str, Any]) -> WebhookEvent:
    return ParseDict(content, WebhookEvent())


@pytest.mark.parametrize("kind", ["participant_left", "participant_connection_aborted"])
def test_a_leave_tells_how_long_the_connection_was(kind: str) -> None:
    word = word_of(parsed(event(kind)), NOW)
    assert word is not None
    assert (word.outcome, word.room, word.key, word.lasted) == (Outcome.LEFT, ROOM, "participant-1/PA_1", 52)


def test_milliseconds_of_the_join_count_and_a_begun_second_is_one() -> None:
    content = event()
    content["participant"]["joinedAtMs"] = str(JOINED_AT * 1000 + 300)
    word = word_of(parsed(content), NOW)
    assert word is not None
    assert word.lasted == 52


def test_a_join_and_a_finished_room() -> None:
    joined = word_of(parsed(event("participant_joined", lasted=1)), NOW)
    finished = word_of(parsed(event("room_finished", participant={})), NOW)
    assert joined is not None
    assert finished is not None
    assert (joined.outcome, joined.joined_at, joined.at) == (Outcome.JOINED, JOINED_AT, JOINED_AT + 1)
    assert (finished.outcome, finished.key, finished.at) == (Outcome.FINISHED, "", JOINED_AT + 53)


@pytest.mark.parametrize(
    "content",
    [
        event("track_published"),
        event("egress_started"),
        event(room={"name": "somebody else's room"}),
        event(room={"name": "../../sessions"}),
        event(lasted=-5),
        event(lasted=1000),
        event(participant={}),
        event(participant={"sid": "PA_1", "identity": "participant-1"}),
        {},
    ],
    ids=range(9),
)
def test_other_events_other_rooms_and_times_that_cannot_be_mean_nothing(content: dict[str, Any]) -> None:
    assert word_of(parsed(content), NOW) is None
