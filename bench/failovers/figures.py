"""What the guests' events say about one fault, and about all. Pure; moments in unix seconds, figures in seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from math import ceil
from typing import Any

Event = dict[str, Any]
NEVER = 60.0
"""What a guest counts who was not there again within the minute that is waited."""


PRESENT = ("joined", "back", "moved")
"""Events that say on which server a guest is from then on."""


@dataclass(frozen=True)
class Sample:
    """One fault. `new`: from the fault until a new guest and an agent were in a room; `again`: by guest, until the
    agent's words were heard again; None: not within the minute. `new_server`: where the newcomer was then. `moved`:
    guests that went elsewhere; `disturbed`: whose connection broke. `most_agents`: seen by one guest at once after the
    fault. `server_back`: until the process of the SFU that died began anew, where it was to; None: it did not.

    `awaited`: whether a newcomer came at all; `servers`: where each guest was last; `renamed`: guests who came into
    another session. `restaffed`: by guest whose agent the fault took, until the next one was in the room, which it is
    not before the ledger has let it attach; `last_agents`: how many such a guest saw at the end. `agreed`: how long
    front doors and the pool's status said different things, None: they never came to say the same. `switches`: how
    often the pool switched from before the fault to after it was mended; `sfu_restarted`: whether its process did.
    """

    new: float | None
    new_server: str
    again: dict[str, float | None]
    moved: frozenset[str]
    disturbed: frozenset[str]
    ended: frozenset[str]
    most_agents: int
    sessions: dict[str, str]
    server_back: float | None = None
    awaited: bool = True
    servers: dict[str, str] = field(default_factory=dict)
    renamed: frozenset[str] = frozenset()
    restaffed: dict[str, float | None] = field(default_factory=dict)
    last_agents: dict[str, int] = field(default_factory=dict)
    agreed: float | None = None
    switches: int | None = None
    sfu_restarted: bool | None = None

    @property
    def whole(self) -> bool:
        """Nobody is waited for any more."""
        waited = [*self.again.values(), *self.restaffed.values(), *([self.new] if self.awaited else [])]
        return None not in waited


def first(events: Sequence[Event], who: str, what: str, since: float = 0.0) -> Event | None:
    """The guest's first such event at or after `since`."""
    return next((e for e in events if e["who"] == who and e["what"] == what and e["at"] >= since), None)


def new_interview(events: Sequence[Event], who: str) -> float | None:
    """When the guest is in the room and an agent, too; None: not yet."""
    joined = first(events, who, "joined")
    agent = next((e for e in events if e["who"] == who and e["what"] == "agents" and e["count"] >= 1), None)
    return None if joined is None or agent is None else max(joined["at"], agent["at"])


def words_again(events: Sequence[Event], who: str, fault: float, *, breaks: bool) -> float | None:
    """When an agent was heard after the guest's connection broke and was good again; None: not yet.

    One that breaks once more (a try in place, then a move) counts from its last recovery. `breaks` False: a fault that
    should leave the connection alone; then the next words after it count, unless it broke all the same.
    """
    good, heard = not breaks, None
    for event in events:
        if event["who"] != who or event["at"] < fault:
            continue
        match event["what"]:
            case "reconnecting":
                good, heard = False, None
            case "reconnected" | "back" | "moved":
                good, heard = True, None
            case "heard" if good and heard is None:
                heard = float(event["at"])
    return heard


def place(events: Sequence[Event], who: str) -> str:
    """The server the guest was on last; where it never was on one, the one it was sent to first."""
    on = [event["server_url"] for event in events if event["who"] == who and event["what"] in PRESENT]
    sent = first(events, who, "token")
    return str(on[-1]) if on else "" if sent is None else str(sent["server_url"])


def restaffed_at(events: Sequence[Event], who: str, fault: float) -> float | None:
    """When the guest first saw an agent that it had not seen before the fault; None: not yet."""
    seen = [event for event in events if event["who"] == who and event["what"] == "agents"]
    known = {name for event in seen if event["at"] < fault for name in event["names"]}
    return next((float(e["at"]) for e in seen if e["at"] >= fault and set(e["names"]) - known), None)


def agreed(events: Sequence[Event], fault: float, fallback: str, said: float | None) -> float | None:
    """Seconds in which a front door sent somebody to the fallback and the pool's status did not say so yet, or the
    other way round. `said`: when the status said it; None where one of both never did."""
    kinds = ("token", "joined", "moved")
    sent = [e["at"] for e in events if e["at"] >= fault and e["what"] in kinds and e["server_url"] == fallback]
    return None if not sent or said is None else abs(said - min(sent))


