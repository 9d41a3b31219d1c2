"""Two Projects: one runs dry under three live interviews at once, the other does not notice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from hack.chaos import books
from hack.chaos.books import Books, SessionBook
from hack.chaos.projects import apply, project, secret
from hack.demo import showing
from hack.demo.interviews import Held, Round, hold
from hack.demo.release import NAMESPACE, wait_ready
from tests.conftest import locked_real_sessions
from tests.e2e.house import House, eventually
from tests.e2e.sides import MONEY, moment, post, speech_seconds

PLACE = "two-projects"
BUDGET = Decimal("0.19")
"""Three sessions hold about 0.04 each and spend about 0.5 cents a turn: dry after about two minutes."""
FLOOR = Decimal("0.04")
INTERVIEWS = Round(PLACE, "dry", count=3, concurrency=3, max_seconds=420, stay=True)
NEIGHBOUR = Round(PLACE, "other", count=1, concurrency=1, turns=4, min_seconds=40)


@dataclass(frozen=True)
class Evening:
    """What was held, what the front door said in between, the other Project before and after, and the books."""

    dry: Held
    other: Held
    refusal: dict[str, Any]
    ticket_refusal: dict[str, Any]
    live_when_refused: int
    before: dict[str, Any]
    after: dict[str, Any]
    final: Books

    @property
    def dry_books(self) -> list[SessionBook]:
        return self.final.of({session["session"] for session in self.dry.sessions})

    def account(self, one: SessionBook) -> dict[str, Any]:
        """The account that the session was on."""
        [found] = [row for row in self.final.accounts if row["id"] == one.account]
        return found


@pytest.fixture(scope="module")
def studies(house: House) -> Iterator[None]:
    """Session limits far above what the budget holds: the Project's budget is what binds."""
    room = {"limit": str(BUDGET), "admitFloor": str(FLOOR)}
    # A run before this one on a kept cluster has spent the budget: each run has accounts of its own.
    seen = house.rows(f"""SELECT coalesce(max(a.generation), 0) AS last FROM accounts a JOIN projects p
                          ON p.id = a.project_id WHERE p.namespace = '{PLACE}'""")
    generation = int(seen[0]["last"]) + 1
    dry = project(PLACE, "dry", sessions=4, amount=str(BUDGET), session=room, accountGeneration=generation)
    other = project(PLACE, "other", sessions=2, amount="5", session={"limit": "1"}, accountGeneration=generation)
    apply(house, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PLACE}}, secret(PLACE), dry, other)
    wait_ready(house.kube, PLACE, "dry", "other")
    yield
    house.kube("delete", "projects", "--all", "-n", PLACE, "--wait=false")


@pytest.fixture(scope="module")
def evening(house: House, studies: None) -> Evening:
    """Three interviews on the dry Project; while they live and it admits nobody any more, one on the other."""
    said: list[str] = []
    before = house.project(PLACE, "other")["status"]
    base = f"http://talktime-gateway.{NAMESPACE}.svc:8080/v1/projects/{PLACE}/dry"
    key = house.kube.secret(PLACE, "dry-access", "server-key")
    with locked_real_sessions(), ThreadPoolExecutor(2) as pool:
        dry = pool.submit(hold, house.kube, house.images, INTERVIEWS, house.folder / "dry", said.append)
        try:
            live, refusal, ticket_refusal = eventually(
                "nobody is admitted any more while three talk", lambda: turned_away(house, base, key), 240
            )
            other = pool.submit(hold, house.kube, house.images, NEIGHBOUR, house.folder / "other", said.append)
            held = dry.result(), other.result()
        except BaseException:
            print("\n".join(said))
            raise
    eventually("all sessions are over", lambda: not open_sessions(house), 240)
    after = eventually("the other Project shows its cost", lambda: settled(house, "other"), 180)
    return Evening(*held, refusal, ticket_refusal, live, before, after, books.read(house))


def turned_away(house: House, base: str, key: str) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
    """How many interviews live on the dry Project, and what a backend and a ticket are told, once nobody is admitted.

    What three hold goes up and down with their answers: a newcomer may find room where there was none a moment before.
    """
    live = admits_nobody(house)
    if live is None:
        return None
    refusal = post(house, f"{base}/token", key)
    if refusal["status"] == 201:
        return None
    ticket = post(house, f"{base}/tickets", key, {"expires_in_sec": 600})["body"]["ticket"]
    ticket_refusal = post(house, f"{base}/token", ticket)
    return None if ticket_refusal["status"] == 201 else (live, refusal, ticket_refusal)


def admits_nobody(house: House) -> int | None:
    """How many interviews live on the dry Project, once it has less available than a new session needs."""
    [row] = house.rows(f"""SELECT a.budget - a.posted - a.reserved AS available, a.open_sessions FROM accounts a
                           JOIN projects p ON p.id = a.project_id WHERE p.namespace = '{PLACE}' AND p.name = 'dry'
                           ORDER BY a.generation DESC LIMIT 1""") or [{"available": BUDGET, "open_sessions": 0}]
    attached = house.rows(f"""SELECT s.id::text FROM sessions s JOIN projects p ON p.id = s.project_id
                              WHERE p.namespace = '{PLACE}' AND p.name = 'dry' AND s.state = 'open' AND s.turns > 0""")
    return len(attached) if row["available"] < FLOOR and len(attached) == INTERVIEWS.count else None


def open_sessions(house: House) -> list[dict[str, Any]]:
    return house.rows(f"""SELECT s.id::text AS id FROM sessions s JOIN projects p ON p.id = s.project_id
                          WHERE p.namespace = '{PLACE}' AND s.state = 'open'""")


