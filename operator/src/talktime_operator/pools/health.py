"""What one round of questions says about a pool. Pure: answers come in, a verdict and its cause come out.

Good: a node that takes new rooms answers `/` and its room service. Bad: none does, and it is the nodes' own fault. All
sick together is a dependency's fault: without Redis every node answers 406 and makes no room while media flows, so that
is unknown. So is a server that has just been started again. And so is the silence of everybody, ledger and API server
too: that is our own network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from talktime_operator.pools.failover import Streak, Verdict

SHOWN = 3


class Answer(StrEnum):
    """What a node said."""

    GOOD = "answers"
    STALE = "answers 406, its statistics stand still"
    NO_ROOMS = "answers, but its room service does not"
    WRONG = "answers wrongly"
    REFUSED = "refuses connections"
    HUNG = "takes connections and does not answer"
    SILENT = "cannot be reached"
    NO_MEDIA = "answers, but no UDP comes through"
    RESTARTING = "has just begun anew and does not answer yet"
    UNTRUSTED = "shows a certificate that is not trusted"
    DENIED = "refuses the password"

    def verdict(self, network: Verdict) -> Verdict:
        """As evidence about this node. `network`: whether anything else could be reached."""
        if self is Answer.GOOD:
            return "good"
        if self is Answer.RESTARTING:
            return "unknown"
        return "bad" if self is not Answer.SILENT or network == "good" else "unknown"


DEPENDENT = frozenset({Answer.STALE, Answer.NO_ROOMS})
"""Answers of a node that runs and lacks something."""


UNANSWERED = frozenset({Answer.REFUSED, Answer.HUNG, Answer.SILENT})
"""Of a node that does not run, or might as well not."""


class Cause(StrEnum):
    """Whose fault it is; also the reason of a condition."""

    NONE = "NodesAnswer"
    STARTING = "NodesStarting"
    RESTARTING = "NodesRestarting"
    ONE_NODE = "NodeSick"
    ALL_NODES = "AllNodesSick"
    NO_NODE = "NoNode"
    ROOM_SERVICE = "RoomServiceSick"
    REDIS = "RedisAway"
    NETWORK = "OwnNetwork"
    MEDIA = "MediaBlocked"


@dataclass(frozen=True)
class Round:
    """One round's verdict."""

    verdict: Verdict
    cause: Cause
    message: str = ""


@dataclass(frozen=True)
class Media:
    """UDP to the pool's nodes. `proven`: it came through once, so its absence means something."""

    verdict: Verdict = "unknown"
    message: str = ""
    proven: bool = False


@dataclass(frozen=True)
class Evidence:
    """All that is known about a pool's health now. `sick`: bad for long enough to act on it."""

    streak: Streak = field(default_factory=Streak)
    cause: Cause = Cause.STARTING
    message: str = ""
    sick: bool = False
    fallback: Verdict = "unknown"
    fallback_message: str = ""
    media: Media = field(default_factory=lambda: Media())

    def picture(self) -> tuple[object, ...]:
        """What a reconcile looks at; time alone does not change it."""
        told = self.fallback, self.fallback_message, self.media
        return self.streak.verdict, self.cause, self.message, self.sick, *told


def judge_round(nodes: Mapping[str, Answer], redis: Answer | None, network: Verdict) -> Round:
    """`nodes`: every running node that takes new rooms, by name. `redis`: what it answers us, None if it was not asked;
    a node that makes rooms has its Redis, whatever we see of it."""
    if not nodes:
        return Round("bad", Cause.NO_NODE, "no node runs that takes new rooms")
    sick = {name: answer for name, answer in nodes.items() if answer is not Answer.GOOD}
    told = "; ".join(f"{name} {sick[name].value}" for name in sorted(sick)[:SHOWN])
    if len(sick) < len(nodes):
        return Round("good", Cause.ONE_NODE, told) if sick else Round("good", Cause.NONE)
    lacking = [answer for answer in nodes.values() if answer in DEPENDENT]
    if lacking and redis is not Answer.GOOD:
        says = redis.value if redis in (Answer.UNTRUSTED, Answer.DENIED) else "does not answer"
        return _redis(f"none of {len(nodes)} nodes takes rooms ({told}) and Redis {says}")
    if Answer.RESTARTING in nodes.values():
        # A server that is back within seconds keeps its sessions.
        text = f"none of {len(nodes)} nodes answers, and one is back in a moment: {told}"
        return Round("unknown", Cause.RESTARTING, text)
    if all(answer.verdict(network) == "unknown" for answer in nodes.values()):
        text = "neither nodes nor ledger nor API server answer the operator: its own network; nothing is decided"
        return Round("unknown", Cause.NETWORK, text)
    if len(lacking) == len(nodes):
        if all(answer is Answer.STALE for answer in lacking):
            return _redis("every node answers 406: they do not reach their Redis, which answers the operator")
        return Round("bad", Cause.ROOM_SERVICE, f"none of {len(nodes)} nodes makes rooms: {told}")
    if all(answer is Answer.NO_MEDIA for answer in nodes.values()):
        text = f"UDP comes through to none of {len(nodes)} nodes, which answer over HTTP: look at firewalls before them"
        return Round("bad", Cause.MEDIA, text)
    return Round("bad", Cause.ALL_NODES, f"none of {len(nodes)} nodes answers: {told}")


def _redis(what: str) -> Round:
    text = f"{what}; live rooms go on, the pool stays as it is, new sessions go to the fallback one by one"
    return Round("unknown", Cause.REDIS, text)


def judge_media(nodes: Mapping[str, Answer], proven: bool) -> Media:
    """`nodes`: the last look at each node that takes new rooms and let us join. What never came through may be our own
    way out (a NetworkPolicy), which is no node's fault."""
    proven = proven or Answer.GOOD in nodes.values()
    without = sorted(name for name, answer in nodes.items() if answer is Answer.NO_MEDIA)
    if not nodes:
        return Media("unknown", "no node could be joined yet", proven)
    if not without:
        return Media("good", "", proven)
    told = ", ".join(without[:SHOWN])
    if not proven:
        text = f"UDP never came through to {told}: let the operator's pod send UDP to the nodes (ports.udp) and back"
        return Media("unknown", text, proven)
    return Media("bad", f"UDP no longer comes through to {told}; nodes answer over HTTP", proven)
