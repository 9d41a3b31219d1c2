"""Two interviews and one that reaches its limits, side by side, while operator, ledger and gateway are killed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from hack.demo import release, showing
from hack.demo.interviews import Held, Round, hold
from hack.demo.release import CHART, NAMESPACE
from tests.conftest import locked_real_sessions
from tests.e2e import census
from tests.e2e.house import House, eventually, open_responses
from tests.e2e.sides import MONEY, ledger_session, moment, post, speech_seconds

INTERVIEWS = Round("demo", "interviews", count=2, concurrency=2)
LIMIT = Round("demo", "limit", count=1, concurrency=1, stay=True)
PROCESSES = {
    "operator": r"-m talktime_operator",
    "ledger": r"-m talktime_ledger serve",
    "gateway": r"-m talktime_gateway",
}


@dataclass(frozen=True)
class Afternoon:
    """What was held, and the names of the parts that died in the middle of a response."""

    interviews: Held
    limit: Held
    killed: list[str]
    census: list[census.Process]
    """What ran for this cluster in the middle of the first response."""


@pytest.fixture(scope="module")
def afternoon(house: House) -> Iterator[Afternoon]:
    """All three sessions of this module, held once; every test looks at another side of them."""
    said: list[str] = []
    done = threading.Event()
    # A second go (ADR 8) begins where the first one did.
    release.open_account_again(house.kube, "demo", "limit")
    with locked_real_sessions(), ThreadPoolExecutor(3) as pool:
        held = [
            pool.submit(hold, house.kube, house.images, one, house.folder / one.project, said.append)
            for one in (INTERVIEWS, LIMIT)
        ]
        disturbing = pool.submit(disturb, house, done)
        try:
            interviews, limit = (one.result() for one in held)
        except BaseException:
            print("\n".join(said))
            raise
        finally:
            done.set()
        yield Afternoon(interviews, limit, *disturbing.result())


def disturb(house: House, done: threading.Event) -> tuple[list[str], list[census.Process]]:
    """kill -9 of each part once and `kubectl delete pod` of each once, each time while a response is open.

    Also what ran while all of it still did.
    """
    killed: list[str] = []
    counted: list[census.Process] = []
    with house.simulator_events() as log:
        for how in ("kill -9", "delete pod"):
            for part, command in PROCESSES.items():
                eventually("a response is open", lambda: done.is_set() or open_responses(log()) > 0, 240, every=0.1)
                if done.is_set():
                    return killed, counted
                if not counted:
                    counted = census.of_cluster(census.look(), house.cluster, census.spaces(house.cluster))
                if how == "kill -9":
                    assert house.kill(command), f"no {part} process"
                else:
                    selector = f"app.kubernetes.io/component={part}"
                    house.kube("-n", NAMESPACE, "delete", "pod", "-l", selector, "--wait=false")
                killed.append(f"{how} {part}")
                done.wait(5)
    return killed, counted


def test_costs_equal_the_simulators_tokens_priced_anew_to_the_micro_dollar(house: House, afternoon: Afternoon) -> None:
    sessions = [*afternoon.interviews.ids, *afternoon.limit.ids]

    def checked() -> str | None:
        adds_up, words = showing.money_adds_up(house.kube, house.folder / "checker", sessions)
        print(words)
        return words if adds_up else None

    assert eventually("ledger, resource and Prometheus agree with the tokens", checked, 240, every=5)
    wrong, words = showing.money_adds_up(
        house.kube, house.folder / "checker", sessions, "--set-rate", "gpt-realtime-2.1-mini:audio_out=20.1"
    )
    assert not wrong, f"another rate must not add up:\n{words}"


def test_the_limit_session_wraps_up_once_then_closes_and_nothing_more_is_generated(
    house: House, afternoon: Afternoon
) -> None:
    [session] = afternoon.limit.sessions
    ledger = ledger_session(house, session["session"])
    events = {event["name"]: moment(event["at"]) for event in ledger["events"]}
    provider = wrapped_up_log(house, moment(ledger["opened_at"]))
    created = [record for record in provider if record["event"] == "response.create"]
    wrap_ups = [moment(record["at"]) for record in created if record["wrap_up"]]
    assert len(wrap_ups) == 1
    assert wrap_ups[0] < events["closing_started"]
    late = [record for record in created if moment(record["at"]) > events["hard_limit"] and not record["closing"]]
    assert late == [], "a response began after the hard limit"


def test_the_limit_session_costs_no_more_than_its_cap_and_ends_gracefully(house: House, afternoon: Afternoon) -> None:
    [session] = afternoon.limit.sessions
    ledger = ledger_session(house, session["session"])
    events = {event["name"]: moment(event["at"]) for event in ledger["events"]}
    assert ledger["close_reason"] == "budget"
    assert Decimal("0") < Decimal(ledger["posted"]) <= Decimal(ledger["limit"])
    assert Decimal(ledger["reserved"]) == 0
    left = max(moment(entry["at"]) for entry in session["received"]["timeline"])
    assert left - events["hard_limit"] <= 10
    # As it is heard: what the agent takes beside that is inside the ten seconds.
    assert 1 <= speech_seconds(afternoon.limit.folder, session, since=events["hard_limit"]) <= 5.5


def test_nothing_that_a_participant_receives_tells_of_money_but_observers_see_it(afternoon: Afternoon) -> None:
    for session in [*afternoon.interviews.sessions, *afternoon.limit.sessions]:
        # The claims are searched, not the token's base64, which may hold any three letters by chance.
        received = json.dumps({part: value for part, value in session["received"].items() if part != "token"})
        assert not MONEY.search(received), MONEY.findall(received)
        updates = session["observer"]["updates"]
        assert updates
        assert updates[-1]["total_usd"] > 0
    [limit] = afternoon.limit.sessions
    assert {update["limit_state"] for update in limit["observer"]["updates"]} >= {"ok", "soft", "hard"}


def test_every_part_was_killed_in_the_middle_of_a_response(afternoon: Afternoon) -> None:
    assert afternoon.killed == [f"{how} {part}" for how in ("kill -9", "delete pod") for part in PROCESSES]


def test_interviews_are_held_to_their_own_end_whatever_dies(afternoon: Afternoon) -> None:
    for session in afternoon.interviews.sessions:
        assert session["problems"] == []
        assert session["turns"] >= 6
        assert session["seconds"] >= 45
        assert len(session["observer"]["updates"]) >= 4


def test_both_sfu_nodes_had_rooms(house: House, afternoon: Afternoon) -> None:
    rooms = house.prometheus('max by (pod) (max_over_time(livekit_room_total{pod=~"sfu-eu-.*"}[15m]))')
    assert len(rooms) == 2, rooms
    assert min(rooms.values()) >= 1, rooms


def test_everything_runs_in_pods(house: House, afternoon: Afternoon) -> None:
    assert census.absent(afternoon.census) == []
    assert census.outside_of_pods(afternoon.census, house.cluster) == []


def test_a_spent_project_refuses_with_numbers_to_the_backend_and_neutrally_to_a_ticket(
    house: House, afternoon: Afternoon
) -> None:
    state = eventually(
        "state HardLimit",
        lambda: house.project("demo", "limit")["status"]["budget"]["state"] == "HardLimit",
        180,
    )
    assert state
    key = house.kube.secret("demo", "limit-access", "server-key")
    base = f"http://talktime-gateway.{NAMESPACE}.svc:8080/v1/projects/demo/limit"
    refused = post(house, f"{base}/token", key)
    assert refused["status"] == 402
    assert {"available", "needed"} <= set(refused["body"])
    ticket = post(house, f"{base}/tickets", key, {"expires_in_sec": 600})["body"]["ticket"]
    neutral = post(house, f"{base}/token", ticket)
    assert neutral["status"] == 403
    assert "interview not available" in json.dumps(neutral["body"]).lower()
    assert not MONEY.search(json.dumps(neutral["body"]))


def test_every_query_of_the_finance_dashboard_has_data_in_the_real_prometheus(
    house: House, afternoon: Afternoon
) -> None:
    board = json.loads((CHART / "dashboards" / "finance.json").read_text())
    queries = {target["expr"] for panel in board["panels"] for target in panel.get("targets", [])}
    assert queries

    def empty() -> list[str]:
        chosen = {query: query.replace("$namespace", ".*").replace("$project", ".*") for query in queries}
        return [query for query, asked in chosen.items() if not house.prometheus(asked)]

    eventually("every dashboard query has data", lambda: not empty(), 180, every=5)


def wrapped_up_log(house: House, since: float) -> list[dict[str, Any]]:
    """What the simulator logged since then of the provider session that was told to wrap up: the limit session's."""
    log = [record for record in house.simulator_log() if moment(record["at"]) >= since]
    ours = {record["provider_session"] for record in log if record["event"] == "response.create" and record["wrap_up"]}
    return [record for record in log if record["provider_session"] in ours]
