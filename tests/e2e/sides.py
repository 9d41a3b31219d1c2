"""A journey seen from its sides: the front door's answers, the ledger's account, what a participant heard."""

from __future__ import annotations

import json
import math
import re
import wave
from array import array
from datetime import datetime
from pathlib import Path
from typing import Any

from hack.demo.release import NAMESPACE
from tests.e2e.house import House

MONEY = re.compile(r"cost|budget|usd|\$", re.IGNORECASE)
"""What no participant may ever receive."""


def post(house: House, url: str, key: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """POST from inside the cluster; status and JSON body. Patient: beside other tests an answer may take seconds,
    and a gateway or ledger that a journey has killed some more to listen again (`retries` are of connecting, 31 s)."""
    script = """
import json, sys, httpx
headers = {"Authorization": "Bearer " + sys.stdin.readline().strip()}
with httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=60) as client:
    answer = client.post(sys.argv[1], headers=headers, json=json.loads(sys.argv[2]))
print(json.dumps({"status": answer.status_code, "body": answer.json()}))
"""
    inside = ["-n", NAMESPACE, "exec", "-i", "deploy/talktime-console", "--", "python", "-c", script]
    answer: dict[str, Any] = json.loads(house.kube(*inside, url, json.dumps(body or {}), stdin=f"{key}\n"))
    return answer


def ledger_session(house: House, session: str) -> dict[str, Any]:
    """The ledger's own account of a session, asked with the console's identity."""
    script = """
import os, pathlib, sys, httpx
token = pathlib.Path(os.environ.get("TALKTIME_TOKEN_FILE", "/var/run/secrets/talktime/token")).read_text().strip()
headers = {"Authorization": "Bearer " + token}
with httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=60) as client:
    print(client.get(os.environ["TALKTIME_LEDGER_URL"] + "/v1/sessions/" + sys.argv[1], headers=headers).text)
"""
    inside = ["-n", NAMESPACE, "exec", "deploy/talktime-console", "--", "python", "-c", script]
    answer: dict[str, Any] = json.loads(house.kube(*inside, session))
    return answer


def speech_seconds(folder: Path, session: dict[str, Any], since: float) -> float:
    """Seconds of the recording after `since` (unix time) whose 20 ms frames are above -40 dBFS."""
    recording = session["recording"]
    with wave.open(str(folder / recording["file"])) as sound:
        samples = array("h", sound.readframes(sound.getnframes()))
        rate = sound.getframerate()
    start = max(0, int((since - moment(recording["started_at"])) * rate))
    frame = rate // 50
    loud = 0
    for at in range(start, len(samples) - frame, frame):
        mean = math.sqrt(sum(value * value for value in samples[at : at + frame]) / frame)
        loud += mean > 32768 * 10 ** (-40 / 20)
    return loud / 50


def moment(at: str | float) -> float:
    """Unix time of an RFC 3339 string (or of a number, as it is)."""
    return at if isinstance(at, int | float) else datetime.fromisoformat(at).timestamp()
