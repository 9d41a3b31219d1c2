"""The only SFU of a pool dies under two live interviews while its kubelet is stopped, and stays down for a while.

One sample of what `make bench-failover` does twenty times, on two SFUs beside those that the other journeys use.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from bench.failovers import figures, stand
from bench.failovers.crowd import Crowd, Event
from bench.failovers.figures import Sample
from bench.failovers.rounds import left, shown, talking
from hack.chaos import books, faults, projects
from hack.chaos.books import SessionBook
from hack.chaos.projects import apply, closed, project, secret
from hack.demo.release import NAMESPACE as RELEASE
from hack.demo.release import wait_ready
from tests.conftest import locked_real_sessions
from tests.e2e.house import House, eventually

POOL, FALLBACK = "failing", "second"
PORTS = {"http": 7980, "tcp": 7981, "udp": 7982, "metrics": 7989}
"""Of their machines; `eu` has the usual ones on both."""
GUESTS, NEWCOMER, LATER = ("first", "second"), "newcomer", "later"
QUIET = timedelta(seconds=10)
"""spec.fallback.failbackAfter (bench.failovers.stand.PATIENT)."""
NEW_SECONDS, AGAIN_SECONDS = 30.0, 45.0
"""The bars, 5 s and 12 s, are the bench's, on a machine that does nothing else."""
PATIENCE = 240.0
OWN = f"{stand.NAMESPACE}/{stand.STUDY}"


@dataclass(frozen=True)
class Night:
    """What the guests told of the fault, what the pool said meanwhile and afterwards, and the books at the end.

    `moved`: events of guests that went elsewhere; `home_again`: server of an interview after the failback, None when no
    agent was heard there; `unowned`: USD billed meanwhile that no session knows; `media`: mode of each session's room
    at the end.
    """

    sample: Sample
    fault: datetime
    home: str
    away: str
    moved: tuple[Event, ...]
    before: dict[str, Any]
    during: dict[str, Any]
    after: dict[str, Any]
    home_again: str | None
    books: tuple[SessionBook, ...]
    wrong: tuple[str, ...]
    unowned: Decimal
    double: frozenset[str]
    restored: frozenset[str]
    media: dict[str, str]

    @property
    def interviews(self) -> frozenset[str]:
        """Sessions of those who talked when the SFU died."""
        return frozenset(self.sample.sessions[guest] for guest in GUESTS)

    @property
    def talked(self) -> list[SessionBook]:
        """Their books."""
        return [one for one in self.books if one.session in self.interviews]


@pytest.fixture(scope="module")
def study(house: House) -> Iterator[None]:
    """A pool with one SFU at AWAY, another LiveKit at HOME as its fallback, and a Project with its agent at HOME."""
    second, failing = stand.pools(house, POOL, FALLBACK, **PORTS)
    for one in (second, failing):
        # Nobody should have to wait two hours for a node that is deleted.
        one["spec"]["drain"] = {"deadline": "10s"}
    place = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": stand.NAMESPACE}}
    study = project(stand.NAMESPACE, stand.STUDY, sessions=len(GUESTS) + 2)
    study["spec"]["media"]["poolRef"]["name"] = POOL
    try:
        apply(house, second, failing)
        eventually("the SFUs have their nodes", lambda: placed(house), PATIENCE)
        with closed(house, stand.AWAY):
            apply(house, place, secret(stand.NAMESPACE), study)
            stand.says_home(house, PATIENCE, POOL)
            wait_ready(house.kube, stand.NAMESPACE, stand.STUDY)
        eventually("the fallback answers", lambda: stand.condition(house, "FallbackReady", POOL) == "True", PATIENCE)
        eventually("the front door has the keys of both", lambda: keys_are_known(house), PATIENCE)
        yield
    finally:
        cleared(house)


def placed(house: House) -> bool:
    return len([pod for pod in pods_of_pools(house) if pod["spec"].get("nodeName")]) == 2


def pods_of_pools(house: House, component: str = "sfu") -> list[dict[str, Any]]:
    selector = f"talktime.dev/pool in ({POOL}, {FALLBACK}),app.kubernetes.io/component={component}"
    found: list[dict[str, Any]] = house.kube.json("-n", RELEASE, "get", "pods", f"--selector={selector}")["items"]
    return found


