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
