"""``talktime reconcile``: a provider's bill against the books."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from pydantic import SecretStr
from talktime_ledger.wire.invoices import MAX_LINES, InvoiceLineWire, InvoicePush

from . import remote
from .bills import live
from .bills.lines import Bill, merged
from .bills.openai import page_lines
from .bills.reading import Source, bill_of
from .problems import InputError
from .settings import Settings
from .settlement import settlement_tables, verdict
from .tables import Output
from .terminal import OutputOption, PlacesOption, examples, show

KEY = "OPENAI_ADMIN_KEY"
# The ledger gives a bill of a large installation 90 s.
SETTLING_SEC = 95.0
EXAMPLES = examples(
    "talktime reconcile costs-page-1.json costs-page-2.json --dry-run",
    "talktime reconcile gcp-export.jsonl --final",
    f"{KEY}=sk-admin-... talktime reconcile --live --since 2026-11-01 --until 2026-11-21",
)


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command(epilog=EXAMPLES)(reconcile)


def reconcile(
    bill: Annotated[
        list[Path] | None,
        typer.Argument(
            help="OpenAI Costs or Usage API pages (JSON), its usage or cost download (CSV), Google billing export "
            "(standard: JSON, JSON lines, CSV; FOCUS: CSV). All pages at once; - is stdin."
        ),
    ] = None,
    source: Annotated[Source, typer.Option("--source", help="What kind of bill; else told by its look.")] = Source.AUTO,
    final: Annotated[
        bool, typer.Option("--final", help="The provider will not change it: sessions become `invoiced`.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be posted.")] = False,
    ask: Annotated[bool, typer.Option("--live", help=f"Ask OpenAI's Costs API, with an admin key in {KEY}.")] = False,
    since: Annotated[str | None, typer.Option("--since", help="With --live: first UTC day.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="With --live: UTC day after the last.")] = None,
    openai_url: Annotated[str, typer.Option("--openai-url", help="With --live: another address of the API.")] = (
        live.OPENAI
    ),
    output: OutputOption = Output.TABLE,
    places: PlacesOption = 6,
) -> None:
    """Settle a provider's bill: variances, then what each session is corrected by, exactly. Again is harmless.

    By UTC day, billing project (`providers[].billingProject`) and model. What was posted `unmetered` takes what was
    billed and not counted first. Exit code 1: the ledger cannot be reached. Exit code 2: the bill cannot be used;
    nothing was posted.
    """
    if ask == bool(bill):
        raise InputError("give the files of one bill, or --live")
    read, digest = _asked(openai_url, since, until) if ask else bill_of(bill or [], source)
    if final and not read.complete:
        raise InputError("a usage report has no amounts, it cannot be final", field="--final", fix="give the costs")
    if len(read.lines) > MAX_LINES:
        raise InputError(
            f"{len(read.lines)} lines, at most {MAX_LINES} at a time", field=read.source, fix="give fewer days"
        )
    push = InvoicePush.model_validate(
        {
            "vendor": read.vendor,
            "source": read.source,
            "digest": digest,
            "final": final,
            "dry_run": dry_run,
            "lines": [
                InvoiceLineWire(
                    day=line.day,
                    billing=line.billing,
                    item=line.item[:300],
                    kind=line.kind,
                    amount=line.amount,
                    quantity=line.quantity,
                )
                for line in read.lines
            ],
        }
    )
    settings = Settings()
    patient = settings.model_copy(update={"timeout_sec": max(settings.timeout_sec, SETTLING_SEC)})
    report = remote.ask(patient, lambda client: client.settle_invoice(push))
    show(settlement_tables(report, places), output, report.model_dump(mode="json"), verdict(report, places))


def _asked(url: str, since: str | None, until: str | None) -> tuple[Bill, str]:
    key = os.environ.get(KEY, "")
    if not key:
        raise InputError("is not set", field=KEY, fix="an admin key of the organization is needed to read its costs")
    pages = live.openai_pages(url, SecretStr(key), _day("--since", since), _day("--until", until))
    digest = hashlib.sha256(json.dumps([page for _, page in pages], sort_keys=True).encode()).hexdigest()
    return Bill("openai", "openai costs api", merged(page_lines(pages))), digest


def _day(option: str, text: str | None) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError as error:
        raise InputError(f"{text!r} is no day", field=option, fix="write it as 2026-11-01") from error