def keys_are_known(house: House) -> bool:
    """A kubelet brings a changed Secret into a pod that runs when it looks at it again."""
    script = "import os; print(*os.listdir('/etc/talktime/sfu'))"
    there = house.kube("-n", RELEASE, "exec", "deploy/talktime-gateway", "--", "python", "-c", script).split()
    return {f"{RELEASE}.{POOL}.json", f"{RELEASE}.{POOL}_fallback.json"} <= set(there)


def cleared(house: House) -> None:
    """The cluster as the other journeys know it: these pools and pods gone, both nodes and their SFUs ready."""
    house.kube("-n", stand.NAMESPACE, "delete", "project", stand.STUDY, "--ignore-not-found", "--wait=false")
    house.kube("-n", RELEASE, "delete", "sfu", POOL, FALLBACK, "--ignore-not-found", "--wait=false")
    house.kube("wait", "--for=condition=Ready", "node", "--all", "--timeout=120s")

    def gone() -> bool:
        agents = house.kube.json("-n", stand.NAMESPACE, "get", "pods")["items"]
        return not (agents or pods_of_pools(house) or pods_of_pools(house, "redis"))

    eventually("the pools and the agents are gone", gone, PATIENCE, every=1)
    projects.sfu_ready(house)


@pytest.fixture(scope="module")
def night(house: House, study: None) -> Night:
    """Two interviews, the fault, at once a third; when all have left, the SFU again and one more interview."""
    home, away = (stand.url_of(house, node, PORTS["http"]) for node in (stand.AWAY, stand.HOME))
    network = stand.node(house, stand.HOME).network_namespace
    log = house.folder / "guests.log"
    unowned = books.read(house).unowned_usd
    began = time.time()
    with locked_real_sessions(), Crowd(network, *stand.front_door(house), log) as crowd:
        try:
            sample, fault, before, during = failed_over(house, crowd)
            moved = tuple(event for event in crowd.events(began) if event["what"] == "moved")
            home_again, after = back_home(house, crowd, home)
        except BaseException:
            print(*crowd.events(began), stand.pool_status(house, POOL), sep="\n")
            raise
        finally:
            with contextlib.suppress(OSError, RuntimeError, AssertionError):
                everybody_leaves(house, crowd, began)
    final = books.read(house)
    # A run before this one on a kept cluster had the same Project.
    mine = tuple(one for one in final.of_project(OWN) if float(one.row["opened_at"]) >= began)
    owner = {usage["key"].rpartition("/")[0]: one.session for one in mine for usage in one.row["usages"]}
    provider = house.simulator_log()
    names = [*(one.session for one in mine), f" of {OWN}:"]
    rows = house.rows("SELECT id::text AS id, media->>'mode' AS mode FROM sessions")
    print(shown(sample))
    return Night(
        sample=sample,
        fault=fault,
        home=home,
        away=away,
        moved=moved,
        before=before,
        during=during,
        after=after,
        home_again=home_again,
        books=mine,
        wrong=tuple(line for line in final.wrong() if any(name in line for name in names)),
        unowned=final.unowned_usd - unowned,
        double=frozenset(figures.answered_after_being_replaced(provider, owner)),
        restored=frozenset(figures.restored(provider, owner)),
        media={row["id"]: row["mode"] for row in rows},
    )


def failed_over(house: House, crowd: Crowd) -> tuple[Sample, datetime, dict[str, Any], dict[str, Any]]:
    """The guests' sample, the moment of the fault, and `status.active` before it and during it."""
    began = time.time()
    for guest in GUESTS:
        crowd.come(guest)
    until(crowd, "both talk", lambda events: talking(events, GUESTS), began)
    stand.standby_ready(house)
    before = stand.pool_status(house, POOL)["active"]
    with faults.kubelet_down(house, stand.AWAY):
        fault = faults.signal_sfu(house, stand.AWAY, pool=POOL)
        crowd.come(NEWCOMER)
        during = eventually("the pool is on its fallback", lambda: active(house, "Fallback"), PATIENCE)

        def sample(events: Sequence[Event]) -> Sample:
            return figures.sample(events, fault.timestamp(), GUESTS, NEWCOMER)

        def all_there(events: list[Event]) -> bool:
            return sample(events).whole

        crowd.until("all talk", all_there, figures.NEVER, began)
        # A second agent would show now; and what goes wrong may go wrong later.
        time.sleep(5)
        found = sample(crowd.events(began))
        everybody_leaves(house, crowd, began)
    return found, fault, before, during


