"""Is every account right after the faults? The simulator's truth priced anew against every row of the ledger.

Independent like hack/checker.py, whose prices it uses: nothing of Talktime is imported. Amounts in USD.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hack.chaos.house import House
from hack.checker import Rates, key_of, load_rates, price
from hack.demo.release import EXAMPLES

ZERO = Decimal(0)
REHEARSED = "http://talktime-simulator."
"""How the endpoint of a session begins whose provider is the house's simulator; of others it may know nothing."""
NANO = Decimal("0.000000001")

Row = dict[str, Any]

SESSIONS = """
SELECT s.id::text AS id, p.namespace, p.name AS project, s.account_id, s.state, s.close_reason, s.posted, s.reserved,
       s.epoch, s.turns, extract(epoch FROM s.opened_at) AS opened_at, extract(epoch FROM s.closed_at) AS closed_at,
       extract(epoch FROM s.attached_at) AS attached_at, s.events,
       (SELECT coalesce(sum(ai_cost_usd), 0) FROM session_costs c WHERE c.session_id = s.id) AS ai_usd,
       (SELECT coalesce(sum(unmetered_usd), 0) FROM entries e WHERE e.session_id = s.id AND e.leg = 'ai')
         AS unmetered_usd,
       s.config->>'endpoint' AS endpoint,
       (SELECT coalesce(json_agg(json_build_object('key', u.key, 'unmetered', u.unmetered)), '[]')
          FROM usage_events u WHERE u.session_id = s.id) AS usages
FROM sessions s JOIN projects p ON p.id = s.project_id
"""
ACCOUNTS = """
SELECT a.id, a.kind, p.namespace, p.name AS project, a.budget, a.ceiling, a.posted, a.reserved, a.open_sessions,
       (SELECT coalesce(sum(amount_usd), 0) FROM entries e
          WHERE (a.kind = 'project' AND e.account_id = a.id)
             OR (a.kind = 'participant' AND e.participant_account_id = a.id)) AS entries_usd
FROM accounts a JOIN projects p ON p.id = a.project_id
"""


@dataclass(frozen=True)
class SessionBook:
    """One session: what the provider billed (`truth_usd`), what the ledger posted, and how the two differ."""

    session: str
    project: str
    account: int
    state: str
    close_reason: str
    reserved: Decimal
    posted: Decimal
    ai_usd: Decimal
    unmetered_usd: Decimal
    truth_usd: Decimal
    rehearsed: bool
    """Whether the truth at hand is of its provider; of another one's sessions it says nothing."""
    counted_usd: Decimal
    """Priced truth of the things that the ledger has as metered usage."""
    uncounted: tuple[str, ...]
    """Billed things that the ledger knows no usage of: their cost must be within `unmetered_usd`."""
    row: Row

    @property
    def lost_usd(self) -> Decimal:
        """Billed and not posted, not even at a bound."""
        return max(ZERO, self.truth_usd - self.ai_usd) if self.rehearsed else ZERO

    @property
    def double_posted_usd(self) -> Decimal:
        """Metered money beyond what the provider billed for those things."""
        return max(ZERO, self.ai_usd - self.unmetered_usd - self.counted_usd) if self.rehearsed else ZERO

    def event(self, name: str) -> str | None:
        """RFC 3339 time of an event of the session's timeline."""
        return next((str(one["at"]) for one in self.row["events"] if one["name"] == name), None)


