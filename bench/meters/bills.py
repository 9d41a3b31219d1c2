"""From the truth to the invoice as finance downloads it, through `talktime reconcile`, to the ledger's total."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from talktime_ledger.core.money import ZERO

from bench.meters.stage import Books, settle, simulator

FORMATS = {"openai": "openai-costs", "google": "gcp-standard"}
MICRO = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Settled:
    """USD. `difference`: what the books are off the invoices after reconciliation, to the micro-dollar."""

    invoices: dict[str, Decimal]
    difference: Decimal
    estimate_percent: dict[str, float]


async def settled(book: Books, home: Path, truth: list[dict[str, Any]], prices: dict[str, Any]) -> Settled:
    """Settles everything that was billed. One simulator bills for all: it is started with their truths as its past."""
    state = home / "billing"
    state.mkdir()
    (state / "truth.jsonl").write_text("".join(json.dumps(record) + "\n" for record in truth), encoding="utf-8")
    before = await book.totals()
    await book.next_day()
    invoices: dict[str, Decimal] = {}
    async with simulator(home, "billing", "--state", str(state)) as biller:
        for vendor, kind in FORMATS.items():
            answer = await biller.http.post(f"{biller.url}/invoice", params={"format": kind}, json=prices)
            assert answer.status_code == 200, answer.text
            bill = home / f"{vendor}.bill"
            bill.write_text(answer.text, encoding="utf-8")
            invoices[vendor] = amount(kind, answer.text)
            if answer.text.strip() and invoices[vendor]:
                await settle(book, bill, home)
    after = await book.totals()
    off = [abs(after.get(vendor, ZERO) - usd) for vendor, usd in invoices.items()]
    off.append(abs(await book.posted() - sum(invoices.values(), ZERO)))
    estimated = {
        vendor: round(float(before.get(vendor, ZERO) / usd * 100), 3) for vendor, usd in invoices.items() if usd
    }
    return Settled(invoices, max(off).quantize(MICRO), estimated)


def amount(kind: str, text: str) -> Decimal:
    """What the file adds up to, read without the console's code. USD."""
    if kind == "openai-costs":
        page = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        values = [result["amount"]["value"] for bucket in page["data"] for result in bucket["results"]]
    else:
        rows = [json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in text.splitlines()]
        values = [row["cost"] for row in rows]
    return sum(map(Decimal, values), ZERO)