def settled(house: House, name: str) -> dict[str, Any] | None:
    """The Project's status once nothing is open and something is paid for."""
    status: dict[str, Any] = house.project(PLACE, name)["status"]
    budget = status["budget"]
    over = status["sessions"]["open"] == 0 and Decimal(budget["reserved"]) == 0 and Decimal(budget["posted"]) > 0
    return status if over else None


def test_spend_stays_within_the_budget_to_the_micro_dollar(house: House, evening: Evening) -> None:
    account = evening.account(evening.dry_books[0])
    posted = sum((one.posted for one in evening.dry_books), Decimal(0))
    billed = sum((one.truth_usd for one in evening.dry_books), Decimal(0))
    print(f"budget {BUDGET}, posted {posted}, billed {billed}")
    assert account["posted"] == posted
    assert posted <= BUDGET
    assert billed <= posted
    # What was metered is posted at what it was billed; a response whose end nobody saw, at its bound.
    counted = sum((one.counted_usd for one in evening.dry_books), Decimal(0))
    assert counted == posted - sum((one.unmetered_usd for one in evening.dry_books), Decimal(0)), evening.dry_books
    # The ceiling rises when more is ever posted + reserved than the budget.
    assert account["ceiling"] == account["budget"] == BUDGET
    shown = eventually("the resource shows the cost", lambda: settled(house, "dry"), 180)
    assert abs(Decimal(shown["budget"]["posted"]) - posted) < Decimal("0.000001")
    # What three sessions held at the end came back: the Project is at its hard limit if that carries no further one.
    assert (shown["budget"]["state"] == "HardLimit") == (BUDGET - posted < FLOOR), shown["budget"]


def test_it_is_the_projects_budget_that_ends_them(evening: Evening) -> None:
    # The session limit is as high as the budget: under it each could have had more than W + C (0.026) more.
    assert max(one.posted for one in evening.dry_books) < BUDGET - Decimal("0.03")
    posted = sum((one.posted for one in evening.dry_books), Decimal(0))
    assert posted > BUDGET / 2, "a budget of which less than half can be used is not one"


def test_the_independent_checker_agrees(house: House, evening: Evening) -> None:
    ours = [line for line in evening.final.wrong() if any(one.session in line for one in evening.dry_books)]
    assert ours == []

    def checked() -> str | None:
        dry = [one.session for one in evening.dry_books]
        _, words = showing.money_adds_up(house.kube, house.folder / "checker", dry)
        mine = [line for line in words.splitlines() if any(one.session in line for one in evening.dry_books)]
        # A short conversation need not have had anything cached.
        wrong = [line for line in mine if "WRONG" in line and "never counted" not in line]
        print("\n".join(mine))
        return words if mine and not wrong else None

    eventually("the checker finds these sessions right", checked, 240, every=5)


def test_all_three_hear_the_closing_line_after_the_hard_limit(evening: Evening) -> None:
    assert len(evening.dry.sessions) == 3
    recorded = {session["session"]: session for session in evening.dry.sessions}
    for one in evening.dry_books:
        assert one.close_reason == "budget", one
        hard, closing = one.event("hard_limit"), one.event("closing_finished")
        assert hard is not None
        assert closing is not None, f"{one.session} left without its closing line"
        heard = speech_seconds(evening.dry.folder, recorded[one.session], since=moment(hard))
        print(f"{one.session}: {heard:.1f} s of speech after the hard limit, {one.posted} USD")
        assert heard >= 1
    assert [session["problems"] for session in evening.dry.sessions] == [[], [], []]


def test_the_dry_project_refuses_while_its_three_interviews_live(evening: Evening) -> None:
    assert evening.live_when_refused == 3
    assert evening.refusal["status"] == 402
    assert evening.refusal["body"]["reason"] == "BudgetExhausted"
    assert {"available", "needed"} <= set(evening.refusal["body"])
    assert evening.ticket_refusal["status"] == 403
    assert not MONEY.search(json.dumps(evening.ticket_refusal["body"]))


def test_the_other_project_does_not_notice(house: House, evening: Evening) -> None:
    [session] = evening.other.sessions
    assert session["problems"] == []
    assert session["waited_for_token"] < 10
    assert {update["limit_state"] for update in session["observer"]["updates"]} == {"ok"}
    [one] = evening.final.of({session["session"]})
    assert one.close_reason == "participant_left"
    assert not one.reserved
    assert not one.unmetered_usd
    # It began while the first Project was dry, and its books hold its own cost and nothing else.
    account = evening.account(one)
    assert account["posted"] == one.posted == one.truth_usd > 0
    assert account["reserved"] == 0
    assert evening.after["budget"]["state"] == "OK"
    assert Decimal(evening.after["budget"]["available"]) == Decimal("5") - Decimal(evening.after["budget"]["posted"])
    refused = f"""SELECT r.reason, r.count FROM refusals r JOIN projects p ON p.id = r.project_id
                  WHERE p.namespace = '{PLACE}' AND p.name = 'other'"""
    assert house.rows(refused) == []
    changed = {c["type"] for c in evening.after["conditions"]} - {c["type"] for c in evening.before["conditions"]}
    assert changed <= {"CredentialsValid"}
    since = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in evening.before["conditions"]}
    for condition in evening.after["conditions"]:
        if condition["type"] in ("BudgetAvailable", "LedgerReachable", "PriceKnown", "BudgetFeasible", "Ready"):
            assert (condition["status"], condition["lastTransitionTime"]) == since[condition["type"]], condition
