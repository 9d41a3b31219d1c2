"""The laws, recomputed from rows."""

from __future__ import annotations

from typing import Any

from .lawful_agent import ZERO
from .stateful_calls import Calls

ACCOUNTS = """SELECT a.id, a.kind, a.generation, a.period, a.budget, a.posted, a.reserved, a.open_sessions, a.soft_at,
    (SELECT COALESCE(SUM(s.reserved), 0) FROM sessions s WHERE s.project_id = a.project_id
       AND a.id IN (s.account_id, s.participant_account_id)) AS held,
    (SELECT COUNT(*) FROM sessions s WHERE s.project_id = a.project_id
       AND a.id IN (s.account_id, s.participant_account_id) AND s.state = 'open') AS open,
    (SELECT COALESCE(SUM(e.amount_usd), 0) FROM entries e JOIN sessions s ON s.id = e.session_id
       WHERE s.project_id = a.project_id AND a.id IN (e.account_id, e.participant_account_id)) AS entered
  FROM accounts a WHERE a.project_id = ANY($1)"""

SESSIONS = """SELECT s.id, s.account_id, s.state, s.epoch, s.limit_usd, s.posted, s.reserved, s.transport_hold_usd,
    COALESCE(e.budgeted, 0) AS budgeted, COALESCE(e.ai, 0) AS ai, COALESCE(e.every, 0) AS every,
    COALESCE(e.unmetered, 0) AS unmetered, COALESCE(e.entries, 0) AS entries,
    COALESCE(c.ai, 0) AS costs_ai, COALESCE(c.every, 0) AS costs_every, COALESCE(c.unmetered, 0) AS costs_unmetered
  FROM sessions s
  LEFT JOIN LATERAL (SELECT SUM(amount_usd) FILTER (WHERE account_id IS NOT NULL) AS budgeted,
      SUM(amount_usd) FILTER (WHERE leg = 'ai') AS ai, SUM(amount_usd) AS every, SUM(unmetered_usd) AS unmetered,
      COUNT(*) AS entries FROM entries WHERE session_id = s.id) e ON TRUE
  LEFT JOIN LATERAL (SELECT SUM(ai_cost_usd) AS ai, SUM(total_cost_usd) AS every, SUM(unmetered_usd) AS unmetered
      FROM session_costs WHERE session_id = s.id) c ON TRUE
  WHERE s.project_id = ANY($1)"""


class Books(Calls):
    """What must hold after each step."""

    def check(self) -> None:
        """The laws, recomputed from rows."""
        rows, found = self.run(self.books())
        for row in rows:
            self.check_account(row)
        for row in found:
            self.check_session(row)
        self.before = {row["id"]: row for row in rows}
        self.sessions = {row["id"]: row for row in found}
        self.facts, self.rebudgeted, self.racing = ZERO, False, False

    async def books(self) -> tuple[list[Any], list[Any]]:
        async with self.world.pool.acquire() as connection:
            rows = await connection.fetch(ACCOUNTS.replace("a.id,", "a.id, a.project_id,", 1), self.ids)
            return rows, await connection.fetch(SESSIONS, self.ids)

    def check_account(self, row: Any) -> None:
        total, before = row["posted"] + row["reserved"], self.before.get(row["id"])
        allowed = row["budget"]
        if before is not None:
            allowed = max(allowed, before["posted"] + before["reserved"])
            if self.racing and self.rebudgeted:
                allowed = max(allowed, before["budget"])
        study = next(study for study, one in zip(self.studies, self.ids, strict=True) if one == row["project_id"])
        bound = row["kind"] == "project" or study.participant is not None
        assert not bound or total <= allowed + self.facts, ("over the budget", dict(row))
        assert row["reserved"] == row["held"], ("reserved is not what the sessions hold", dict(row))
        assert row["posted"] == row["entered"], ("posted is not the sum of the entries", dict(row))
        assert row["open_sessions"] == row["open"], dict(row)
        if before is not None and row["budget"] == before["budget"] and before["soft_at"] is not None:
            undone = self.rebudgeted and row["soft_at"] is None and row["posted"] < row["budget"] * study.soft / 100
            assert row["soft_at"] == before["soft_at"] or undone, ("latched twice", dict(row))
        if row["soft_at"] is not None and (before is None or before["soft_at"] is None) and not self.racing:
            assert row["posted"] >= row["budget"] * study.soft / 100, ("latched too early", dict(row))

    def check_session(self, row: Any) -> None:
        total, before = row["posted"] + row["reserved"], self.sessions.get(row["id"])
        allowed = row["limit_usd"]
        if before is not None:
            allowed = max(allowed, before["posted"] + before["reserved"])
            assert row["entries"] >= before["entries"], "entries are append-only"
            if (before["state"], row["state"]) == ("open", "closed") and not self.racing:
                pot = min(before["transport_hold_usd"], before["reserved"])
                assert row["reserved"] == pot, ("people are in the room", pot, dict(row))
        assert total <= allowed + self.facts, ("over the session limit", dict(row))
        assert row["state"] == "open" or row["reserved"] <= row["transport_hold_usd"], dict(row)
        assert row["posted"] == row["budgeted"], dict(row)
        assert (row["ai"], row["every"]) == (row["costs_ai"], row["costs_every"]), ("session_costs", dict(row))
        assert row["unmetered"] == row["costs_unmetered"], dict(row)
        interview = next((one for one in self.interviews if one.id == row["id"]), None)
        if interview is None:
            return
        # The law behind the laws: whatever its agents really spent, told or not, is posted or reserved.
        spent = sum((agent.true_cost for agent in interview.agents), ZERO)
        covered = row["ai"] + row["reserved"] - min(row["transport_hold_usd"], row["reserved"])
        assert spent <= covered, ("spent and neither posted nor reserved", spent, covered, dict(row))
