"""Does the money add up? Prices the simulator's token truth anew and compares it with what Talktime says.

Independent on purpose: reads the truth and the RateCard YAML, imports nothing of Talktime. Exits 1 on any difference
of a millionth of a dollar, on a meter that never counted, on a billed thing that the ledger does not know.

    checker.py --truth http://simulator:8080/truth --rates examples/rate-cards --dsn postgresql://... \\
        --prometheus 0.123456 --projects projects.json
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import yaml

NANO = Decimal("0.000000001")
TOLERANCE = Decimal("0.000001")
RESPONSE_METERS = ("text_in", "text_cached_in", "audio_in", "audio_cached_in", "text_out", "audio_out")
TRANSCRIPTION_METERS = ("audio_in", "text_out")
"""A transcription's text_in is its prompt, which need not be there."""

Row = dict[str, Any]
Rates = dict[str, list[tuple[datetime, dict[str, Any]]]]


def load_rates(paths: Iterable[Path]) -> Rates:
    """model -> [(effective from, meters)], the latest first. Takes files and directories of RateCard YAML."""
    rates: Rates = {}
    for path in paths:
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            for document in yaml.safe_load_all(file.read_text()):
                if not document or document.get("kind") != "RateCard":
                    continue
                spec = document["spec"]
                entries = [(moment(entry["effectiveFrom"]), entry["meters"]) for entry in spec["entries"]]
                rates[spec["model"]] = sorted(entries, key=lambda entry: entry[0], reverse=True)
    return rates


def set_rate(rates: Rates, change: str) -> None:
    """`MODEL:METER=USD`: the same price book with one price changed (the test of this test)."""
    model, _, rest = change.partition(":")
    meter, _, price = rest.partition("=")
    known = [meters for _, meters in rates.get(model, []) if meter in meters]
    if not known:
        raise SystemExit(f"{model} has no meter {meter}")
    for meters in known:
        meters[meter] = {"usdPerMillion": price}


def moment(value: str | datetime) -> datetime:
    """An RFC 3339 time, UTC when it says nothing else."""
    parsed = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def unit_price(meters: dict[str, Any], meter: str) -> Decimal:
    """USD of one token (one second). Raises LookupError when there is no price."""
    rate = meters.get(meter)
    if rate is None or rate.get("absent"):
        raise LookupError(f"no price for {meter}")
    if "sameAs" in rate:
        return unit_price(meters, rate["sameAs"])
    if rate.get("free"):
        return Decimal(0)
    if "usdPerHour" in rate:
        return Decimal(str(rate["usdPerHour"])) / 3600
    return Decimal(str(rate["usdPerMillion"])) / 1_000_000


def price(record: Row, rates: Rates) -> Decimal:
    """USD of one billed thing by the entry in force at its time: summed exactly, rounded once, half-even to 1e-9."""
    at = moment(record["at"])
    meters = next((meters for since, meters in rates.get(record["model"], []) if since <= at), None)
    if meters is None:
        raise LookupError(f"no rate entry for {record['model']} at {record['at']}")
    used = [(meter, Decimal(str(count))) for meter, count in record["meters"].items() if count]
    return sum((unit_price(meters, meter) * count for meter, count in used), Decimal(0)).quantize(NANO, ROUND_HALF_EVEN)


def key_of(record: Row) -> str:
    """The key under which Talktime counts this thing."""
    if record["kind"] == "transcription":
        return f"{record['item_id']}/0"
    return f"{record['provider_session']}/{record['response_id']}"


@dataclass
class Findings:
    """What was compared, as printable lines, and everything that is wrong."""

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def compare(self, what: str, expected: Decimal, found: Decimal) -> None:
        same = abs(expected - found) < TOLERANCE
        self.lines.append(
            f"{what:<42} {expected:>16.9f} {found:>16.9f} {found - expected:>13.9f}  {'ok' if same else 'WRONG'}"
        )
        if not same:
            self.wrong.append(f"{what}: expected {expected}, found {found}")