def back_home(house: House, crowd: Crowd, home: str) -> tuple[str | None, dict[str, Any]]:
    """Where words are heard after the failback (None: nowhere within the patience), and `status.active` then."""
    stand.says_home(house, PATIENCE, POOL)
    deadline, number = time.monotonic() + PATIENCE, 0
    while True:
        began, who = time.time(), f"{LATER}-{number}"
        crowd.come(who)
        held = crowd.until("one more", partial(tells, who, "heard"), PATIENCE, began)
        token = figures.first(crowd.events(began), who, "token")
        where = str(token["server_url"]) if held and token is not None else None
        # A front door that was held up hears of the failback later than the pool tells it.
        if where == home or time.monotonic() > deadline:
            return where, stand.pool_status(house, POOL)["active"]
        crowd.leave(who)
        crowd.until("that one has left", partial(tells, who, "left"), PATIENCE, began)
        number += 1


def tells(who: str, what: str, events: list[Event]) -> bool:
    return figures.first(events, who, what) is not None


def active(house: House, target: str) -> dict[str, Any] | None:
    """`status.active` when that is where new rooms go."""
    found: dict[str, Any] = stand.pool_status(house, POOL).get("active", {})
    return found if found.get("target") == target else None


def everybody_leaves(house: House, crowd: Crowd, began: float) -> None:
    """All hang up, and their sessions are over."""
    crowd.leave()
    here = {event["who"] for event in crowd.events(began) if event["what"] == "joined"}
    crowd.until("everybody has left", lambda events: left(events) >= here, 30, began)
    still_open = f"""SELECT s.id::text AS id FROM sessions s JOIN projects p ON p.id = s.project_id
                     WHERE p.namespace = '{stand.NAMESPACE}' AND s.state = 'open'"""
    eventually("the sessions are over", lambda: not house.rows(still_open), PATIENCE, every=1)


def until(crowd: Crowd, what: str, enough: Callable[[list[Event]], bool], since: float) -> None:
    assert crowd.until(what, enough, PATIENCE, since), f"not within {PATIENCE:.0f} s: {what}"


def test_no_cent_is_lost_posted_twice_or_still_held(night: Night) -> None:
    assert night.wrong == ()
    assert night.unowned == 0
    assert len(night.talked) == len(GUESTS)
    for one in night.talked:
        print(f"{one.session}: billed {one.truth_usd}, posted {one.posted}, {one.unmetered_usd} of it at its bound")
        assert one.posted >= one.truth_usd > 0
        assert not one.lost_usd
        assert not one.double_posted_usd
        assert not one.reserved


def test_nobody_ever_has_two_agents(night: Night) -> None:
    assert night.sample.most_agents == 1
    assert not night.double


def test_a_new_interview_gets_its_room_and_its_agent_at_the_fallback(night: Night) -> None:
    assert night.sample.new is not None, "no room with an agent within a minute"
    assert night.sample.new_server == night.away
    assert night.sample.new <= NEW_SECONDS
    assert night.media[night.sample.sessions[NEWCOMER]] == "cloud"


def test_both_interviews_talk_again_in_the_same_session(night: Night) -> None:
    assert night.sample.moved == set(GUESTS)
    assert not night.sample.ended
    for event in night.moved:
        assert event["server_url"] == night.away
        assert event["session"] == night.sample.sessions[event["who"]]
    for guest, seconds in night.sample.again.items():
        assert seconds is not None, f"{guest} heard nobody again within a minute"
        assert seconds <= AGAIN_SECONDS, guest
    assert {night.media[session] for session in night.interviews} == {"cloud"}
    for one in night.talked:
        assert one.row["epoch"] >= 2
        assert one.close_reason == "participant_left"


def test_the_next_agents_know_what_was_said(night: Night) -> None:
    assert night.restored == night.interviews


def test_the_pool_says_that_it_is_on_its_fallback_since_when_and_why(night: Night) -> None:
    assert night.before["target"] == "SelfHosted"
    assert night.during["reason"] == "PoolSick"
    assert f"sfu-{POOL}-" in night.during["message"]
    assert timedelta(seconds=-1) <= moment(night.during) - night.fault <= timedelta(seconds=NEW_SECONDS)
    assert night.during["count"] == night.before["count"] + 1


def test_new_rooms_come_home_once_the_sfu_has_been_well_for_a_while(night: Night) -> None:
    assert (night.after["target"], night.after["reason"]) == ("SelfHosted", "PoolRecovered")
    assert moment(night.after) - moment(night.during) >= QUIET
    # Over and back, and no flapping in between.
    assert night.after["count"] == night.before["count"] + 2
    assert night.home_again == night.home


def moment(status: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(status["since"])
