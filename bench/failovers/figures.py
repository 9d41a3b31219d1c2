"""What the guests' events say about one fault, and about all. Pure; moments in unix seconds, figures in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import Any

Event = dict[str, Any]
NEVER = 60.0
"""What a guest counts who was not there again within the minute that is waited."""


@dataclass(frozen=True)
class Sample:
    """One fault. `new`: from the fault until a new guest and an agent were in a room; `again`: by guest, until the
    agent's words were heard again; None: not within the minute. `moved`: guests that went elsewhere; `disturbed`: whose
    connection broke. `most_agents`: seen by one guest at once after the fault. `server_back`: until the process of the
    SFU that died began anew, where it was to; None: it did not."""

    new: float | None
    new_server: str
    again: dict[str, float | None]
    moved: frozenset[str]
    disturbed: frozenset[str]
    ended: frozenset[str]
    most_agents: int
    sessions: dict[str, str]
    server_back: float | None = None


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


def sample(
    events: Sequence[Event], fault: float, guests: Sequence[str], newcomer: str, *, breaks: bool = True
) -> Sample:
    """One fault at that moment, with all events of its guests."""
    new = new_interview(events, newcomer)
    token = first(events, newcomer, "token")
    after = [event for event in events if event["at"] >= fault]
    counted = [event["count"] for event in after if event["what"] == "agents"]

    def who(*kinds: str) -> frozenset[str]:
        return frozenset(event["who"] for event in after if event["what"] in kinds and event["who"] in guests)

    again = {guest: words_again(events, guest, fault, breaks=breaks) for guest in guests}
    return Sample(
        new=None if new is None else new - fault,
        new_server=token["server_url"] if token is not None else "",
        again={guest: None if at is None else at - fault for guest, at in again.items()},
        moved=who("moved"),
        disturbed=who("reconnecting", "back", "moved"),
        ended=who("ended"),
        most_agents=max(counted, default=0),
        sessions={event["who"]: event["session"] for event in events if event["what"] == "token"},
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


def result(samples: Sequence[Sample], double: int, given_back: int, money: dict[str, Decimal]) -> dict[str, Any]:
    """The RESULT line."""
    new = [NEVER if one.new is None else one.new for one in samples]
    again = [NEVER if at is None else at for one in samples for at in one.again.values()]
    crowded = sum(one.most_agents > 1 for one in samples)
    back = [one.server_back for one in samples if one.server_back is not None]
    return {
        "kills": len(samples),
        "interviews": len(again),
        "new_session_p95_s": quantile(new, 0.95),
        "resume_p95_s": quantile(again, 0.95),
        "new_session_median_s": quantile(new, 0.5),
        "resume_median_s": quantile(again, 0.5),
        "not_resumed": sum(at is None for one in samples for at in one.again.values()),
        "moved": sum(len(one.moved) for one in samples),
        "ended": sum(len(one.ended) for one in samples),
        "context_restored": given_back,
        "lost_usd": f"{money['lost']:f}",
        "double_posted_usd": f"{money['double']:f}",
        "double_agents": double + crowded,
        **({"server_back_most_s": quantile(back, 1)} if back else {}),
    }
