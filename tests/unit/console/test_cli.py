"""The command line itself: exit codes, one line instead of a traceback, the three outputs."""

import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from talktime_console.cli import main

CARD = """
apiVersion: talktime.dev/v1alpha1
kind: RateCard
metadata: {name: mini}
spec:
  provider: openai
  model: mini
  entries:
    - effectiveFrom: "2026-01-01T00:00:00Z"
      checkedAt: "2026-11-22"
      source: "https://prices.example"
      meters: {audio_in: {usdPerMillion: "10"}}
---
"""


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def talktime(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: starting Python for every case would take most of the time."""

    def run(*arguments: str, stdin: str = "", **env: str) -> Done:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["talktime", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def card(tmp_path: Path) -> str:
    (tmp_path / "mini.yaml").write_text(CARD)
    return str(tmp_path)


def test_price_in_all_outputs(talktime: Run, card: str) -> None:
    command = ("price", "-", "--rate-card", card, "--model", "mini", "--at", "2026-11-22")
    usage = '{"audio_in": 100}\n{"audio_in": 20}\n'
    as_json = talktime(*command, "--output", "json", stdin=usage)
    assert as_json.returncode == 0, as_json.stderr
    assert json.loads(as_json.stdout)["cost_usd"] == "0.001200000"
    rows = list(csv.DictReader(io.StringIO(talktime(*command, "-o", "csv", stdin=usage).stdout)))
    assert [row["usd"] for row in rows] == ["0.001000000", "0.000200000"]
    assert "0.001200000" in talktime(*command, stdin=usage).stdout


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "says"),
    [
        (("price", "-", "-r", "CARD", "-m", "mini", "--at", "noon"), '{"audio_in": 1}', 2, "not a time"),
        (("price", "-", "-r", "CARD", "-m", "mini", "--at", "2026-11-22"), "{", 2, "not JSON"),
        (("price", "-", "-r", "CARD", "-m", "mini", "--at", "2026-11-22"), "{}\n{\n", 2, "line 2"),
        (("price", "-", "-r", "/absent.yaml", "-m", "mini"), '{"audio_in": 1}', 2, "/absent.yaml: No such file"),
        (("price", "/absent.json", "-r", "CARD"), "", 2, "/absent.json: No such file"),
        (("price", "-", "-r", "CARD", "-m", "maxi", "--at", "2026-11-22"), '{"audio_in": 1}', 1, "no RateCard"),
        (("report", "--by", "colour"), "", 2, "colour"),
        (("report", "--project", "study"), "", 2, "NAMESPACE/NAME"),
        (("sessions", "--since", "noon"), "", 2, "--since"),
        (("sessions",), "", 1, "cannot be reached"),
        (("keys", "hash"), "password\n", 2, "not an access key"),
    ],
)
def test_a_fault_is_one_line(
    talktime: Run, card: str, tmp_path: Path, arguments: tuple[str, ...], stdin: str, code: int, says: str
) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    given = [card if argument == "CARD" else argument for argument in arguments]
    env = {"TALKTIME_LEDGER_URL": "http://127.0.0.1:9", "TALKTIME_TOKEN_FILE": str(token), "TALKTIME_PATIENCE_SEC": "0"}
    done = talktime(*given, stdin=stdin, **env)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_without_a_token_it_says_how_to_get_one(talktime: Run, tmp_path: Path) -> None:
    done = talktime("report", TALKTIME_TOKEN_FILE=str(tmp_path / "absent"))
    assert done.returncode == 1
    assert "kubectl create token" in done.stderr


def test_a_key_is_hashed_as_the_ledger_stores_it(talktime: Run) -> None:
    key = "tts_" + "k" * 43
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert talktime("keys", "hash", stdin=key + "\n").stdout.strip() == digest
    told = json.loads(talktime("keys", "hash", "-o", "json", stdin=key).stdout)
    assert told == {"key": [{"kind": "server", "sha256": digest}]}


NO_LEDGER = {"TALKTIME_TOKEN_FILE": "/absent/token"}
DONE = json.dumps(
    {
        "type": "response.done",
        "response": {
            "id": "resp_1",
            "usage": {
                "input_tokens": 100,
                "output_tokens": 50,
                "input_token_details": {"audio_tokens": 100},
                "output_token_details": {"audio_tokens": 50},
            },
        },
    }
)


def test_price_says_which_responses_of_a_capture_failed_and_prices_the_others(talktime: Run, card: str) -> None:
    failed = {"type": "response.done", "response": {"id": "r1", "status": "failed", "usage": None}}
    usage = {"input_tokens": 100, "input_token_details": {"audio_tokens": 100}}
    capture = [failed, {"type": "response.done", "response": {"id": "r2", "status": "completed", "usage": usage}}]
    command = ("price", "-", "-r", card, "-m", "mini", "--at", "2026-11-22", "-o", "json")
    done = talktime(*command, stdin=json.dumps(capture))
    assert (done.returncode, json.loads(done.stdout)["cost_usd"]) == (0, "0.001000000")
    assert done.stderr == "talktime: stdin: usage 1: the response failed and carries no usage, nothing was billed\n"


def test_price_needs_no_card_and_no_ledger(talktime: Run) -> None:
    command = ("price", "--model", "gpt-realtime", "--at", "2026-11-22T12:00:00Z", "-", "--output", "json")
    told = json.loads(talktime(*command, stdin=DONE, **NO_LEDGER).stdout)
    assert (told["cost_usd"], told["meters"]) == ("0.006400000", {"audio_in": 100, "audio_out": 50})
    assert [line["usd"] for line in told["lines"]] == ["0.003200000", "0.003200000"]


def test_compare_shows_published_beside_computed(talktime: Run) -> None:
    told = json.loads(talktime("compare", "--preset", "published-gemini", "-o", "json", **NO_LEDGER).stdout)
    (model,) = told["models"]
    assert (model["model"], model["session_usd"], model["transport_percent"]) == (
        "gemini-2.0-flash-live",
        "2.2004",
        "12.0",
    )
    assert told["clocks"]["google"]["audio_in"] == "698.4"
    assert [row["published"] for row in told["published"]][:2] == ["0.074", "2.21"]
    assert told["first_audio"]["measured"] is False
    assert "/absent/token" in told["first_audio"]["missing"]


def test_compare_takes_any_card_and_shape(talktime: Run, card: str) -> None:
    (Path(card) / "other.yaml").write_text(
        CARD.replace("mini", "other").replace('"10"}', '"10"}, audio_out: {free: true}')
    )
    shape = ("--minutes", "1", "--turns", "1", "--text-tokens", "0", "--silence-share", "0", "--context-cap", "0")
    command = ("compare", "-r", card, "-m", "other", *shape, "--at", "2026-11-22", "--offline", "-o", "csv")
    (row,) = csv.DictReader(io.StringIO(talktime(*command).stdout))
    assert row["session_usd"] == "0.0030"  # 30 s x 10 tokens x 10 USD a million
    assert row["first_audio_median_ms"] == ""


def test_economics_recommends_in_one_sentence(talktime: Run) -> None:
    told = json.loads(talktime("economics", "-o", "json").stdout)
    assert [row["first_profit_sessions"] for row in told["break_even"]] == [667, 7501]
    assert told["published"][-1]["difference_usd"] == "200.00"
    assert told["recommendation"].count(".") == 1
    stated = talktime("economics", "-s", "3000", "--peak", "1200", "--node-price", "10", "-o", "json")
    assert json.loads(stated.stdout)["months"][0]["nodes"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("compare", "-m", "gpt-9"), 1, "--model: no RateCard for model 'gpt-9'"),
        (("compare", "-m", "gpt-realtime", "--at", "2020-01-01"), 1, "no entry in force"),
        (("compare", "-m", "gpt-4o-transcribe", "--offline"), 1, "no price for audio_out"),
        (("compare", "--at", "noon"), 2, "--at: 'noon' is not a time"),
        (("compare", "--transport", "pigeon"), 2, "--transport: no such transport card"),
        (("compare", "-r", "/absent"), 2, "/absent: No such file"),
        (("compare", "--project", "study"), 2, "NAMESPACE/NAME"),
        (("economics", "--peak", "5"), 2, "--peak: 5 at once of how many"),
        (("economics", "--managed", "gpt-realtime"), 2, "--managed: no transport card"),
        (("economics", "--from-ledger"), 1, "no token at /absent/token: set TALKTIME_TOKEN_FILE"),
    ],
)
def test_prices_fail_in_one_line(talktime: Run, arguments: tuple[str, ...], code: int, says: str) -> None:
    done = talktime(*arguments, **NO_LEDGER)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert (len(done.stderr.strip().splitlines()), done.stdout) == (1, "")


@pytest.mark.parametrize("command", ["price", "compare", "economics"])
def test_help_has_examples(talktime: Run, command: str) -> None:
    told = talktime(command, "--help").stdout
    assert f"  talktime {command}" in told.split("Examples:")[1]
    assert "Exit code" in told
