"""CredentialsValid names the field and the fix, and forgets a refusal when the keys it was about are gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from talktime_ledger.resources.project import ProjectSpec
from talktime_ledger.wire import ProjectStatus
from talktime_operator.credentials import credentials_valid, look_again
from talktime_operator.names import Key
from talktime_operator.observed import Pod

Specs = Callable[..., ProjectSpec]
Statuses = Callable[..., ProjectStatus]
Pods = Callable[..., Pod]


@pytest.mark.parametrize(
    ("message", "reason", "words"),
    [
        ('secret "openai" not found', "SecretNotFound", "spec.providers[0].secretRef.name"),
        ('secret "google" not found', "SecretNotFound", "spec.providers[1].secretRef.name"),
        ("couldn't find key token in Secret team/google", "SecretKeyNotFound", "spec.providers[1].secretRef.key"),
    ],
)
def test_what_the_kubelet_misses_becomes_a_field(
    key: Key, project_spec: Specs, pod: Pods, now: datetime, message: str, reason: str, words: str
) -> None:
    waiting = (("CreateContainerConfigError", message),)
    pods = [pod("a", phase="Pending", ready=False, waiting=waiting)]
    finding = credentials_valid(key, project_spec(), pods, None, now)
    assert (finding.status, finding.reason) == ("False", reason)
    assert words in finding.message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("invalid_api_key", "InvalidApiKey"),
        ("insufficient_quota", "QuotaExhausted"),
        ("rate_limited", "RateLimited"),
        ("weird thing!", "WeirdThing"),
        ("", "ProviderRefused"),
    ],
)
def test_what_the_provider_says_becomes_a_reason(
    key: Key, project_spec: Specs, ledger_status: Statuses, now: datetime, code: str, reason: str
) -> None:
    ledger = ledger_status(providers=[{"name": "openai", "ok": False, "code": code, "message": "no"}])
    finding = credentials_valid(key, project_spec(), [], ledger, now)
    assert (finding.status, finding.reason) == ("False", reason)
    assert "spec.providers[0].secretRef" in finding.message


def test_an_untrusted_certificate_names_the_bundle_to_change(
    key: Key, project_spec: Specs, ledger_status: Statuses, now: datetime
) -> None:
    said = "unable to get local issuer certificate"
    ledger = ledger_status(providers=[{"name": "openai", "ok": False, "code": "tls_untrusted", "message": said}])
    finding = credentials_valid(key, project_spec(), [], ledger, now)
    assert (finding.status, finding.reason) == ("False", "TlsUntrusted")
    for words in ("spec.providers[0].endpoint", said, "children.caBundle"):
        assert words in finding.message


def test_a_provider_that_left_the_spec_says_nothing_any_more(
    key: Key, project_spec: Specs, ledger_status: Statuses, now: datetime
) -> None:
    ledger = ledger_status(providers=[{"name": "gone", "ok": False, "code": "invalid_api_key"}])
    assert credentials_valid(key, project_spec(), [], ledger, now).status == "Unknown"


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("code", "refused", "started", "reason"),
    [
        # (minutes ago) the refusal, the start of each pod; a pod None ago has not started yet
        ("invalid_api_key", 10, [20], "InvalidApiKey"),
        ("invalid_api_key", 10, [5], "KeysPresent"),
        ("invalid_api_key", 10, [5, 20], "InvalidApiKey"),
        ("invalid_api_key", 10, [5, 6], "KeysPresent"),
        ("invalid_api_key", 10, [20, None], "InvalidApiKey"),
        ("invalid_api_key", 10, [5, None], "KeysPresent"),
        ("invalid_api_key", 10, [None], "InvalidApiKey"),
        # With `minReplicas: 0` nobody starts until somebody comes, and nobody is sent to what is not Ready.
        ("invalid_api_key", 4, [], "InvalidApiKey"),
        ("invalid_api_key", 10, [], "NoAgentYet"),
        ("tls_untrusted", 10, [], "NoAgentYet"),
        ("insufficient_quota", 600, [700], "QuotaExhausted"),
        ("insufficient_quota", 10, [5], "KeysPresent"),
        ("tls_untrusted", 10, [5], "KeysPresent"),
        ("rate_limited", 4, [20], "RateLimited"),
        ("rate_limited", 5, [20], "KeysPresent"),
        ("rate_limited", 4, [3], "KeysPresent"),
    ],
)
def test_a_refusal_stands_until_every_agent_has_started_anew(
    key: Key,
    project_spec: Specs,
    ledger_status: Statuses,
    pod: Pods,
    now: datetime,
    code: str,
    refused: int,
    started: list[int | None],
    reason: str,
) -> None:
    ledger = ledger_status(providers=[{"name": "openai", "ok": False, "code": code, "since": now - refused * MINUTE}])
    pods = [pod(str(i), started=None if ago is None else now - ago * MINUTE) for i, ago in enumerate(started)]
    assert credentials_valid(key, project_spec(), pods, ledger, now).reason == reason


def test_an_old_pod_that_only_finishes_its_sessions_does_not_count(
    key: Key, project_spec: Specs, ledger_status: Statuses, pod: Pods, now: datetime
) -> None:
    refusal = {"name": "openai", "ok": False, "code": "invalid_api_key", "since": now - 10 * MINUTE}
    pods = [pod("old", started=now - 60 * MINUTE, terminating=True), pod("new", started=now - MINUTE)]
    ledger = ledger_status(providers=[refusal])
    assert credentials_valid(key, project_spec(), pods, ledger, now).status == "True"


def test_a_pod_has_started_when_its_container_runs() -> None:
    meta = {"namespace": "team", "name": "a", "uid": "u", "labels": {"talktime.dev/project": "study"}}
    running = [{"state": {"running": {"startedAt": "2026-11-22T11:55:00Z"}}}]
    started = Pod.parse({"metadata": meta, "status": {"containerStatuses": running}}).started
    assert started == datetime.fromisoformat("2026-11-22T11:55:00+00:00")
    waiting = [{"state": {"waiting": {"reason": "CreateContainerConfigError"}}}]
    assert Pod.parse({"metadata": meta, "status": {"containerStatuses": waiting}}).started is None


@pytest.mark.parametrize(
    ("code", "agents", "refused", "seconds"),
    [
        ("rate_limited", 1, 4, 61.0),
        ("rate_limited", 1, 5, 0.0),
        ("rate_limited", 1, 600, 0.0),
        ("invalid_api_key", 1, 4, 0.0),
        ("invalid_api_key", 0, 4, 61.0),
        ("invalid_api_key", 0, 5, 0.0),
    ],
)
def test_what_time_alone_ends_is_looked_at_again_in_time(
    ledger_status: Statuses, pod: Pods, now: datetime, code: str, agents: int, refused: int, seconds: float
) -> None:
    ledger = ledger_status(providers=[{"name": "openai", "ok": False, "code": code, "since": now - refused * MINUTE}])
    pods = [pod(str(i), started=now - 20 * MINUTE) for i in range(agents)]
    assert look_again(pods, ledger, now) == seconds
    assert look_again(pods, None, now) == 0.0
