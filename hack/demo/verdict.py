"""What an interview of the demo must have been, whatever its participant thought of it: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

TURNS, SECONDS, COST_UPDATES = 6, 45, 4

LIMIT_SESSION = """
SELECT s.state, s.close_reason, s.events,
       (SELECT coalesce(json_agg(u.key), '[]') FROM usage_events u WHERE u.session_id = s.id) AS keys
FROM sessions s WHERE s.id::text = '{session}'
"""


def too_little(sessions: Iterable[Mapping[str, Any]]) -> list[str]:
    """Interviews that were shorter, or watched less, than the demo claims. `sessions`: of the participants' summary."""
    wanted = (("turns", TURNS), ("seconds", SECONDS), ("cost_updates", COST_UPDATES))
    return [
        f"{one.get('session', 'an interview')}: {name.replace('_', ' ')} {one.get(name, 0)}, at least {least} expected"
        for one in sessions
        for name, least in wanted
        if one.get(name, 0) < least
    ]


def limit_unkept(session: str, found: Sequence[Mapping[str, Any]], log: Iterable[Mapping[str, Any]]) -> list[str]:
    """What of "wrapped up once at its soft limit, closed by its budget" does not hold.

    found: rows of LIMIT_SESSION. log: the simulator's; of a session's connections tell the keys of its usages.
    """
    if not found:
        return [f"{session}: the ledger does not know this session"]
    [row] = found
    if row["state"] != "closed":
        return [f"{session}: still open"]
    unkept = []
    if row["close_reason"] != "budget":
        unkept.append(f"{session}: closed by {row['close_reason']}, not by its budget")
    connections = {key.rpartition("/")[0] for key in row["keys"]}
    wrap_ups = [
        moment(record["at"])
        for record in log
        if record["event"] == "response.create" and record["wrap_up"] and record["provider_session"] in connections
    ]
    if len(wrap_ups) != 1:
        unkept.append(f"{session}: told to wrap up {len(wrap_ups)} times, not once")
    closing = [moment(event["at"]) for event in row["events"] if event["name"] == "closing_started"]
    if not closing:
        unkept.append(f"{session}: no closing line")
    elif wrap_ups and max(wrap_ups) >= min(closing):
        unkept.append(f"{session}: told to wrap up after its closing line")
    return unkept


def moment(at: str) -> datetime:
    return datetime.fromisoformat(at)