@dataclass(frozen=True)
class Books:
    """All sessions and accounts at one moment, and truth that belongs to no session."""

    sessions: tuple[SessionBook, ...]
    accounts: tuple[Row, ...]
    unowned_usd: Decimal

    def of(self, sessions: Collection[str]) -> list[SessionBook]:
        return [one for one in self.sessions if one.session in sessions]

    def of_project(self, name: str) -> list[SessionBook]:
        """`name`: namespace/name. The eldest first."""
        return sorted((one for one in self.sessions if one.project == name), key=lambda one: one.row["opened_at"])

    @property
    def open(self) -> list[str]:
        return [one.session for one in self.sessions if one.state == "open"]

    @property
    def reserved_usd(self) -> Decimal:
        """Held by anybody, on any account."""
        return sum((row["reserved"] for row in self.accounts), ZERO) + sum((s.reserved for s in self.sessions), ZERO)

    def wrong(self) -> list[str]:
        """Everything that breaks a law, in words; empty when the books are right. Ask when all sessions are over."""
        found = [f"{one}: still open" for one in self.open]
        for one in self.sessions:
            if one.lost_usd:
                found.append(f"{one.session}: {one.lost_usd} USD billed and never posted ({', '.join(one.uncounted)})")
            if one.double_posted_usd:
                found.append(f"{one.session}: {one.double_posted_usd} USD posted beyond what was billed")
            if one.posted != one.ai_usd:
                found.append(f"{one.session}: posted {one.posted}, session_costs {one.ai_usd}")
        for row in self.accounts:
            name = f"{row['kind']} account {row['id']} of {row['namespace']}/{row['project']}"
            if row["reserved"] or row["open_sessions"]:
                found.append(f"{name}: {row['reserved']} USD reserved by {row['open_sessions']} open sessions")
            if row["posted"] != row["entries_usd"]:
                found.append(f"{name}: posted {row['posted']}, entries {row['entries_usd']}")
            mine = sum((one.ai_usd for one in self.sessions if one.account == row["id"]), ZERO)
            if row["kind"] == "project" and row["posted"] != mine:
                found.append(f"{name}: posted {row['posted']}, session_costs {mine}")
            if row["posted"] > row["budget"]:
                found.append(f"{name}: posted {row['posted']} of {row['budget']}")
        if self.unowned_usd:
            found.append(f"{self.unowned_usd} USD billed on connections that no session knows")
        return found


def compare(truth: Sequence[Row], rates: Rates, sessions: Sequence[Row], accounts: Sequence[Row]) -> Books:
    """Pure. `sessions`, `accounts`: rows of SESSIONS and ACCOUNTS."""
    owner: dict[str, str] = {}
    counted: dict[str, set[str]] = {}
    for row in sessions:
        counted[row["id"]] = {usage["key"] for usage in row["usages"] if not usage["unmetered"]}
        for usage in row["usages"]:
            # Of a transcription this is the item; such a "connection" bills nothing and is never looked up.
            owner[usage["key"].rpartition("/")[0]] = row["id"]
    items = {usage["key"]: row["id"] for row in sessions for usage in row["usages"]}
    for record in truth:
        if key_of(record) in items:
            owner.setdefault(record["provider_session"], items[key_of(record)])
    billed: dict[str, list[tuple[str, Decimal]]] = defaultdict(list)
    unowned = ZERO
    for record in truth:
        usd = price(record, rates)
        session = owner.get(record["provider_session"])
        if session is None:
            unowned += usd
        else:
            billed[session].append((key_of(record), usd))
    books = tuple(_session_book(row, billed[row["id"]], counted[row["id"]]) for row in sessions)
    return Books(books, tuple({**row, **_money(row, ACCOUNT_MONEY)} for row in accounts), unowned)


ACCOUNT_MONEY = ("budget", "ceiling", "posted", "reserved", "entries_usd")
SESSION_MONEY = ("posted", "reserved", "ai_usd", "unmetered_usd")


def _session_book(row: Row, billed: Sequence[tuple[str, Decimal]], counted: Collection[str]) -> SessionBook:
    money = _money(row, SESSION_MONEY)
    return SessionBook(
        session=row["id"],
        project=f"{row['namespace']}/{row['project']}",
        account=int(row["account_id"]),
        state=row["state"],
        close_reason=row["close_reason"] or "",
        rehearsed=bool(billed) or str(row["endpoint"] or "").startswith(REHEARSED),
        truth_usd=sum((usd for _, usd in billed), ZERO),
        counted_usd=sum((usd for key, usd in billed if key in counted), ZERO),
        uncounted=tuple(key for key, _ in billed if key not in counted),
        row=row,
        **money,
    )


def _money(row: Row, names: Sequence[str]) -> dict[str, Decimal]:
    """JSON writes 0E-9 and 1 for NUMERIC: all as Decimal at 1e-9."""
    return {name: Decimal(str(row[name])).quantize(NANO) for name in names}


def read(house: House) -> Books:
    """The books as they stand. Raises RuntimeError when the database is away."""
    sessions, accounts = house.rows(SESSIONS), house.rows(ACCOUNTS)
    return compare(house.truth(), load_rates([EXAMPLES / "rate-cards"]), sessions, accounts)
