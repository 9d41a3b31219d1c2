"""Tokens: who may do what, and nothing in them that a participant should not read."""

import re
from typing import Any

import jwt
import pytest
from talktime_gateway.tokens import PreviousTokenInvalid, SfuKeys, observer_token, participant_token, previous_identity

KEYS = SfuKeys("APIkey", "s" * 40)
ROOM = "0" * 32
MONEY = re.compile(r"cost|budget|usd|\$", re.IGNORECASE)


def claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(token, KEYS.api_secret, algorithms=["HS256"], issuer=KEYS.api_key)
    return decoded


def test_a_participant_may_speak_listen_and_nothing_else() -> None:
    got = claims(participant_token(KEYS, ROOM, "participant-1", "Ada", 600))
    assert got["video"] == {
        "roomJoin": True,
        "room": ROOM,
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": False,
        "canPublishSources": ["microphone"],
    }
    assert got["sub"] == "participant-1"
    assert got["name"] == "Ada"
    assert got["exp"] - got["nbf"] == 600


def test_nothing_else_is_in_a_participants_token() -> None:
    got = claims(participant_token(KEYS, ROOM, "participant-1", "", 600))
    assert set(got) == {"video", "sub", "iss", "nbf", "exp"}
    assert not MONEY.search(str(got))


def test_camera_and_screen_only_when_the_project_allows() -> None:
    got = claims(participant_token(KEYS, ROOM, "participant-1", "", 600, microphone_only=False))
    assert "camera" in got["video"]["canPublishSources"]


def test_an_observer_is_hidden_and_silent() -> None:
    got = claims(observer_token(KEYS, ROOM, "observer-3", 600))
    video = got["video"]
    assert (video["hidden"], video["canPublish"], video["canPublishData"], video["canSubscribe"]) == (
        True,
        False,
        False,
        True,
    )
    assert got["sub"] == "observer-3"


def test_an_old_participant_token_proves_who_asks_again_even_when_expired() -> None:
    assert previous_identity(KEYS, participant_token(KEYS, ROOM, "participant-1", "", -60), ROOM) == "participant-1"


def test_a_token_of_the_pair_before_still_proves_it_while_keys_are_rotated() -> None:
    token = participant_token(KEYS, ROOM, "participant-1", "", 600)
    assert previous_identity(SfuKeys("APInew", "n" * 40, (("APIkey", "s" * 40),)), token, ROOM) == "participant-1"
    for others in ((), (("APIkey", "x" * 40),)):
        with pytest.raises(PreviousTokenInvalid):
            previous_identity(SfuKeys("APInew", "n" * 40, others), token, ROOM)


@pytest.mark.parametrize(
    "token",
    [
        participant_token(SfuKeys("APIkey", "x" * 40), ROOM, "participant-1", "", 600),
        participant_token(SfuKeys("other", "s" * 40), ROOM, "participant-1", "", 600),
        participant_token(KEYS, "1" * 32, "participant-1", "", 600),
        observer_token(KEYS, ROOM, "observer-1", 600),
        jwt.encode({"sub": "participant-1", "iss": "APIkey", "video": {"room": ROOM}}, "s" * 40),
        "not a token",
    ],
    # Tokens hold the time: as names they would differ between the workers of a parallel run.
    ids=["other secret", "other key", "other room", "observer", "no join", "no token"],
)
def test_other_tokens_prove_nothing(token: str) -> None:
    with pytest.raises(PreviousTokenInvalid):
        previous_identity(KEYS, token, ROOM)
