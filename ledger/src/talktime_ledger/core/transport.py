"""How long a connection to a room lasted, and how many of its seconds are billed. Pure.

Three things are learned of a connection, in any order and more than once: it was seen to last `seen` seconds (polling
LiveKit, a lower bound), it was known to be over `gone` seconds after its join (polling too, an upper bound), and it
left after exactly `left` seconds (a signed webhook). Between `seen` and `gone` nobody looked: that time is *lost*. It
is billed by LiveKit all the same, so it is posted at its bound as unmetered, until the webhook tells the exact time.

LiveKit Cloud rounds each connection up to a whole minute (docs.livekit.io/deploy/admin/billing); an own SFU costs its
seconds. Examples, billed seconds of one connection:

==============  ===========  =====
lasted          self-hosted  Cloud
==============  ===========  =====
0 s (it joined)           0     60
10 s                     10     60
60 s                     60     60
61 s                     61    120
==============  ===========  =====

So a participant who loses the connection after 50 s and is back for 10 s costs 60 s on an own SFU, 120 s on Cloud.

Seconds of video tracks are those that the looks into the room saw (every few seconds). Traffic nobody tells, so it is
an estimate by a stated rate: each connection hears everybody who speaks, all the time, at the most that LiveKit's
clients send by default, and each video track is sent to everybody. An interview of 30 minutes, participant and agent:
2 connections x 1,800 s x 120 kbit/s = 54 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from talktime_ledger.core.meters import Meter

MINUTE = 60
# One Opus track at 48 kbit/s (the clients' default for a microphone), sent twice over (RED, their default too), and 50
# packets a second with 58 bytes of IP, UDP and SRTP around them: 96 + 23 kbit/s.
AUDIO_BYTES_PER_SEC = 120_000 // 8
# The dearest default of the clients, a shared screen in 1080p with 15 frames a second: 2.5 Mbit/s, 10 % of headers and
# retransmission, and the sound that comes with it.
VIDEO_BYTES_PER_SEC = 3_000_000 // 8
# The step in which LiveKit Cloud counts traffic, 0.01 GB (docs.livekit.io/deploy/admin/billing).
CLOUD_BYTES = 10**7
AGENT, OBSERVER = "agent-", "observer-"
"""How identities of agents (LiveKit's own naming) and of observers (the gateway's) begin; the rest are participants."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What is known of one connection; whole seconds since its join. `cloud`: it is one to LiveKit Cloud. `video`:
    seconds of its video tracks, summed. `joined_ms`: when that was, by the SFU's clock (unix).
    """

    seen: int = 0
    gone: int | None = None
    left: int | None = None
    cloud: bool = False
    video: int = 0
    joined_ms: int | None = None

    @property
    def lasted(self) -> int:
        """Seconds that are known for sure. Never falls, whatever else is learned."""
        return max(self.seen, self.left or 0)

    @property
    def metered(self) -> int:
        """Billed seconds of what is known for sure."""
        return billed(self.lasted, cloud=self.cloud)

    @property
    def lost(self) -> int:
        """Billed seconds, at most, of the time in which nobody looked; 0 once the leave was told."""
        if self.left is not None or self.gone is None:
            return 0
        return max(0, billed(self.gone, cloud=self.cloud) - self.metered)

    @property
    def longest(self) -> int:
        """Seconds that it lasted at most, as far as that is known."""
        return self.lasted if self.left is not None or self.gone is None else max(self.lasted, self.gone)

    @property
    def open(self) -> bool:
        """Nobody has told its end."""
        return self.gone is None and self.left is None


def billed(seconds: int, *, cloud: bool) -> int:
    """What a connection of so many seconds is billed: all of them, on Cloud the begun minute in full."""
    return max(1, -(-seconds // MINUTE)) * MINUTE if cloud else seconds


def merged(one: Connection, other: Connection) -> Connection:
    """Both together: the longest sighting, the earliest absence, the latest leave.

    An absence before a sighting was none (a list that missed somebody), so it is dropped. The medium is the one of
    `one`: a connection does not move.
    """
    seen = max(one.seen, other.seen)
    gone = min((gone for gone in (one.gone, other.gone) if gone is not None and gone >= seen), default=None)
    left = max((left for left in (one.left, other.left) if left is not None), default=None)
    joined = min((at for at in (one.joined_ms, other.joined_ms) if at is not None), default=None)
    return Connection(seen, gone, left, one.cloud, max(one.video, other.video), joined)


@dataclass(frozen=True, slots=True)
class Company:
    """Who is in a room, as far as traffic goes: identities that speak, and all that listen."""

    speakers: int
    listeners: int

    @classmethod
    def of(cls, keys: Iterable[str]) -> Company:
        """Of the connections `identity/sid` that were ever there. There is one agent at a time, whatever came before;
        a reconnect is the same identity.
        """
        identities = {identity_of(key) for key in keys}
        observers = sum(identity.startswith(OBSERVER) for identity in identities)
        agents = sum(identity.startswith(AGENT) for identity in identities)
        speakers = len(identities) - observers - agents + min(1, agents)
        return cls(speakers, speakers + observers)


def identity_of(key: str) -> str:
    """Whose connection it is."""
    return key.rpartition("/")[0] or key


def egress_bytes(key: str, connection: Connection, seconds: int, company: Company) -> int:
    """Bytes that the SFU sent for a connection of so many seconds, at most: all it heard, and its video to the others.

    Cloud counts traffic in steps, so each connection is rounded up to one.
    """
    heard = company.speakers - (0 if identity_of(key).startswith(OBSERVER) else 1)
    sent = seconds * max(0, heard) * AUDIO_BYTES_PER_SEC
    sent += connection.video * max(0, company.listeners - 1) * VIDEO_BYTES_PER_SEC
    return -(-sent // CLOUD_BYTES) * CLOUD_BYTES if connection.cloud else sent


def metered(connections: Mapping[str, Connection], *, cloud: bool) -> dict[Meter, int]:
    """The meters of all connections to one medium, as far as they are known for sure (traffic: for sure no more).

    No meter ever falls when more is learned.
    """
    company = Company.of(connections)
    sums = {Meter.PARTICIPANT_SECONDS: 0, Meter.VIDEO_TRACK_SECONDS: 0, Meter.EGRESS_BYTES: 0}
    for key, connection in connections.items():
        if connection.cloud == cloud:
            sums[Meter.PARTICIPANT_SECONDS] += connection.metered
            sums[Meter.VIDEO_TRACK_SECONDS] += connection.video
            sums[Meter.EGRESS_BYTES] += egress_bytes(key, connection, connection.lasted, company)
    return sums


def lost(key: str, connection: Connection, company: Company) -> dict[Meter, int]:
    """The meters, at most, of the time in which nobody looked."""
    more = egress_bytes(key, connection, connection.longest, company)
    more -= egress_bytes(key, connection, connection.lasted, company)
    found = {Meter.PARTICIPANT_SECONDS: connection.lost, Meter.EGRESS_BYTES: more}
    return {meter: count for meter, count in found.items() if count}


def ahead(participants: int, observers: int, seconds: int, video_tracks: int, *, cloud: bool) -> dict[Meter, int]:
    """The meters, at most, of a room as full as it may be, with its agent, for so many seconds from now.

    Who is there already may begin another minute and another step of traffic, like a connection that begins now.
    """
    names = ["agent-/1", *(f"{i}/1" for i in range(participants)), *(f"observer-{i}/1" for i in range(observers))]
    videos = {f"{i}/1": video_tracks * seconds for i in range(participants)}
    return metered({name: Connection(seconds, cloud=cloud, video=videos.get(name, 0)) for name in names}, cloud=cloud)