def check(
    truth: list[Row],
    rates: Rates,
    costs: list[Row] | None,
    usages: list[Row] | None,
    prometheus: Decimal | None,
    posted: Decimal | None,
    retired: frozenset[str] = frozenset(),
) -> Findings:
    """The whole comparison. `costs`: rows of session_costs; `usages`: rows of usage_events (session_id, key).

    retired: sessions on accounts that a raised `accountGeneration` replaced; metrics and resources show the new ones.
    """
    findings = Findings()
    priced = {key_of(record): price(record, rates) for record in truth}
    if len(priced) != len(truth):
        findings.wrong.append("the truth has one key twice")
    for record in truth:
        if not record["delivered"]:
            findings.lines.append(f"undelivered: {record['kind']} {key_of(record)} of {priced[key_of(record)]} USD")
    counted = {row["key"]: str(row["session_id"]) for row in usages or [] if not truthy(row.get("unmetered"))}
    if usages is None:
        expected_of = [record for record in truth if record["delivered"]]
    else:
        expected_of = [record for record in truth if key_of(record) in counted]
        check_keys(findings, truth, priced, counted, costs or [])
    check_meters(findings, truth, counted)
    expected = sum((priced[key_of(record)] for record in expected_of), Decimal(0))
    findings.lines.append(f"{'USD':<42} {'expected':>16} {'found':>16} {'difference':>13}")
    unmetered = Decimal(0)
    if costs is not None:
        unmetered = sum((decimal(row.get("unmetered_usd")) for row in costs), Decimal(0))
        if usages is not None:
            compare_sessions(findings, expected_of, priced, counted, costs)
        total = sum((decimal(row["ai_cost_usd"]) for row in costs), Decimal(0))
        findings.compare("session_costs.ai_cost_usd, metered", expected, total - unmetered)
        if unmetered:
            findings.lines.append(f"posted at its bound, unmetered: {unmetered} USD")
    present = expected + unmetered
    present -= sum((priced[key_of(one)] for one in expected_of if counted.get(key_of(one)) in retired), Decimal(0))
    present -= sum(
        (decimal(row.get("unmetered_usd")) for row in costs or [] if str(row["session_id"]) in retired), Decimal(0)
    )
    if retired:
        findings.lines.append(f"on accounts of an earlier generation: {expected + unmetered - present} USD")
    if prometheus is not None:
        findings.compare("Prometheus", present, prometheus)
    if posted is not None:
        findings.compare("kubectl get project, status.budget.posted", present, posted)
    return findings


def owners(truth: list[Row], counted: dict[str, str]) -> dict[str, str]:
    """provider session -> session, from the usages that were counted."""
    return {record["provider_session"]: counted[key_of(record)] for record in truth if key_of(record) in counted}


def check_keys(
    findings: Findings, truth: list[Row], priced: dict[str, Decimal], counted: dict[str, str], costs: list[Row]
) -> None:
    """Everything billed is counted, or covered by what its session posted at a bound; nothing else is counted."""
    bound: dict[str, Decimal] = defaultdict(Decimal)
    for row in costs:
        bound[str(row["session_id"])] += decimal(row.get("unmetered_usd"))
    owner = owners(truth, counted)
    for record in truth:
        key = key_of(record)
        if key in counted:
            continue
        session = owner.get(record["provider_session"], "")
        if priced[key] <= bound[session]:
            bound[session] -= priced[key]
            findings.lines.append(f"not metered, within the bound that was posted: {record['kind']} {key}")
        elif record["delivered"]:
            findings.wrong.append(f"billed, not counted: {record['kind']} {key}")
        else:
            findings.lines.append(f"undelivered and without a bound posted: {record['kind']} {key}")
    findings.wrong += [f"counted, never billed: {key}" for key in sorted(set(counted) - {key_of(r) for r in truth})]


def compare_sessions(
    findings: Findings, records: list[Row], priced: dict[str, Decimal], counted: dict[str, str], costs: list[Row]
) -> None:
    expected: dict[str, Decimal] = defaultdict(Decimal)
    found: dict[str, Decimal] = defaultdict(Decimal)
    for record in records:
        expected[counted[key_of(record)]] += priced[key_of(record)]
    for row in costs:
        found[str(row["session_id"])] += decimal(row["ai_cost_usd"]) - decimal(row.get("unmetered_usd"))
    for session in sorted({*expected, *found}):
        findings.compare(session, expected[session], found[session])


def check_meters(findings: Findings, truth: list[Row], counted: dict[str, str]) -> None:
    """Every meter of every session above 0. Without usage rows a provider session stands for a session.

    A provider session of one response that nobody spoke to only rendered a clip: it holds no conversation, is left out.
    """
    sums: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(int)))
    answers: dict[str, int] = defaultdict(int)
    owner = owners(truth, counted)
    for record in truth:
        session = str(owner.get(record["provider_session"], record["provider_session"]))
        spoken_to = record["kind"] == "transcription" or record["meters"].get("audio_in", 0) > 0
        answers[session] += 2 if spoken_to else record.get("conversation") != "none"
        for meter, count in record["meters"].items():
            sums[session][record["kind"]][meter] += count
    talked = sorted(session for session, count in answers.items() if count > 1)
    for session in talked:
        for kind, meters in (("response", RESPONSE_METERS), ("transcription", TRANSCRIPTION_METERS)):
            values = {meter: sums[session][kind][meter] for meter in meters}
            text = " ".join(f"{meter}={value}" for meter, value in values.items())
            findings.lines.append(f"{session} {kind}: {text}")
            findings.wrong += [
                f"{session}: {kind} {meter} never counted" for meter, value in values.items() if value <= 0
            ]
    if not talked:
        findings.wrong.append("the truth holds no conversation at all")


