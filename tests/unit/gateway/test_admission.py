"""Admission: credential, then Project, then pool; strangers learn nothing."""

from typing import Any

import pytest
from talktime_gateway.admission import identify, pool_of
from talktime_gateway.credentials import Kind, Presented, digest
from talktime_gateway.directory import View
from talktime_gateway.problems import Problem, body
from talktime_ledger.wire import Directory

SERVER, OBSERVER, OTHER = "tts_" + "a" * 40, "tto_" + "b" * 40, "tts_" + "c" * 40


def project(name: str, server: str, **changes: Any) -> dict[str, Any]:
    keys = [("server", server), ("observer", OBSERVER)]
    return {
        "namespace": "team",
        "name": name,
        "paused": False,
        "deleted": False,
        "providers": [],
        "pool": {"namespace": "talktime", "name": "eu"},
        "accessKeys": [{"id": kind, "kind": kind, "sha256": digest(key)} for kind, key in keys],
        "maxParticipants": 1,
        "microphoneOnly": True,
        **changes,
    }


def view(pools: list[dict[str, Any]] | None = None, **study: Any) -> View:
    pool = {"namespace": "talktime", "name": "eu", "publicURL": "ws://p", "internalURL": "ws://i"}
    given = [{**pool, **changes} for changes in (pools if pools is not None else [{}])]
    projects = [project("study", SERVER, **study), project("other", OTHER)]
    return View.of(Directory.model_validate({"projects": projects, "pools": given}))


def shown(credential: str, kind: Kind = Kind.SERVER) -> Presented:
    return Presented(kind, digest(credential))


TICKET = shown("ttt_" + "t" * 40, Kind.TICKET)


@pytest.mark.parametrize(
    ("presented", "directory", "name", "expected"),
    [
        (None, view(), "study", 401),
        (shown(SERVER), None, "study", 503),
        (shown(SERVER), view(), "study", Kind.SERVER),
        (shown(OBSERVER, Kind.OBSERVER), view(), "study", Kind.OBSERVER),
        (shown(SERVER, Kind.OBSERVER), view(), "study", 401),
        (shown(OTHER), view(), "study", 401),
        (shown(OTHER), view(), "absent", 404),
        (shown("tts_" + "z" * 40), view(), "absent", 401),
        (shown(SERVER), view(deleted=True), "study", 404),
        (shown(OTHER), view(deleted=True), "study", 401),
        (TICKET, view(), "study", Kind.TICKET),
        (TICKET, view(), "absent", 404),
        (TICKET, view(deleted=True), "study", 404),
    ],
)
def test_who_is_who(presented: Presented | None, directory: View | None, name: str, expected: object) -> None:
    try:
        got: object = identify(presented, directory, "team", name).kind
    except Problem as problem:
        got = problem.status
    assert got == expected


@pytest.mark.parametrize(
    ("pools", "study", "expected"),
    [
        ([{}], {}, "eu"),
        ([{"health": "unknown"}], {}, "eu"),
        ([{"health": "bad"}], {}, "eu"),
        ([], {}, (503, "PoolUnknown")),
        ([{"namespace": "elsewhere"}], {}, (503, "PoolUnknown")),
        ([{"active": "Fallback"}], {}, "eu"),
        ([{}], {"paused": True}, (402, "Paused")),
    ],
)
def test_which_pool(pools: list[dict[str, Any]], study: dict[str, Any], expected: object) -> None:
    directory = view(pools, **study)
    try:
        got: object = pool_of(directory, directory.projects["team", "study"]).name
    except Problem as problem:
        got = (problem.status, problem.reason)
    assert got == expected


def test_a_neutral_refusal_is_the_same_for_every_cause() -> None:
    rich = Problem(402, "BudgetExhausted", "nothing left", extra={"available": "0.01"})
    poor = Problem(402, "Paused", "paused")
    assert body(rich.neutral()) == body(poor.neutral())
    assert rich.neutral().status == 403, "402 itself speaks of money"
    assert set(body(rich.neutral())) == {"type", "title", "status", "detail"}
    assert rich.neutral().reason == "BudgetExhausted", "kept for logs and metrics"


@pytest.mark.parametrize("status", [404, 425, 429, 500, 503])
def test_a_neutral_refusal_still_says_whether_asking_again_helps(status: int) -> None:
    told = Problem(status, "Full", "no room", retry_after=2).neutral()
    assert (told.status, told.retry_after) == (status, 2)