def sample(
    events: Sequence[Event],
    fault: float,
    guests: Sequence[str],
    newcomer: str | None,
    *,
    breaks: bool = True,
    hit: Collection[str] = (),
) -> Sample:
    """One fault at that moment, with all events of its guests. `hit`: guests whose agent it took: of the old one's last
    words some may come late, so theirs count from the next agent on."""
    new = None if newcomer is None else new_interview(events, newcomer)
    after = [event for event in events if event["at"] >= fault]
    counted = [event["count"] for event in after if event["what"] == "agents"]
    sessions = {event["who"]: event["session"] for event in events if event["what"] == "token"}

    def who(*kinds: str) -> frozenset[str]:
        return frozenset(event["who"] for event in after if event["what"] in kinds and event["who"] in guests)

    def since(at: float | None) -> float | None:
        return None if at is None else at - fault

    staffed = {guest: restaffed_at(events, guest, fault) for guest in hit}
    again: dict[str, float | None] = {}
    for guest in guests:
        begin = staffed.get(guest, fault)
        again[guest] = None if begin is None else since(words_again(events, guest, begin, breaks=breaks))
    lasts = {e["who"]: int(e["count"]) for e in events if e["what"] == "agents" and e["who"] in hit}
    renamed = [e["who"] for e in after if e["what"] in ("back", "moved") and e["session"] != sessions.get(e["who"])]
    return Sample(
        new=since(new),
        new_server="" if newcomer is None else place(events, newcomer),
        again=again,
        moved=who("moved"),
        disturbed=who("reconnecting", "back", "moved"),
        ended=who("ended"),
        most_agents=max(counted, default=0),
        sessions=sessions,
        awaited=newcomer is not None,
        servers={guest: place(events, guest) for guest in guests},
        renamed=frozenset(renamed),
        restaffed={guest: since(at) for guest, at in staffed.items()},
        last_agents=lasts,
    )


def quantile(samples: Sequence[float], share: float) -> float | None:
    """Nearest rank: the 95th percentile of fewer than 20 is the largest."""
    ordered = sorted(samples)
    return round(ordered[max(ceil(share * len(ordered)), 1) - 1], 2) if ordered else None


def answered_after_being_replaced(log: Sequence[Event], owner: dict[str, str]) -> set[str]:
    """Sessions where an agent asked for a response after its successor had asked for one.

    The goodbye is rendered on a connection of its own: those responses are no part of the talk.
    `log`: the provider's protocol events in their order; `owner`: provider session to session.
    """
    latest: dict[str, str] = {}
    replaced: set[str] = set()
    wrong: set[str] = set()
    for row in log:
        if row["event"] != "response.create" or row.get("closing") or row["provider_session"] not in owner:
            continue
        session, provider_session = owner[row["provider_session"]], row["provider_session"]
        if provider_session in replaced:
            wrong.add(session)
        elif latest.get(session, provider_session) != provider_session:
            replaced.add(latest[session])
        if provider_session not in replaced:
            latest[session] = provider_session
    return wrong


def restored(log: Sequence[Event], owner: dict[str, str]) -> set[str]:
    """Sessions whose later agent was given back what had been said."""
    given = {row["provider_session"] for row in log if str(row.get("item_id", "")).startswith("before_")}
    return {owner[one] for one in given if one in owner}


def result(
    samples: Sequence[Sample], double: int, given_back: int, money: Mapping[str, Decimal], home: str, *, agrees: bool
) -> dict[str, Any]:
    """The figures of one variant. `home`: the pool's server; `agrees`: front doors and status were compared."""
    new = [NEVER if one.new is None else one.new for one in samples if one.awaited]
    again = _or_never(at for one in samples for at in one.again.values())
    staffed = _or_never(at for one in samples for at in one.restaffed.values())
    crowded = sum(one.most_agents > 1 for one in samples)
    back = [one.server_back for one in samples if one.server_back is not None]
    out: dict[str, Any] = {"kills": len(samples), "interviews": len(again)}
    if new:
        out["new_session_p95_s"] = quantile(new, 0.95)
    out["resume_p95_s"] = quantile(again, 0.95)
    if staffed:
        out |= {"restaffed_p95_s": quantile(staffed, 0.95), "restaffed_median_s": quantile(staffed, 0.5)}
        out["restaffed"] = len(staffed)
    if agrees:
        out["agreed_p95_s"] = quantile(_or_never(one.agreed for one in samples), 0.95)
    if new:
        out["new_session_median_s"] = quantile(new, 0.5)
        out["newcomers_elsewhere"] = sum(one.new_server not in ("", home) for one in samples if one.awaited)
    out |= {
        "resume_median_s": quantile(again, 0.5),
        "not_resumed": sum(at is None for one in samples for at in one.again.values()),
        "moved": sum(len(one.moved) for one in samples),
        "disturbed": sum(len(one.disturbed) for one in samples),
        "ended": sum(len(one.ended) for one in samples),
        "context_restored": given_back,
        "lost_usd": f"{money['lost']:f}",
        "double_posted_usd": f"{money['double']:f}",
        "double_agents": double + crowded,
    }
    if back:
        out["server_back_most_s"] = quantile(back, 1)
    if any(one.switches is not None for one in samples):
        out["pool_switches"] = sum(one.switches or 0 for one in samples)
        out["sfu_restarts"] = sum(bool(one.sfu_restarted) for one in samples)
    return out


def _or_never(values: Iterable[float | None]) -> list[float]:
    return [NEVER if value is None else value for value in values]


OF_THE_BENCH = ("kills", "new_session_p95_s", "resume_p95_s", "lost_usd", "double_agents")
"""What the issue wants of the killed SFU stands at the top."""


def whole(results: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The RESULT line's figures: every variant under its name."""
    killed = results.get("killed", {})
    return {name: killed[name] for name in OF_THE_BENCH if name in killed} | dict(results)
