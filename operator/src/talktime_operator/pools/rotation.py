"""Rotation of a pool's LiveKit keys without cutting a session. Pure: what is seen and the time in, a step out.

livekit-server 1.13.5 accepts several key pairs at once and reads its key file only when it starts (pkg/service/wire.go,
createKeyProvider). So a rotation goes: nodes get a key file with both pairs (each by its own drain); when all have it,
gateway and agents sign with the new pair; when none of them uses the old one, nodes get a key file without it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from talktime_operator.conditions import Finding

TIME = "%Y-%m-%dT%H:%M:%SZ"
CLIENTS_FOLLOW = timedelta(minutes=15)
"""From the new pair's use until the old one may go: a gateway's mounted file follows within two minutes, and a
participant may join with the token it got before for ten."""

USABLE_KEY = re.compile(r"[A-Za-z0-9_-]{3,64}")
USABLE_SECRET = re.compile(r"[A-Za-z0-9_+/=.-]{32,256}")
"""What livekit-server wants of a secret (32 characters), and what needs no quotes in its key file."""


class Stage(StrEnum):
    """Where a rotation stands."""

    SETTLED = "Settled"
    ADDING = "Adding"
    MOVING = "Moving"
    RETIRING = "Retiring"


@dataclass(frozen=True)
class Pair:
    """One LiveKit API key with its secret."""

    api_key: str
    api_secret: str = field(repr=False)

    @property
    def usable(self) -> bool:
        return bool(USABLE_KEY.fullmatch(self.api_key) and USABLE_SECRET.fullmatch(self.api_secret))


@dataclass(frozen=True)
class Keys:
    """`active`: what gateway, agents and operator sign with. `other`: the one to come (Adding) or to go (Moving,
    Retiring). `since`: when the stage began. `asked`: the last request by annotation that was taken up."""

    active: Pair
    other: Pair | None = None
    stage: Stage = Stage.SETTLED
    since: datetime | None = None
    asked: str = ""

    @property
    def ring(self) -> tuple[Pair, ...]:
        """The pairs that nodes started now accept."""
        both = self.other is not None and self.stage in (Stage.ADDING, Stage.MOVING)
        return tuple(sorted((self.active, self.other), key=_name)) if both and self.other else (self.active,)

    @property
    def rings(self) -> dict[str, tuple[Pair, ...]]:
        """Every ring that a node may have been started with, by its fingerprint."""
        pairs = (self.active,) if self.other is None else (self.active, self.other)
        options = [(p,) for p in pairs] + ([tuple(sorted(pairs, key=_name))] if len(pairs) == 2 else [])
        return {fingerprint(o): o for o in options}

    def render(self) -> str:
        """As kept in the Secret."""
        return json.dumps(
            {
                "stage": self.stage.value,
                "since": self.since.strftime(TIME) if self.since else "",
                "asked": self.asked,
                "active": _plain(self.active),
                "other": _plain(self.other) if self.other else None,
            },
            sort_keys=True,
        )

    @classmethod
    def parse(cls, text: str) -> Keys | None:
        """None when it cannot be read."""
        try:
            value = json.loads(text)
            other = Pair(**_named(value["other"])) if value["other"] else None
            since = datetime.strptime(value["since"], TIME).replace(tzinfo=UTC) if value["since"] else None
            stage = Stage(value["stage"])
            if (other is None) != (stage is Stage.SETTLED):
                return None
            return cls(Pair(**_named(value["active"])), other, stage, since, str(value["asked"]))
        except (KeyError, TypeError, ValueError):
            return None


def fingerprint(ring: Sequence[Pair]) -> str:
    """Of a set of pairs; tells nothing about them."""
    text = "\0".join(f"{p.api_key}\0{p.api_secret}" for p in sorted(ring, key=_name))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def recovered(entry: Mapping[str, Any], now: datetime) -> Keys | None:
    """From the gateway's copy, when the pool's Secret is gone and nobody remembers. A second pair there may be the one
    to come or to go; the first one is accepted by every node in either case, so the second is to go."""
    try:
        active = Pair(**_named(entry))
        other = next((Pair(k, s) for k, s in (entry.get("also") or {}).items()), None)
    except (KeyError, TypeError, AttributeError):
        return None
    return Keys(active) if other is None else Keys(active, other, Stage.MOVING, now)


@dataclass(frozen=True)
class Asked:
    """Who wants other keys. `annotation`: the value on the SFUPool; `secret`: the pair that stands in the Secret, None
    when the Secret was deleted."""

    annotation: str
    secret: Pair | None


@dataclass(frozen=True)
class Users:
    """Who uses which keys. `nodes`: the ring of every SFU pod that has not ended, also of those that end; `sets`: nodes
    that should be; `agents`: agent pods that were started with the old pair."""

    nodes: Sequence[str]
    sets: int
    agents: int


@dataclass(frozen=True)
class Step:
    """`again`: seconds until time alone may change it, 0 = never."""

    keys: Keys
    finding: Finding
    again: float = 0.0


def step(
    keys: Keys, asked: Asked, users: Users, fresh: Pair, now: datetime, follow: timedelta = CLIENTS_FOLLOW
) -> Step:
    """The next state. `fresh`: a new pair, used when a rotation begins without one."""
    after = _begin(keys, asked, fresh, now) if keys.stage is Stage.SETTLED else _go_on(keys, users, now, follow)
    return Step(after, told(after, asked, users), _again(after, now, follow))


def _begin(keys: Keys, asked: Asked, fresh: Pair, now: datetime) -> Keys:
    if asked.secret is None:
        return replace(keys, other=fresh, stage=Stage.ADDING, since=now)
    if asked.secret != keys.active and asked.secret.usable and asked.secret.api_key != keys.active.api_key:
        return replace(keys, other=asked.secret, stage=Stage.ADDING, since=now)
    if asked.annotation and asked.annotation != keys.asked:
        return replace(keys, other=fresh, stage=Stage.ADDING, since=now, asked=asked.annotation)
    return keys


def _go_on(keys: Keys, users: Users, now: datetime, follow: timedelta) -> Keys:
    assert keys.other is not None  # of every stage but Settled
    if keys.stage is Stage.ADDING and _all_have(keys, users):
        return replace(keys, active=keys.other, other=keys.active, stage=Stage.MOVING, since=now)
    if keys.stage is Stage.MOVING and users.agents == 0 and now - (keys.since or now) >= follow:
        return replace(keys, stage=Stage.RETIRING, since=now)
    if keys.stage is Stage.RETIRING and _all_have(keys, users):
        return replace(keys, other=None, stage=Stage.SETTLED, since=now)
    return keys


def _all_have(keys: Keys, users: Users) -> bool:
    wanted = fingerprint(keys.ring)
    return len(users.nodes) >= users.sets and all(ring == wanted for ring in users.nodes)


def told(keys: Keys, asked: Asked, users: Users) -> Finding:
    """What is said of a state."""
    kind, lacking = "RotatingKeys", sum(1 for ring in users.nodes if ring != fingerprint(keys.ring))
    if keys.stage is Stage.ADDING:
        text = f"{lacking} of {len(users.nodes)} nodes drain before they know the new key too; the old one is used"
        return Finding(kind, "True", "AddingKey", text)
    if keys.stage is Stage.MOVING:
        text = f"{users.agents} agent pods still use the old key; it goes when none does, and no handed out token"
        return Finding(kind, "True", "MovingClients", text)
    if keys.stage is Stage.RETIRING:
        text = f"{lacking} of {len(users.nodes)} nodes drain before they refuse the old key"
        return Finding(kind, "True", "RetiringKey", text)
    if asked.secret is not None and asked.secret != keys.active:
        text = (
            "the pair in Secret sfu-<pool>-keys was not taken, the old one is back: a new api-key has 3 to 64 letters,"
            " digits, - or _ and another name than the one before, its api-secret 32 to 256 characters without blanks"
        )
        return Finding(kind, "False", "KeyRefused", text)
    return Finding(kind, "False", "KeysSettled")


def _again(keys: Keys, now: datetime, follow: timedelta) -> float:
    if keys.stage is not Stage.MOVING or keys.since is None:
        return 0.0
    left = follow - (now - keys.since)
    return max(left.total_seconds(), 1.0)


def _name(pair: Pair) -> str:
    return pair.api_key


def _plain(pair: Pair) -> dict[str, str]:
    return {"apiKey": pair.api_key, "apiSecret": pair.api_secret}


def _named(value: Mapping[str, Any]) -> dict[str, str]:
    return {"api_key": str(value["apiKey"]), "api_secret": str(value["apiSecret"])}