def decimal(value: Any) -> Decimal:
    return Decimal(str(value)) if value not in (None, "") else Decimal(0)


def truthy(value: Any) -> bool:
    return value in (True, "true", "True", "t", "1", 1)


def fetch(source: str) -> str:
    """The text of a file or an http(s) URL."""
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=30) as answer:
            return str(answer.read().decode())
    return Path(source).read_text()


def rows_of(source: str) -> list[Row]:
    """Rows from a JSON list, JSON lines or CSV file."""
    text = fetch(source)
    if source.endswith(".csv"):
        return list(csv.DictReader(text.splitlines()))
    if text.lstrip().startswith("["):
        return list(json.loads(text, parse_float=Decimal))
    return [json.loads(line, parse_float=Decimal) for line in text.splitlines() if line.strip()]


def posted_of(source: str) -> Decimal:
    """status.budget.posted summed over `kubectl get project(s) -o json`."""
    document = json.loads(fetch(source))
    items = document.get("items", [document])
    return sum((decimal(item["status"]["budget"]["posted"]) for item in items), Decimal(0))


def query_prometheus(url: str, query: str) -> Decimal:
    """Sum of an instant query's samples."""
    answer = json.loads(fetch(f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"))
    samples = answer["data"]["result"]
    if not samples:
        raise SystemExit(f"Prometheus has no data for {query}")
    return sum((Decimal(sample["value"][1]) for sample in samples), Decimal(0))


# What transport posted at a bound is no token's cost, so the bounds come from the entries.
COSTS = """
SELECT c.session_id, SUM(c.ai_cost_usd) AS ai_cost_usd,
       (SELECT COALESCE(SUM(e.unmetered_usd), 0) FROM entries e WHERE e.session_id = c.session_id AND e.leg = 'ai')
         AS unmetered_usd
FROM session_costs c GROUP BY c.session_id
"""

RETIRED = """
SELECT s.id FROM sessions s JOIN accounts a ON a.id = s.account_id
WHERE a.generation < (SELECT MAX(b.generation) FROM accounts b WHERE b.project_id = a.project_id AND b.kind = 'project')
"""


async def from_database(dsn: str) -> tuple[list[Row], list[Row], frozenset[str]]:
    """Costs by session, usage_events, and the sessions on accounts of an earlier generation."""
    import asyncpg  # type: ignore[import-untyped]

    connection = await asyncpg.connect(dsn)
    try:
        costs = await connection.fetch(COSTS)
        usages = await connection.fetch("SELECT session_id, key, unmetered FROM usage_events")
        retired = await connection.fetch(RETIRED)
    finally:
        await connection.close()
    return [dict(row) for row in costs], [dict(row) for row in usages], frozenset(str(row["id"]) for row in retired)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truth", required=True, help="file or URL of the simulator's truth")
    parser.add_argument("--rates", type=Path, nargs="+", required=True, help="RateCard YAML files or directories")
    parser.add_argument("--dsn", help="the ledger's PostgreSQL")
    parser.add_argument("--costs", help="session_costs rows as .json, .jsonl or .csv, instead of --dsn")
    parser.add_argument("--usages", help="usage_events rows (session_id, key, unmetered) likewise")
    parser.add_argument("--prometheus", type=Decimal, help="the operator's number")
    parser.add_argument("--prometheus-url")
    parser.add_argument("--prometheus-query", default="sum(talktime_project_posted_usd)")
    parser.add_argument("--projects", help="output of kubectl get project -o json")
    parser.add_argument("--set-rate", action="append", default=[], metavar="MODEL:METER=USD")
    options = parser.parse_args(argv)
    rates = load_rates(options.rates)
    for change in options.set_rate:
        set_rate(rates, change)
    costs = rows_of(options.costs) if options.costs else None
    usages = rows_of(options.usages) if options.usages else None
    retired: frozenset[str] = frozenset()
    if options.dsn:
        costs, usages, retired = asyncio.run(from_database(options.dsn))
    prometheus = options.prometheus
    if options.prometheus_url:
        prometheus = query_prometheus(options.prometheus_url, options.prometheus_query)
    posted = posted_of(options.projects) if options.projects else None
    try:
        findings = check(rows_of(options.truth), rates, costs, usages, prometheus, posted, retired)
    except LookupError as error:
        print(f"cannot price the truth: {error}", file=sys.stderr)
        return 1
    print("\n".join(findings.lines))
    for wrong in findings.wrong:
        print(f"WRONG: {wrong}")
    print("the money adds up" if not findings.wrong else f"{len(findings.wrong)} things are wrong")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
