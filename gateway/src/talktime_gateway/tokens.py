"""LiveKit access tokens for participants and observers. Nothing in them speaks of money (law 8)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import jwt
from livekit.api import AccessToken, VideoGrants

OBSERVERS = tuple(f"observer-{n}" for n in range(1, 9))
"""The identities an agent may address; fixed, because an empty list of destinations would be a broadcast."""

PARTICIPANT = "participant-1"

MICROPHONE = ("microphone",)
ANY_SOURCE = ("microphone", "camera", "screen_share", "screen_share_audio")


@dataclass(frozen=True)
class SfuKeys:
    """API key pair of one LiveKit. ``also``: pairs whose signatures count while keys are rotated."""

    api_key: str
    api_secret: str
    also: tuple[tuple[str, str], ...] = ()

    def signer(self, token: str) -> tuple[str, str]:
        """The pair that a token names as its issuer (unverified), this one if none does."""
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            issuer = None
        return next((pair for pair in self.also if pair[0] == issuer), (self.api_key, self.api_secret))


class PreviousTokenInvalid(ValueError):  # noqa: N818 - a state, not a fault
    """The token shown on a re-ask was not issued by this gateway for that room."""


def participant_token(
    keys: SfuKeys, room: str, identity: str, name: str, ttl_sec: int, *, microphone_only: bool = True
) -> str:
    """A token to join ``room`` and speak. No data channel: what a participant could send there would reach the model
    past the gate; no metadata, attributes or room configuration: those are the gateway's."""
    grants = VideoGrants(
        room_join=True,
        room=room,
        can_subscribe=True,
        can_publish=True,
        can_publish_data=False,
        can_publish_sources=list(MICROPHONE if microphone_only else ANY_SOURCE),
    )
    return _mint(keys, identity, name, grants, ttl_sec)


def observer_token(keys: SfuKeys, room: str, identity: str, ttl_sec: int) -> str:
    """A token to listen unseen."""
    grants = VideoGrants(
        room_join=True, room=room, can_subscribe=True, can_publish=False, can_publish_data=False, hidden=True
    )
    return _mint(keys, identity, "", grants, ttl_sec)


def _mint(keys: SfuKeys, identity: str, name: str, grants: VideoGrants, ttl_sec: int) -> str:
    token = AccessToken(keys.api_key, keys.api_secret).with_identity(identity).with_grants(grants)
    return token.with_name(name).with_ttl(timedelta(seconds=ttl_sec)).to_jwt()


def previous_identity(keys: SfuKeys, token: str, room: str) -> str:
    """The participant identity of an older token for ``room``, signed with the same keys.

    It may have expired: it proves who asked before, and the session in the ledger decides whether that still counts.
    Raises PreviousTokenInvalid.
    """
    issuer, secret = keys.signer(token)
    try:
        claims = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            issuer=issuer,
            options={"verify_exp": False, "require": ["sub", "iss"]},
        )
    except jwt.PyJWTError as error:
        raise PreviousTokenInvalid("not a token of this service") from error
    video = claims.get("video") or {}
    identity = str(claims["sub"])
    if video.get("room") != room or not video.get("roomJoin") or not identity.startswith("participant-"):
        raise PreviousTokenInvalid("a token of another room or kind")
    return identity
